"""Components and holes, drawn by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg_pl.inference.components import fill_holes, keep_largest_component, remove_small_components


def drawn(*slices: str) -> NDArray[np.bool_]:
    """Slices of rows, `#` where the mask is."""
    return np.array([[[character == "#" for character in row] for row in rows.split()] for rows in slices])


def test_the_largest_of_a_slice() -> None:
    mask = drawn("##..# .#..# .....")
    np.testing.assert_array_equal(keep_largest_component(mask), drawn("##... .#... ....."))


def test_corners_join_across_slices() -> None:
    mask = drawn("#... .... ....", ".#.. .... ...#", "..#. .... ....")
    np.testing.assert_array_equal(
        keep_largest_component(mask), drawn("#... .... ....", ".#.. .... ....", "..#. .... ....")
    )


def test_of_equals_the_first_in_the_array() -> None:
    np.testing.assert_array_equal(keep_largest_component(drawn("#.# #.#")), drawn("#.. #.."))


def test_nothing_stays_nothing() -> None:
    nothing = drawn("... ...")
    assert not keep_largest_component(nothing).any()
    assert not remove_small_components(nothing, 2).any()
    assert not fill_holes(nothing).any()


def test_small_ones_go_and_others_stay() -> None:
    mask = drawn("#.##. ....# #.###")
    np.testing.assert_array_equal(remove_small_components(mask, 3), drawn("..##. ....# ..###"))
    np.testing.assert_array_equal(remove_small_components(mask, 1), mask)
    assert not remove_small_components(mask, 7).any()


def test_a_hole_of_a_slice() -> None:
    np.testing.assert_array_equal(fill_holes(drawn("#### #..# #### #...")), drawn("#### #### #### #..."))


def test_a_hole_of_a_volume_is_closed_on_all_sides() -> None:
    ring, lid = "### #.# ###", "### ### ###"
    np.testing.assert_array_equal(fill_holes(drawn(lid, ring, lid)), drawn(lid, lid, lid))
    np.testing.assert_array_equal(fill_holes(drawn(ring, ring, lid)), drawn(ring, ring, lid))  # open above
