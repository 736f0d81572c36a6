"""Values, colors and palettes of mask files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medseg_pl.core.errors import MaskValueError, SettingError
from medseg_pl.core.mask_values import check_colors, find_unique_marks, format_marks, paint, round_near_whole, translate
from medseg_pl.io import raster

BLACK, RED, YELLOW, GRAY = (0, 0, 0), (255, 0, 0), (255, 255, 0), (128, 128, 128)
COLORS = {BLACK: 0, RED: 1, YELLOW: 2}
BINARY = {(0,): 0, (1,): 1, (255,): 1}


def colors(*pixels: tuple[int, int, int], dtype: Any = np.uint8) -> np.ndarray:
    """`(3, n)`."""
    return np.array(pixels, dtype).T


def said(pixels: np.ndarray, meaning: dict[tuple[int, ...], int]) -> str:
    with pytest.raises(MaskValueError) as caught:
        translate(pixels, meaning, 0, "a.png")
    return str(caught.value)


class TestTranslate:
    def test_each_color_is_its_label(self) -> None:
        assert translate(colors(RED, BLACK, YELLOW), COLORS, 0, "a.png").tolist() == [1, 0, 2]

    def test_a_background_that_is_not_black(self) -> None:
        meaning = {(255, 255, 255): 0, BLACK: 1}
        assert translate(colors((255, 255, 255), BLACK), meaning, 0, "a.png").tolist() == [0, 1]

    @given(seed=st.integers(0, 999), count=st.integers(1, 5))
    def test_painting_undoes_translating(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        marks = [tuple(int(v) for v in row) for row in np.unique(rng.integers(0, 256, (count + 1, 3)), axis=0)]
        indices = rng.integers(0, len(marks), (4, 5)).astype(np.uint8)
        painted = paint(indices, marks)
        assert painted.dtype == np.uint8
        meaning = {mark: index for index, mark in enumerate(marks)}
        np.testing.assert_array_equal(translate(painted, meaning, 0, "a.png"), indices)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64])
    @pytest.mark.parametrize(("value", "index"), [(0, 0), (40, 0), (215, 1), (255, 1)])
    def test_within_the_tolerance_a_value_counts(self, dtype: type, value: int, index: int) -> None:
        meaning = {(0,): 0, (255,): 1}
        assert translate(np.array([[value]], dtype), meaning, 40, "a.png").tolist() == [index]

    @pytest.mark.parametrize("value", [41, 214, 128])
    def test_beyond_the_tolerance_it_does_not(self, value: int) -> None:
        with pytest.raises(MaskValueError, match=f"holds the value {value}, which no label claims, in 1 voxel"):
            translate(np.array([[0, value, 255]], np.uint8), {(0,): 0, (255,): 1}, 40, "a.png")

    def test_every_channel_of_a_color_must_be_near(self) -> None:
        assert translate(colors((250, 9, 10)), COLORS, 10, "a.png").tolist() == [1]
        with pytest.raises(MaskValueError, match=r"holds the color \(250, 9, 11\)"):
            translate(colors((250, 9, 11)), COLORS, 10, "a.png")

    def test_a_tolerance_below_one_half_rounds(self) -> None:
        pixels = np.array([[0.4, 0.6, 1.4, 1.6]], np.float32)
        assert translate(pixels, {(0,): 0, (1,): 1, (2,): 2}, 0.45, "a.nii").tolist() == [0, 1, 1, 2]

    @pytest.mark.parametrize(
        ("meaning", "tolerance", "text"),
        [
            ({(0,): 0, (100,): 1}, 50, "labels.tolerance 50 cannot tell 0 and 100 apart: it must be less than half "),
            ({(0,): 0, (1,): 1}, 0.5, "labels.tolerance 0.5 cannot tell 0 and 1 apart: it must be less than half "),
            (COLORS, 127.5, r"cannot tell \(0, 0, 0\) and \(255, 0, 0\) apart: .* their distance, 127.5"),
        ],
    )
    def test_a_tolerance_that_reaches_another_label_is_refused(self, meaning: Any, tolerance: float, text: str) -> None:
        with pytest.raises(SettingError, match=text):
            translate(np.zeros((len(next(iter(meaning))), 2), np.uint8), meaning, tolerance, "a.png")

    def test_two_marks_of_one_label_need_not_be_apart(self) -> None:
        assert translate(np.array([[250, 255]]), {(0,): 0, (250,): 1, (255,): 1}, 10, "a.png").tolist() == [1, 1]


class TestWhatIsSaid:
    def test_colors_are_named_and_counted(self) -> None:
        assert said(colors(RED, GRAY, GRAY, (1, 2, 3)), COLORS) == (
            "a.png holds the colors (1, 2, 3), (128, 128, 128), which no label claims, in 3 pixels; expected "
            "(0, 0, 0), (255, 0, 0), (255, 255, 0). Name the labels and their colors with labels.names and "
            "labels.colors."
        )

    def test_values_near_expected_ones_are_what_a_tolerance_is_for(self) -> None:
        assert said(np.array([[0, 255, 255, 218, 3]]), BINARY).endswith(
            " None is farther than 37 from an expected one, as where a lossy format or an annotation tool was not "
            "exact: if they are no labels of their own, set labels.tolerance to 37."
        )

    @pytest.mark.parametrize(
        ("values", "meaning"),
        [
            ([0, 2], BINARY),  # a second label
            ([0, 1, 2], BINARY),
            ([0, 128, 255], BINARY),  # what nobody annotated
            ([0, 100, 150, 200], {(0,): 0, (100,): 1, (200,): 2}),  # half-way
            ([0, 7, 9], {(0,): 0, (7,): 1}),  # ids are close by nature
            ([0, 5, np.inf], {(0,): 0, (255,): 1}),
            (range(60), BINARY),  # a number for each nucleus
        ],
    )
    def test_what_may_be_a_label_gets_no_hint(self, values: Any, meaning: Any) -> None:
        text = said(np.array([list(values)]), meaning)
        assert text.endswith("with labels.names and labels.values, or set labels.ignore_value.")

    def test_many_colors_are_smoothed_edges(self) -> None:
        edge = [(value, 0, 0) for value in range(0, 256, 5)]
        assert said(colors(*edge, BLACK, RED), COLORS).endswith(
            " So many colors are what smoothed edges (anti-aliasing) or JPEG leave: export the masks as PNG, without "
            "smoothing."
        )
        assert "So many values are" in said(np.arange(256)[None], BINARY)

    def test_a_lossy_format_leaves_colors_all_around(self) -> None:
        noise = np.random.default_rng(0).integers(-9, 10, (3, 400))
        pixels = np.clip(colors(*[RED] * 200, *[BLACK] * 200, dtype=np.int16) + noise, 0, 255)
        assert "if they are no labels of their own, set labels.tolerance to 9." in said(pixels, COLORS)

    def test_fractions_are_what_interpolation_leaves(self) -> None:
        assert said(np.array([[0.0, 0.25, 1.0]]), BINARY).endswith(
            " Values between whole numbers are what interpolation leaves: resample masks with nearest neighbor, or "
            "round them with labels.tolerance."
        )

    def test_thousands_of_values_do_not_take_long_to_be_told(self) -> None:
        photograph = np.random.default_rng(0).integers(0, 256, (3, 50_000))
        assert "So many colors are" in said(photograph, {**COLORS, GRAY: 3})


class TestWholeNumbers:
    @pytest.mark.parametrize("slope", [1 / 255, 0.1, 1 / 3, 7.0])
    def test_a_scaled_number_is_whole_again(self, slope: float) -> None:
        whole = np.arange(12)
        scaled = (np.round(whole / np.float32(slope)) * np.float64(np.float32(slope))).astype(np.float32)
        near = np.abs(scaled - whole) < 1e-4
        assert near.any()
        np.testing.assert_array_equal(round_near_whole(scaled)[near], whole[near])

    def test_what_lies_between_stays(self) -> None:
        values = np.array([0.5, 0.999, 1.001, -0.01], np.float64)
        np.testing.assert_array_equal(round_near_whole(values), values)

    def test_holes_stay(self) -> None:
        values = np.array([np.nan, np.inf, -np.inf, 2.0000001])
        np.testing.assert_array_equal(round_near_whole(values), [np.nan, np.inf, -np.inf, 2.0])

    def test_integers_are_left_alone(self) -> None:
        values = np.array([2**62 + 1])
        assert round_near_whole(values) is values


class TestDifferent:
    @given(seed=st.integers(0, 999), deep=st.booleans())
    def test_equal_to_numpy(self, seed: int, deep: bool) -> None:
        high, dtype = (65536, np.uint16) if deep else (4, np.uint8)
        marks = np.random.default_rng(seed).integers(0, high, (3, 30)).astype(dtype)
        np.testing.assert_array_equal(find_unique_marks(marks), np.unique(marks.T, axis=0))

    def test_holes_are_one(self) -> None:
        assert len(find_unique_marks(np.array([[np.nan, 1.0, np.nan]]))) == 2


def test_a_list_is_cut_short() -> None:
    assert format_marks([(value,) for value in range(20)]) == "0, 1, 2, 3, 4, 5, 6, 7 …"
    assert format_marks([(1234567.0,), (0.5,), (np.nan,), (-np.inf,)]) == "1234567, 0.5, nan, -inf"


class TestPaint:
    def test_values_come_without_channels(self) -> None:
        assert paint(np.array([[0, 1]]), [(0,), (9,)]).tolist() == [[0, 9]]

    def test_colors_come_with_channels_in_front(self) -> None:
        painted = paint(np.array([0, 1]), [BLACK, (300, 2, 1)])
        assert painted.tolist() == [[0, 300], [0, 2], [0, 1]]
        assert painted.dtype == np.uint16


class TestCheckColors:
    @pytest.mark.parametrize(
        ("given_colors", "text"),
        [
            ({"a": RED}, r"for each of labels\.names \(a, b\), and may have one for background and ignore; got a\."),
            ({"a": RED, "b": YELLOW, "c": GRAY}, r"may have one for background and ignore; got a, b, c"),
            ({"a": RED, "b": (1, 2)}, r"must be red, green and blue from 0 to 255, such as \[255, 0, 0\]; got \{'a'"),
            ({"a": RED, "b": (0, 0, -1)}, "must be red, green and blue"),
            ({"a": RED, "b": (0, 0, 70_000)}, "must be red, green and blue"),
            ({"a": RED, "b": RED}, r"gives a and b the same color, \[255, 0, 0\]"),
            ({"a": RED, "b": BLACK}, r"gives background and b the same color, \[0, 0, 0\]\. .* black unless"),
            ({"a": RED, "b": GRAY, "ignore": GRAY}, "gives b and ignore the same color"),
        ],
    )  # fmt: skip
    def test_what_cannot_work_is_refused(self, given_colors: Any, text: str) -> None:
        with pytest.raises(SettingError, match=text):
            check_colors(given_colors, ["a", "b"])

    def test_black_is_free_where_the_background_has_a_color(self) -> None:
        check_colors({"a": BLACK, "b": RED, "background": (255, 255, 255), "ignore": GRAY}, ["a", "b"])


SHAPE = (23, 31)
MARKED = np.zeros((12, 14), np.uint8)
MARKED[4:8, 3:9] = 255
"""24 pixels of lesion."""


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
@pytest.mark.parametrize(
    "marked", [MARKED, 255 - MARKED, MARKED * 0, MARKED * 0 + 255], ids=["some", "most", "none", "all"]
)
def test_white_is_the_label_whichever_comes_first(tmp_path: Path, name: str, marked: np.ndarray) -> None:
    for palette in ([0] * 3 + [255] * 3, [255] * 3 + [0] * 3):
        image = Image.fromarray((marked == palette[3]).astype(np.uint8))
        image.putpalette(palette)
        image.save(tmp_path / name)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / name) > 0, marked > 0)


def test_a_quantized_mask(tmp_path: Path) -> None:
    Image.fromarray(MARKED).convert("RGB").quantize(2).save(tmp_path / "a.png")
    assert int((raster.read_mask(tmp_path / "a.png") == 1).sum()) == 24


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif"])
@pytest.mark.parametrize(
    ("palette", "stored"),
    [
        ([200, 0, 0, 0, 0, 0, 0, 200, 0], [0, 1, 2]),  # black behind a color
        ([255] * 3 + [128] * 3 + [0] * 3, [0, 1, 2]),
        ([value for gray in range(255, -1, -1) for value in [gray] * 3], [0, 99, 255]),  # ImageJ's inverted table
        ([0] * 3 + [255] * 3 + [128] * 3, [0, 1, 2]),  # grays out of order
    ],
    ids=["black second", "white first", "inverted", "out of order"],
)
def test_an_order_that_may_mean_either_is_refused(
    tmp_path: Path, name: str, palette: list[int], stored: list[int]
) -> None:
    pixels = np.resize(np.array(stored, np.uint8), SHAPE)
    if name == "a.tif":
        table = np.zeros((3, 256), np.uint16)
        table[:, : len(palette) // 3] = np.array(palette).reshape(-1, 3).T * 257
        tifffile.imwrite(tmp_path / name, pixels, photometric="palette", colormap=table)
    else:
        image = Image.fromarray(pixels)
        image.putpalette(palette)
        image.save(tmp_path / name)
    with pytest.raises(MaskValueError, match=rf"{name} has a palette .* labels\.colors"):
        raster.read_mask(tmp_path / name)
    seen = np.array(palette, np.uint8).reshape(-1, 3)[pixels].transpose(2, 0, 1)
    np.testing.assert_array_equal(raster.read_mask_colors(tmp_path / name), seen)


def test_a_tiff_of_white_before_black(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, 0] = 65535
    tifffile.imwrite(tmp_path / "a.tif", (MARKED == 0).astype(np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), MARKED // 255)
