"""Overlap counts against counting by hand, torchmetrics and voxel-by-voxel loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torchmetrics.functional.classification import multiclass_stat_scores

from medseg_pl.functional.overlap import (
    OverlapCounts,
    count_exclusive,
    count_overlapping,
    dice,
    iou,
    precision,
    ratio,
    recall,
)

IGNORE = 255


def counted_one_by_one(prediction: np.ndarray, reference: np.ndarray, labels: int) -> list[OverlapCounts]:
    counts = [[0, 0, 0] for _ in range(labels)]
    for predicted, annotated in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
        for label in range(1, labels + 1):
            if annotated != IGNORE:
                counts[label - 1][0] += predicted == label and annotated == label
                counts[label - 1][1] += predicted == label and annotated != label
                counts[label - 1][2] += predicted != label and annotated == label
    return [OverlapCounts(*triple) for triple in counts]


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


@given(
    data=st.data(),
    labels=st.integers(1, 6),
    shape=array_shapes(max_dims=3, max_side=6),
)
def test_counts_equal_those_of_a_loop(data: st.DataObject, labels: int, shape: tuple[int, ...]) -> None:
    # A prediction made elsewhere may hold 255 too: it is then wrong wherever the reference says anything.
    values = st.sampled_from([*range(labels + 1), IGNORE])
    prediction, reference = (data.draw(arrays(np.uint8, shape, elements=values)) for _ in range(2))
    assert count_exclusive(prediction, reference, labels) == counted_one_by_one(prediction, reference, labels)


@pytest.mark.parametrize("labels", [1, 3, 7])
def test_counts_equal_those_of_torchmetrics(labels: int) -> None:
    rng = np.random.default_rng(labels)
    prediction = rng.integers(0, labels + 1, (5, 40, 33)).astype(np.uint8)
    reference = rng.choice([*range(labels + 1), IGNORE], (5, 40, 33)).astype(np.uint8)
    scores = multiclass_stat_scores(
        torch.from_numpy(prediction).long(),
        torch.from_numpy(reference).long(),
        num_classes=labels + 1,
        average=None,
        ignore_index=IGNORE,
    )
    expected = [OverlapCounts(int(tp), int(fp), int(fn)) for tp, fp, _, fn, _ in scores.tolist()[1:]]
    assert count_exclusive(prediction, reference, labels) == expected


def test_the_most_labels_that_fit_into_a_byte() -> None:
    values = np.arange(256, dtype=np.uint8)
    counts = count_exclusive(values, values, labels=254)
    assert counts == [OverlapCounts(1, 0, 0)] * 254
    shifted = count_exclusive(np.roll(values, 1), values, labels=254)
    assert shifted[:-1] == [OverlapCounts(0, 1, 1)] * 253
    assert shifted[-1] == OverlapCounts(0, 0, 1)  # where it was predicted the reference is ignored


def test_counts_are_exact_where_single_precision_ends() -> None:
    voxels = 2**24 + 1
    ones = np.ones(voxels, np.uint8)
    assert count_exclusive(ones, ones, labels=1) == [OverlapCounts(voxels, 0, 0)]


def test_overlapping_labels_are_counted_channel_by_channel() -> None:
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 2, (3, 4, 11, 9)).astype(np.uint8)
    reference = rng.choice([0, 1, IGNORE], (3, 4, 11, 9)).astype(np.uint8)
    known = reference != IGNORE
    expected = [
        OverlapCounts(int((p & (r == 1) & k).sum()), int((p & (r == 0) & k).sum()), int(((1 - p) & (r == 1) & k).sum()))
        for p, r, k in zip(prediction, reference, known, strict=True)
    ]
    assert count_overlapping(prediction, reference) == expected
