"""Lesion-wise scores: on paper, and against the steps of the challenges' script."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.metrics.functional.lesions import Lesions, average_lesions, measure_lesions
from tests.metrics.functional import object_oracle, surface_oracle
from tests.metrics.functional.object_pairs import Pair, pair

UNIT = (1.0, 1.0, 1.0)
FAR = 100.0
PAIRS = [pair(number) for number in range(0, 600, 3)]


def line(text: str) -> NDArray[np.bool_]:
    return np.array([[[character == "#" for character in text]]])


def scores(prediction: str, reference: str, dilation: int = 0, minimum: float = 0.0) -> tuple[float, float]:
    return average_lesions(measure_lesions(line(prediction), line(reference), UNIT, dilation), FAR, minimum)


class TestOnPaper:
    def test_one_found_one_missed_one_invented(self) -> None:
        # The first has Dice 4/5 and distances 0, 0, 1 with the 95th percentile 0.9; one is missed, one invented.
        assert scores(
            "###..........#",
            "##....##......",
        ) == (pytest.approx(0.8 / 3), pytest.approx((0.9 + 2 * FAR) / 3))

    def test_parts_that_touch_when_dilated_are_one_lesion(self) -> None:
        # Apart by two pixels: one step of dilation on each side joins them.
        prediction, reference = "##..##........", "##..##........"
        assert len(measure_lesions(line(prediction), line(reference), UNIT).dice) == 2
        assert measure_lesions(line(prediction), line(reference), UNIT, dilation=1).dice.tolist() == [1.0]
        # Of the joined lesion one half is found: Dice 2 * 2 / (2 + 4), where it was 1 and a miss.
        assert scores("##............", reference, dilation=1)[0] == pytest.approx(4 / 6)
        assert scores("##............", reference)[0] == pytest.approx(1 / 2)

    def test_what_lies_beside_a_lesion_touches_it_when_dilated(self) -> None:
        prediction, reference = "....##........", "##............"
        assert scores(prediction, reference) == (0.0, FAR)  # a miss and an invention
        assert scores(prediction, reference, dilation=2) == (0.0, FAR)
        assert scores(prediction, reference, dilation=3) == (0.0, 3.95)  # found, at distances 3 and 4

    def test_an_object_that_touches_two_lesions_counts_whole_for_both(self) -> None:
        lesions = measure_lesions(line("######........"), line("##..##........"), UNIT)
        assert lesions.dice.tolist() == [4 / 8, 4 / 8]
        assert lesions.invented == 0

    def test_small_lesions_do_not_count_and_what_touches_them_is_not_invented(self) -> None:
        prediction, reference = "#......####...", "#......####..."
        assert scores(prediction, reference, minimum=1.0) == (1.0, 0.0)
        assert scores(".......####...", reference, minimum=1.0) == (1.0, 0.0)
        assert all(map(math.isnan, scores("#.............", "#.............", minimum=1.0)))
        assert scores("#...#.........", "#.............", minimum=1.0) == (0.0, FAR)

    def test_volumes_are_in_the_unit_of_the_spacing(self) -> None:
        lesions = measure_lesions(line("#"), line("#"), (2.0, 3.0, 0.5))
        assert lesions.volumes.tolist() == [3.0]

    def test_a_lesion_in_one_slice_of_a_volume_is_all_border(self) -> None:
        reference = np.zeros((3, 5, 5), bool)
        reference[1] = True
        prediction = reference.copy()
        prediction[1, 2, 2] = False
        # As an image its middle is no border, and the hole's rim has a distance; as a volume the hole alone has.
        (distance,) = measure_lesions(prediction, reference, UNIT).hd95
        assert distance == 0.0

    def test_nothing_and_nothing(self) -> None:
        lesions = measure_lesions(line("..."), line("..."), UNIT)
        assert len(lesions.dice) == lesions.invented == 0
        assert all(map(math.isnan, average_lesions(lesions, FAR)))


@pytest.mark.parametrize("dilation", [0, 1, 3])
def test_equal_to_the_steps_of_the_script(dilation: int) -> None:
    for drawn in PAIRS:
        lesions = measure_lesions(drawn.prediction, drawn.reference, drawn.spacing, dilation)
        expected, invented = follow_script(drawn, dilation)
        assert (len(lesions.dice), lesions.invented) == (len(expected), invented), drawn
        np.testing.assert_allclose(np.transpose([lesions.dice, lesions.hd95]).reshape(-1, 2), expected, atol=1e-9)


def follow_script(drawn: Pair, dilation: int) -> tuple[NDArray[np.float64], int]:
    """Dice and HD95 of each combined lesion, and predictions that touch none; with sets of voxels."""
    steps = [step for step in object_oracle.FULL if sum(map(abs, step)) < 3]
    grid = {(z, y, x) for z, y, x in np.argwhere(np.ones(drawn.reference.shape)).tolist()}

    def dilate(voxels: set[object_oracle.Voxel]) -> set[object_oracle.Voxel]:
        for _ in range(dilation):
            voxels = voxels | {(z + a, y + b, x + c) for z, y, x in voxels for a, b, c in steps} & grid
        return voxels

    reference, found = object_oracle.components(drawn.reference), object_oracle.components(drawn.prediction)
    dilated = np.zeros(drawn.reference.shape, bool)
    for voxels in reference:
        for index in dilate(voxels):
            dilated[index] = True
    rows, used = [], set()
    for area in object_oracle.components(dilated):
        lesion = {voxel for voxels in reference for voxel in voxels} & area
        touching = [number for number, voxels in enumerate(found) if voxels & dilate(lesion)]
        used |= set(touching)
        predicted = {voxel for number in touching for voxel in found[number]}
        rows.append(score_pair(predicted, lesion, drawn))
    return np.array(rows, dtype=float).reshape(-1, 2), len(found) - len(used)


def score_pair(
    predicted: set[object_oracle.Voxel], lesion: set[object_oracle.Voxel], drawn: Pair
) -> tuple[float, float]:
    if not predicted:
        return 0.0, math.inf
    masks = np.zeros((2, *drawn.reference.shape), bool)
    for mask, voxels in zip(masks, (predicted, lesion), strict=True):
        for index in voxels:
            mask[index] = True
    expected = surface_oracle.scores(*masks, drawn.spacing, 1.0)
    return expected["dice"], expected["hd95"]


def test_an_emptied_prediction_is_never_better() -> None:
    for drawn in PAIRS:
        if drawn.reference.any():
            full = average_lesions(measure_lesions(drawn.prediction, drawn.reference, drawn.spacing, 1), FAR)
            nothing = np.zeros_like(drawn.prediction)
            empty = average_lesions(measure_lesions(nothing, drawn.reference, drawn.spacing, 1), FAR)
            assert empty == (0.0, FAR)
            assert full[0] >= 0.0
            assert full[1] <= FAR


def test_a_distance_is_at_most_the_farthest() -> None:
    lesions = Lesions(np.array([1.0]), np.array([0.5]), np.array([200.0]), 0)
    assert average_lesions(lesions, FAR) == (0.5, FAR)
