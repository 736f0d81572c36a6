"""Cleanings that help are found, and those that only seem to are not taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.inference.cleaning_choice import agreements, best_gain, candidates, smallest_component
from medseg_pl.inference.postprocess import Cleaning

LABELS = LabelMap(["organ", "lesion"], "multiclass")
GRID = Geometry((1, 10, 10), (3.0, 2.0, 2.0))
NOTHING, LARGEST, FILL = Cleaning(), Cleaning(largest_only=True), Cleaning(fill_holes=True)


def drawn(*boxes: tuple[int, int, int, int, int]) -> NDArray[np.uint8]:
    """A mask `(1, 1, 10, 10)` with boxes of `(top, left, height, width, value)`."""
    mask = np.zeros((1, 1, 10, 10), np.uint8)
    for top, left, height, width, value in boxes:
        mask[0, 0, top : top + height, left : left + width] = value
    return mask


def test_sizes_of_the_smallest_components_are_in_mm2_in_a_single_slice() -> None:
    mask = drawn((0, 0, 2, 2, 1), (5, 5, 3, 3, 1))
    assert smallest_component(mask, LABELS, GRID) == [16.0, math.inf]


def test_each_cleaning_is_scored_on_its_label() -> None:
    reference = drawn((0, 0, 4, 4, 1))
    prediction = drawn((0, 0, 4, 4, 1), (1, 1, 2, 2, 0), (8, 8, 2, 2, 1))  # a hole of 4 pixels, and 4 pixels of noise
    scored = agreements(prediction, reference, GRID, LABELS, 0, [NOTHING, LARGEST, FILL, Cleaning(True, 20.0)])
    assert scored == pytest.approx([24 / 32, 24 / 28, 32 / 36, 1.0])
    assert agreements(prediction, reference, GRID, LABELS, 1, [NOTHING, LARGEST]) == [1.0, 1.0]


def test_what_nobody_annotated_does_not_count() -> None:
    reference = drawn((0, 0, 4, 4, 1), (8, 8, 2, 2, IGNORE))
    labels = LabelMap(["organ", "lesion"], "multiclass", ignore_value=9)
    prediction = drawn((0, 0, 4, 4, 1), (8, 8, 2, 2, 1))
    assert agreements(prediction, reference, GRID, labels, 0, [NOTHING]) == [1.0]


def test_a_false_alarm_that_goes_is_a_gain() -> None:
    prediction = drawn((8, 8, 2, 2, 1))
    assert agreements(prediction, drawn(), GRID, LABELS, 0, [NOTHING, Cleaning(minimum_size=20.0)]) == [0.0, 1.0]


def test_a_gain_for_most_patients_is_safe() -> None:
    dices = np.array([[0.5, 0.6], [0.6, 0.75], [0.7, 0.78], [0.5, 0.62], [0.8, 0.9]])
    gain = best_gain([NOTHING, LARGEST], dices, list("abcde"))
    assert (gain.cleaning, gain.cases, gain.is_safe) == (LARGEST, 5, True)
    assert (gain.before, gain.after) == pytest.approx((0.62, 0.73))
    assert 0.05 < gain.interval[0] < 0.11 < gain.interval[1]


def test_the_gain_of_one_patient_may_be_chance() -> None:
    dices = np.array([[0.5, 0.49], [0.6, 0.59], [0.7, 0.69], [0.5, 0.49], [0.2, 0.9]])
    gain = best_gain([NOTHING, LARGEST], dices, list("abcde"))
    assert gain.after > gain.before
    assert not gain.is_safe
    assert not best_gain([NOTHING, LARGEST], dices[-1:], ["e"]).is_safe  # one patient tells nothing


def test_where_nothing_helps_nothing_is_done() -> None:
    gain = best_gain([NOTHING, LARGEST, FILL], np.array([[0.5, 0.4, 0.5], [0.6, 0.6, 0.6]]), ["a", "b"])
    assert (gain.cleaning, gain.is_safe) == (NOTHING, False)
    assert gain.interval == (0.0, 0.0)


def test_without_a_reference_no_size_is_tried() -> None:
    assert {cleaning.minimum_size for cleaning in candidates(None)} == {0.0}
    assert candidates(None)[0] == candidates(8.0)[0] == NOTHING
