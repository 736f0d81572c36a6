"""Run lengths and polygons, as masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_pl.core.errors import MaskValueError
from medseg_pl.io.regions import Region, Runs, decode_runs, draw_region, encode_runs, fill_polygons

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def encoded_slowly(mask: np.ndarray) -> str:
    words: list[str] = []
    length = 0
    for place, inside in enumerate([*mask.ravel().tolist(), False]):
        if inside:
            length += 1
        elif length:
            words += [str(place - length + 1), str(length)]
            length = 0
    return " ".join(words)


def decoded_slowly(text: str, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape[0] * shape[1], bool)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for place in range(start, start + length):
            mask[place - 1] = True
    return mask.reshape(shape)


@given(mask=MASKS)
def test_both_directions_equal_a_loop(mask: np.ndarray) -> None:
    text = encode_runs(mask)
    assert text == encoded_slowly(mask)
    np.testing.assert_array_equal(decode_runs(text, mask.shape), mask)
    np.testing.assert_array_equal(decoded_slowly(text, mask.shape), mask)


@given(runs=st.lists(st.tuples(st.integers(1, 36), st.integers(0, 36)).filter(lambda run: sum(run) <= 37), max_size=8))
def test_runs_may_touch_overlap_be_empty_and_come_in_any_order(runs: list[tuple[int, int]]) -> None:
    text = " ".join(f"{start} {length}" for start, length in runs)
    np.testing.assert_array_equal(decode_runs(text, (4, 9)), decoded_slowly(text, (4, 9)))


def test_rows_are_read_one_after_the_other() -> None:
    assert decode_runs("3 2", (2, 3)).tolist() == [[False, False, True], [True, False, False]]
    assert encode_runs(np.array([[0, 0, 1], [1, 0, 0]], bool)) == "3 2"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_no_text_is_an_empty_mask(text: str) -> None:
    assert decode_runs(text, (2, 3)).tolist() == [[False] * 3] * 2


@pytest.mark.parametrize("text", ["1 2 x 4", "1.5 2", "nan", "1 99999999999999999999"])
def test_words_that_are_no_whole_numbers_are_refused(text: str) -> None:
    with pytest.raises(MaskValueError, match="row 7: expected 'start length' pairs of whole numbers, got '"):
        decode_runs(text, (4, 4), "row 7")


def test_a_long_text_is_quoted_in_part() -> None:
    with pytest.raises(MaskValueError) as caught:
        decode_runs("a" * 5000, (4, 4), "row 7")
    assert str(caught.value) == f"row 7: expected 'start length' pairs of whole numbers, got '{'a' * 60}'."


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(MaskValueError, match=r"row 7: expected 'start length' pairs, got an odd count of 3 numbers\."):
        decode_runs("1 2 5", (4, 4), "row 7")


@pytest.mark.parametrize(
    "text", ["0 1", "-3 2", "6 2", "7 1", "1 -1", "1 7", f"{2**63 - 1} {2**63 - 1}", f"2 {2**63 - 1}"]
)
def test_a_run_beyond_the_image_is_refused(text: str) -> None:
    with pytest.raises(MaskValueError) as caught:
        decode_runs(text, (2, 3), "row 7")
    assert str(caught.value) == (
        "row 7: a run leaves the image of 2 rows and 3 columns. Check that width and height are not exchanged."
    )


def test_a_run_may_end_with_the_image() -> None:
    assert decode_runs("6 1", (2, 3)).ravel().tolist() == [False] * 5 + [True]


SIZE = (12, 15)


def rectangle(top: float, left: float, bottom: float, right: float) -> np.ndarray:
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], dtype=float)


def corners(seed: int, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A polygon that crosses itself and leaves the image."""
    return np.random.default_rng(seed).uniform(-3, np.array(size) + 3, (count, 2))


