"""Contours, pictures side by side, and the slices to show."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.core.visualization import COLORS, draw_contours, draw_side_by_side, select_slice, select_slices, to_gray


@pytest.fixture
def square() -> np.ndarray:
    mask = np.zeros((1, 12, 14), bool)
    mask[0, 2:9, 3:11] = True
    return mask


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that have a neighbor outside of it, above, below or beside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def test_grey_values_are_cut_at_both_ends() -> None:
    pixels = np.array([[-100.0, 0.0, 5.0, 10.0, 99.0]])
    assert to_gray(pixels, low=0, high=10).tolist() == [[0, 0, 127, 255, 255]]


def test_grey_values_of_holes_and_infinities() -> None:
    pixels = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    assert to_gray(pixels, low=-10, high=10).tolist() == [[127, 255, 0]]


def test_an_image_of_one_value_does_not_divide_by_zero() -> None:
    assert to_gray(np.full((1, 2), 7, np.uint16), low=7, high=7).tolist() == [[0, 0]]


def test_the_outline_alone_is_colored(square: np.ndarray) -> None:
    image = np.full((12, 14, 3), 9, np.uint8)
    drawn = draw_contours(image, square)
    border = outline(square[0])
    assert (drawn[border] == COLORS[0]).all()
    assert (drawn[~border] == 9).all()
    assert (image == 9).all()


def test_a_hole_has_an_outline_too(square: np.ndarray) -> None:
    square[0, 4:7, 5:9] = False
    colored = (draw_contours(np.zeros((12, 14, 3), np.uint8), square) == COLORS[0]).all(axis=-1)
    assert colored[3, 6]
    assert not colored[5, 6]


def test_dashes_are_a_part_of_the_line(square: np.ndarray) -> None:
    image = np.zeros((12, 14, 3), np.uint8)
    full, dashed = (draw_contours(image, square, dashed=dashed).any(axis=-1) for dashed in (False, True))
    assert 0.3 < dashed.sum() / full.sum() < 0.7
    assert not (dashed & ~full).any()


def test_each_label_has_its_color_and_colors_come_again() -> None:
    masks = np.zeros((len(COLORS) + 1, 4, 20), bool)
    for index, mask in enumerate(masks):
        mask[1, 2 * index] = True
    drawn = draw_contours(np.zeros((4, 20, 3), np.uint8), masks)
    assert [tuple(drawn[1, 2 * index].tolist()) for index in range(len(masks))] == [*COLORS, COLORS[0]]
    assert len(set(COLORS)) == len(COLORS)


def test_no_mask_changes_nothing() -> None:
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(draw_contours(image, np.zeros((2, 3, 4), bool)), image)


def test_three_views_side_by_side(square: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(0, 99, (12, 14, 3)).astype(np.uint8)
    views = draw_side_by_side(image, square, ~square, min_side=30)
    # 14 columns become at least 30 with a factor of 3; two gaps of 4 lie between the views.
    assert views.shape == (36, 3 * 42 + 8, 3)
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(views[:, :42], large)
    assert (views[:, 42:46] == 255).all()
    changed = (views[:, 46:88] != large).any(axis=-1)
    np.testing.assert_array_equal(changed, outline(square[0].repeat(3, axis=0).repeat(3, axis=1)))


def test_a_large_image_is_not_enlarged(square: np.ndarray) -> None:
    assert draw_side_by_side(np.zeros((12, 14, 3), np.uint8), square, square, min_side=14).shape == (12, 3 * 14 + 8, 3)


def test_the_telling_slice_is_where_masks_differ_most() -> None:
    reference = np.zeros((2, 4, 3, 3), bool)
    reference[0, 1] = True
    prediction = reference.copy()
    assert select_slice(reference, prediction) == 1
    prediction[1, 3, 0] = True
    assert select_slice(reference, prediction) == 3


def test_without_any_mask_it_is_the_middle() -> None:
    empty = np.zeros((1, 5, 2, 2), bool)
    assert select_slice(empty, empty) == 2


def test_all_slices_are_shown_where_they_are_few_and_nothing_is_in_them() -> None:
    assert select_slices(np.zeros(4, bool), most=9, always=2).tolist() == [0, 1, 2, 3]


def test_a_slice_that_must_be_there_takes_the_place_of_its_neighbor() -> None:
    holding = np.ones(100, bool)
    found = select_slices(holding, most=5, always=60)
    assert found.tolist() == [0, 25, 60, 74, 99]
    assert select_slices(holding, most=1, always=60).tolist() == [60]


def test_a_slice_outside_of_what_holds_something_is_put_in_order() -> None:
    holding = np.zeros(20, bool)
    holding[10:12] = True
    assert select_slices(holding, most=9, always=3).tolist() == [3, 10, 11, 12]
