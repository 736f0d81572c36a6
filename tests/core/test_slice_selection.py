"""Which slices are shown."""

from __future__ import annotations

import numpy as np

from medseg_pl.core.slice_selection import spread_slices, telling_slice


def test_the_telling_slice_is_where_masks_differ_most() -> None:
    reference = np.zeros((2, 4, 3, 3), bool)
    reference[0, 1] = True
    prediction = reference.copy()
    assert telling_slice(reference, prediction) == 1
    prediction[1, 3, 0] = True
    assert telling_slice(reference, prediction) == 3


def test_without_any_mask_it_is_the_middle() -> None:
    empty = np.zeros((1, 5, 2, 2), bool)
    assert telling_slice(empty, empty) == 2


def test_all_slices_are_shown_where_they_are_few_and_nothing_is_in_them() -> None:
    assert spread_slices(np.zeros(4, bool), most=9, always=2).tolist() == [0, 1, 2, 3]


def test_a_slice_that_must_be_there_takes_the_place_of_its_neighbor() -> None:
    holding = np.ones(100, bool)
    found = spread_slices(holding, most=5, always=60)
    assert found.tolist() == [0, 25, 60, 74, 99]
    assert spread_slices(holding, most=1, always=60).tolist() == [60]


def test_a_slice_outside_of_what_holds_something_is_put_in_order() -> None:
    holding = np.zeros(20, bool)
    holding[10:12] = True
    assert spread_slices(holding, most=9, always=3).tolist() == [3, 10, 11, 12]