def star(seed: int, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A polygon that does not cross itself."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(1, 7, count)
    return np.array(size) / 2 + radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def test_a_rectangle_between_centers_holds_the_centers_within() -> None:
    mask = fill_polygons([rectangle(1.5, 2.5, 4.5, 8.5)], SIZE)
    expected = np.zeros(SIZE, bool)
    expected[2:5, 3:9] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_rectangle_through_centers_has_the_upper_and_left_ones() -> None:
    """As many pixels as its area: 3 x 6."""
    mask = fill_polygons([rectangle(2, 3, 5, 9)], SIZE)
    expected = np.zeros(SIZE, bool)
    expected[2:5, 3:9] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_last_bit_of_a_coordinate_decides_nothing() -> None:
    for noise in (1e-9, -1e-9):
        np.testing.assert_array_equal(
            fill_polygons([rectangle(2, 3, 5, 9) + noise], SIZE), fill_polygons([rectangle(2, 3, 5, 9)], SIZE)
        )


def test_a_triangle_counted_on_paper() -> None:
    """Row r holds the columns from r to 5: the diagonal belongs to the triangle at its right."""
    mask = fill_polygons([np.array([[0.0, 0.0], [0.0, 5.5], [5.5, 5.5]])], (6, 6))
    np.testing.assert_array_equal(mask, np.triu(np.ones((6, 6), bool)))


def test_a_contour_inside_another_is_a_hole_and_one_inside_that_is_none() -> None:
    nested = [rectangle(0.5, 0.5, 10.5, 10.5), rectangle(2.5, 2.5, 8.5, 8.5), rectangle(4.5, 4.5, 6.5, 6.5)]
    mask = fill_polygons(nested, SIZE)
    assert mask.sum() == 100 - 36 + 4
    assert mask[5, 5] and not mask[3, 5] and mask[1, 5]


def test_a_hole_may_hang_on_a_keyhole() -> None:
    """The outline runs to the hole and back along the same line."""
    outer, inner = rectangle(0.5, 0.5, 10.5, 10.5), rectangle(3.5, 3.5, 6.5, 6.5)
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    np.testing.assert_array_equal(fill_polygons([keyhole], SIZE), fill_polygons([outer, inner], SIZE))


def test_what_lies_outside_the_image_is_cut_off() -> None:
    assert fill_polygons([rectangle(-100, -100, 100, 100)], SIZE).all()
    assert fill_polygons([rectangle(-100, -100, 5.5, 100)], SIZE).sum() == 6 * 15
    assert not fill_polygons([rectangle(20, 1, 30, 5), rectangle(1, -9, 5, -2), rectangle(1, 20, 5, 30)], SIZE).any()


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.array([[1.0, 1.0], [8.0, 9.0]])])
def test_less_than_three_corners_enclose_nothing(points: np.ndarray) -> None:
    assert not fill_polygons([points], SIZE).any()


def test_no_polygon_is_no_pixel() -> None:
    assert fill_polygons([], SIZE).shape == SIZE
    assert not fill_polygons([], SIZE).any()


def test_a_circle_has_the_area_of_a_circle() -> None:
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = (99.7, 100.2) + 80 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    mask = fill_polygons([circle], (200, 200))
    assert mask.sum() == pytest.approx(np.pi * 80**2, rel=1e-3)
    rows, columns = np.nonzero(mask)
    assert (rows.mean(), columns.mean()) == pytest.approx((99.7, 100.2), abs=0.02)


@given(seed=st.integers(0, 2**20), count=st.integers(3, 12))
def test_it_agrees_with_opencv(seed: int, count: int) -> None:
    """OpenCV tells point by point; it rounds to single precision, so points on the outline are left to us."""
    polygon = star(seed, count).astype(np.float32)
    mask = fill_polygons([polygon.astype(float)], SIZE)
    for row, column in np.ndindex(SIZE):
        distance = cv2.pointPolygonTest(polygon[:, ::-1].copy(), (float(column), float(row)), True)
        if abs(distance) > 1e-3:
            assert mask[row, column] == (distance > 0)


@given(seed=st.integers(0, 2**20), count=st.integers(3, 9), shift=st.integers(0, 8))
def test_neither_direction_nor_start_matter(seed: int, count: int, shift: int) -> None:
    polygon = corners(seed, count)
    expected = fill_polygons([polygon], SIZE)
    np.testing.assert_array_equal(fill_polygons([polygon[::-1]], SIZE), expected)
    np.testing.assert_array_equal(fill_polygons([np.roll(polygon, shift, axis=0)], SIZE), expected)


@given(seed=st.integers(0, 2**20), on_centers=st.booleans())
def test_parts_share_no_pixel_and_lose_none(seed: int, on_centers: bool) -> None:
    """A quadrilateral cut along its diagonal, also where corners are centers of pixels."""
    polygon = star(seed, 4)
    polygon = np.round(polygon) if on_centers else polygon
    halves = [fill_polygons([polygon[chosen]], SIZE) for chosen in ([0, 1, 2], [2, 3, 0])]
    np.testing.assert_array_equal(halves[0] ^ halves[1], fill_polygons([polygon], SIZE))


@given(seed=st.integers(0, 2**20))
def test_moving_by_whole_pixels_moves_the_mask(seed: int) -> None:
    polygon = np.round(star(seed, 7) * 4) / 4
    mask = fill_polygons([polygon], (40, 40))
    np.testing.assert_array_equal(fill_polygons([np.add(polygon, (7, 11))], (40, 40))[7:, 11:], mask[:-7, :-11])


def test_lengths_whose_sum_wraps_are_refused() -> None:
    runs = Runs(np.array([2**62] * 4 + [30]), (0, 0), (5, 6), by_columns=True)
    with pytest.raises(MaskValueError, match=r"runs of 18446744073709551646 pixels .* do not fit"):
        draw_region(Region("a", runs=runs), (5, 6), "a.json")


def test_many_runs_that_overlap_take_no_memory() -> None:
    assert decode_runs("1 1000000 " * 20_000, (1000, 1000)).all()
