"""Components and holes, drawn by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg_pl.inference.components import filled, largest_component, without_small


def drawn(*slices: str) -> NDArray[np.bool_]:
    """Slices of rows, `#` where the mask is."""
    return np.array([[[character == "#" for character in row] for row in rows.split()] for rows in slices])


def test_the_largest_of_a_slice() -> None:
    mask = drawn("##..# .#..# .....")
    np.testing.assert_array_equal(largest_component(mask), drawn("##... .#... ....."))


def test_corners_join_across_slices() -> None:
    mask = drawn("#... .... ....", ".#.. .... ...#", "..#. .... ....")
    np.testing.assert_array_equal(largest_component(mask), drawn("#... .... ....", ".#.. .... ....", "..#. .... ...."))


def test_of_equals_the_first_in_the_array() -> None:
    np.testing.assert_array_equal(largest_component(drawn("#.# #.#")), drawn("#.. #.."))


def test_nothing_stays_nothing() -> None:
    nothing = drawn("... ...")
    assert not largest_component(nothing).any()
    assert not without_small(nothing, 2).any()
    assert not filled(nothing).any()


def test_small_ones_go_and_others_stay() -> None:
    mask = drawn("#.##. ....# #.###")
    np.testing.assert_array_equal(without_small(mask, 3), drawn("..##. ....# ..###"))
    np.testing.assert_array_equal(without_small(mask, 1), mask)
    assert not without_small(mask, 7).any()


def test_a_hole_of_a_slice() -> None:
    np.testing.assert_array_equal(filled(drawn("#### #..# #### #...")), drawn("#### #### #### #..."))


def test_a_hole_of_a_volume_is_closed_on_all_sides() -> None:
    ring, lid = "### #.# ###", "### ### ###"
    np.testing.assert_array_equal(filled(drawn(lid, ring, lid)), drawn(lid, lid, lid))
    np.testing.assert_array_equal(filled(drawn(ring, ring, lid)), drawn(ring, ring, lid))  # open above
