"""The competition's score: on paper, against a brute force and against MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray

from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, UWMadisonScore
from tests.contracts.metric_contract import BINARY, MULTICLASS, MULTILABEL, TASKS, CaseMetricContract, random_case

Voxel = tuple[int, int, int]


class TestUWMadisonScore(CaseMetricContract):
    best_is_one = ("uw_madison",)

    def make(self, labels: LabelMap) -> CaseMetric:
        return UWMadisonScore(labels)


def scores(labels: LabelMap, case: Prediction) -> list[float]:
    metric = UWMadisonScore(labels)
    metric.update(case)
    return [float(score.values["uw_madison"]) for score in metric.table()]


def score(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    (value,) = scores(BINARY, Prediction.from_masks("c", prediction, reference))
    return value


def volume(shape: Voxel, *voxels: Voxel) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return mask


SHAPE = (3, 4, 12)  # its diagonal is 13
REFERENCE = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]


def test_a_volume_of_three_slices_on_paper() -> None:
    # Dice is 1 in the first slice, 2/3 in the second; the third is empty in both and left out.
    # The voxel that was missed lies 1 from its neighbors.
    missed_one = volume(SHAPE, *REFERENCE[:3])
    assert score(missed_one, volume(SHAPE, *REFERENCE)) == pytest.approx(0.4 * (1 + 2 / 3) / 2 + 0.6 * (1 - 1 / 13))


def test_a_slice_that_only_one_mask_has_is_a_dice_of_zero() -> None:
    # A stray voxel one slice, two rows and two columns away: sqrt(1 + 4 + 4) pixels.
    stray = volume(SHAPE, *REFERENCE[:3], (2, 2, 3))
    assert score(stray, volume(SHAPE, *REFERENCE)) == pytest.approx(0.4 * (1 + 2 / 3 + 0) / 3 + 0.6 * (1 - 3 / 13))


def test_perfect_is_one_however_many_slices_are_empty() -> None:
    assert score(volume(SHAPE, *REFERENCE), volume(SHAPE, *REFERENCE)) == 1.0


def test_an_image_is_measured_in_its_plane() -> None:
    # 3 x 4 pixels have a diagonal of 5.
    assert score(volume((1, 3, 4), (0, 0, 0)), volume((1, 3, 4), (0, 0, 3))) == pytest.approx(0.6 * (1 - 3 / 5))


def test_the_spacing_plays_no_part() -> None:
    masks = volume(SHAPE, *REFERENCE[:3]), volume(SHAPE, *REFERENCE)
    thick = Prediction.from_masks("c", *masks, spacing_mm=(9.0, 0.5, 2.0))
    assert scores(BINARY, thick) == [score(*masks)]


def test_opposite_corners_are_better_than_nothing() -> None:
    corners = volume(SHAPE, (0, 0, 0)), volume(SHAPE, (2, 3, 11))
    assert 0 < score(*corners) == pytest.approx(0.6 * (1 - math.sqrt(4 + 9 + 121) / 13))
    assert score(volume(SHAPE), corners[1]) == score(corners[0], volume(SHAPE)) == 0.0
    assert math.isnan(score(volume(SHAPE), volume(SHAPE)))


def test_a_slice_that_nobody_annotated_is_left_out() -> None:
    prediction, reference = volume(SHAPE, *REFERENCE, (2, 1, 1)), volume(SHAPE, *REFERENCE)
    reference[2] = IGNORE
    assert score(prediction, reference) == 1.0


def test_labels_that_overlap_are_scored_one_by_one() -> None:
    whole, part = volume(SHAPE, *REFERENCE), volume(SHAPE, *REFERENCE[:3])
    case = Prediction.from_masks("c", np.stack([whole, part]), np.stack([whole, whole]))
    assert scores(MULTILABEL, case) == [1.0, score(part, whole)]


def brute_force(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Voxel by voxel, and every pair of border voxels."""
    sets = [{tuple(map(int, voxel)) for voxel in np.argwhere(mask)} for mask in (prediction, reference)]
    depth, height, width = prediction.shape
    dice = []
    for z in range(depth):
        p, r = ({voxel for voxel in voxels if voxel[0] == z} for voxels in sets)
        if p or r:
            dice.append(2 * len(p & r) / (len(p) + len(r)))
    axes = range(1 if depth == 1 else 0, 3)
    steps = [tuple(sign * (axis == i) for i in range(3)) for axis in axes for sign in (-1, 1)]
    ours, theirs = (
        [v for v in voxels if any((v[0] + z, v[1] + y, v[2] + x) not in voxels for z, y, x in steps)] for voxels in sets
    )
    farthest = max(
        min(math.dist(a, b) for b in goal) for start, goal in ((ours, theirs), (theirs, ours)) for a in start
    )
    diagonal = math.hypot(height, width) if depth == 1 else math.hypot(depth, height, width)
    return 0.4 * sum(dice) / len(dice) + 0.6 * (1 - farthest / diagonal)


@given(shape=st.tuples(*[st.integers(1, 5)] * 3), seed=st.integers(0, 9999), share=st.floats(0.05, 0.9))
def test_equal_to_a_brute_force(shape: Voxel, seed: int, share: float) -> None:
    masks = np.random.default_rng(seed).random((2, *shape)) < share
    masks[0][seed % shape[0], 0, 0] = masks[1][0, seed % shape[1], 0] = True  # neither is empty
    assert score(*masks.astype(np.uint8)) == pytest.approx(brute_force(*masks))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.5 warns of its own call
@TASKS
@pytest.mark.parametrize("number", [1, 2])
def test_equal_to_monai(labels: LabelMap, number: int) -> None:
    given = random_case(labels, number)
    assert given.reference is not None
    planes = [labels.planes(mask)[None].astype(np.float32) for mask in (given.mask, given.reference)]
    prediction, reference = (torch.from_numpy(plane) for plane in planes)
    dice = torch.stack([compute_dice(prediction[:, :, z], reference[:, :, z])[0] for z in range(prediction.shape[2])])
    distance = compute_hausdorff_distance(prediction, reference, include_background=True)[0]
    expected = 0.4 * dice.nanmean(0) + 0.6 * (1 - distance / math.hypot(*given.geometry.shape))
    assert scores(labels, given) == pytest.approx(expected.tolist(), rel=1e-6)


def test_it_is_left_out_of_training() -> None:
    assert not UWMadisonScore(MULTICLASS).in_training
