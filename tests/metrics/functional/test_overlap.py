"""Overlap counts against counting by hand, torchmetrics and voxel-by-voxel loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torchmetrics.functional.classification import binary_stat_scores

from medseg_pl.metrics.functional.overlap import OverlapCounts, count, dice, iou, precision, ratio, recall


def counted_one_by_one(prediction: np.ndarray, reference: np.ndarray) -> OverlapCounts:
    tp = fp = fn = 0
    for predicted, annotated in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
        tp += predicted and annotated
        fp += predicted and not annotated
        fn += annotated and not predicted
    return OverlapCounts(tp, fp, fn)


def test_scores_worked_out_on_paper() -> None:
    counts = OverlapCounts(tp=6, fp=2, fn=4)
    assert dice(counts) == 12 / 18
    assert iou(counts) == 6 / 12
    assert precision(counts) == 6 / 8
    assert recall(counts) == 6 / 10
    assert (counts.prediction, counts.reference) == (8, 10)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (OverlapCounts(0, 0, 0), (math.nan, math.nan, math.nan, math.nan)),
        (OverlapCounts(0, 3, 0), (0, 0, 0, math.nan)),
        (OverlapCounts(0, 0, 3), (0, 0, math.nan, 0)),
        (OverlapCounts(0, 2, 3), (0, 0, 0, 0)),
        (OverlapCounts(5, 0, 0), (1, 1, 1, 1)),
    ],
)
def test_empty_masks(counts: OverlapCounts, expected: tuple[float, ...]) -> None:
    scores = [score(counts) for score in (dice, iou, precision, recall)]
    np.testing.assert_array_equal(scores, expected)


def test_nothing_divided_by_nothing_is_no_number() -> None:
    assert math.isnan(ratio(0, 0))
    assert ratio(1, 4) == 0.25


def test_pooling_adds_voxels_and_not_tuples() -> None:
    assert OverlapCounts(1, 2, 3) + OverlapCounts(10, 20, 30) == OverlapCounts(11, 22, 33)
    with pytest.raises(TypeError, match="unsupported operand"):
        OverlapCounts(1, 2, 3) + 4  # type: ignore[operator]


@given(data=st.data(), shape=array_shapes(max_dims=4, min_side=0, max_side=6))
def test_counts_equal_those_of_a_loop(data: st.DataObject, shape: tuple[int, ...]) -> None:
    prediction, reference = (data.draw(arrays(np.bool_, shape)) for _ in range(2))
    assert count(prediction, reference) == counted_one_by_one(prediction, reference)


@pytest.mark.parametrize("density", [0.01, 0.5, 0.99])
def test_counts_equal_those_of_torchmetrics(density: float) -> None:
    prediction, reference = np.random.default_rng(int(100 * density)).random((2, 5, 40, 33)) < density
    tp, fp, _, fn, _ = binary_stat_scores(torch.from_numpy(prediction).long(), torch.from_numpy(reference).long())
    assert count(prediction, reference) == OverlapCounts(int(tp), int(fp), int(fn))


def test_counts_are_plain_integers_that_json_can_write() -> None:
    mask = np.ones((2, 3), bool)
    assert [type(value) for value in count(mask, ~mask)] == [int, int, int]


def test_a_part_of_a_larger_array_is_counted_as_its_copy() -> None:
    prediction, reference = np.random.default_rng(0).random((2, 7, 12, 10)) < 0.5
    parts = [mask[::2, 1::3, ::-1].swapaxes(0, 2) for mask in (prediction, reference)]
    assert count(*parts) == count(*(part.copy() for part in parts))


def test_counts_are_exact_where_single_precision_ends() -> None:
    # float32 counts no further than 16,777,216.
    voxels = 10**8
    prediction = np.ones(voxels, bool)
    reference = np.ones(voxels, bool)
    prediction[-7:] = False
    reference[:5] = False
    counts = count(prediction, reference)
    assert counts == OverlapCounts(tp=99_999_988, fp=5, fn=7)
    assert dice(counts) == 199_999_976 / 199_999_988
