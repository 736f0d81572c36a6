"""Contours, pictures side by side, and the slices to show. What scoring keeps of a case for a page."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.io.case_pictures import (
    COLORS,
    CasePicture,
    choose_window,
    draw_case,
    draw_contours,
    draw_side_by_side,
    draw_thumbnail,
    read_picture,
    select_cases,
    select_slice,
    select_slices,
    to_gray,
    to_rgb,
    write_picture,
)

LABELS = LabelMap(["a", "b", "c"], "multilabel")

BUDGET = 300_000


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
    # 14 columns become at least 30 with a factor of 3; two gaps of 4 lie between the views, captions of 20 above them.
    assert views.shape == (20 + 36, 3 * 42 + 8, 3)
    views = views[20:]
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(views[:, :42], large)
    assert (views[:, 42:46] == 255).all()
    changed = (views[:, 46:88] != large).any(axis=-1)
    np.testing.assert_array_equal(changed, outline(square[0].repeat(3, axis=0).repeat(3, axis=1)))


def test_a_large_image_is_not_enlarged(square: np.ndarray) -> None:
    views = draw_side_by_side(np.zeros((12, 14, 3), np.uint8), square, square, min_side=14)
    assert views.shape == (20 + 12, 3 * 14 + 8, 3)


@pytest.mark.parametrize("shape", [(320, 320), (400, 60), (60, 4000), (2, 2)])
def test_each_view_has_a_caption_of_its_own_that_fits(shape: tuple[int, int]) -> None:
    mask = np.zeros((1, *shape), bool)
    views = draw_side_by_side(np.full((*shape, 3), 128, np.uint8), mask, mask)
    width = (views.shape[1] - 8) // 3
    height = int((views[:, 0] == 255).all(axis=-1).argmin())
    assert height >= 20
    captions = [views[:height, place * (width + 4) :][:, :width] for place in range(3)]
    for caption in captions:
        assert caption.min() < 128, "something is written"
        assert (caption[:, -1] == 255).all() and (caption[-1] == 255).all(), "and not cut off"
    assert len({caption.tobytes() for caption in captions}) == 3


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


def make_noise(depth: int, side: int) -> NDArray[np.uint16]:
    """The hardest to compress."""
    return np.random.default_rng(0).integers(0, 4000, (1, depth, side, side)).astype(np.uint16)


def make_balls(depth: int, side: int) -> NDArray[np.uint8]:
    """One ball for each label, in the middle third of the slices."""
    z, y, x = np.indices((depth, side, side))
    balls = [
        (3 * (z - depth / 2)) ** 2 * (side / depth) ** 2 + (y - side / 2) ** 2 + (x - side * (k + 1) / 4) ** 2
        < (side / 5) ** 2
        for k in range(3)
    ]
    return np.stack(balls).astype(np.uint8)


def draw(
    image: NDArray[Any],
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    labels: LabelMap = LABELS,
    spacing: tuple[float, float, float] | None = None,
) -> CasePicture:
    depth, height, width = image.shape[1:]
    geometry = Geometry((depth, height, width), spacing)
    telling = select_slice(labels.planes(reference), labels.planes(prediction))
    return draw_case(
        image,
        compute_channel_statistics(image),
        reference,
        prediction,
        geometry,
        telling=telling,
        overlapping=labels.overlapping,
    )


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_small_cases_are_kept_pixel_by_pixel(tmp_path: Path) -> None:
    mask = make_balls(6, 40)
    write_picture(tmp_path / "a.json", draw(make_noise(6, 40), mask, 1 - mask, spacing=(3.0, 2.0, 1.0)))
    picture = read_picture(tmp_path / "a.json")
    assert (picture.aspect, picture.slices, picture.overlapping) == (0.5, list(range(6)), True)
    assert np.array_equal(picture.reference, mask) and np.array_equal(picture.prediction, 1 - mask)
    assert (decode(picture.images[0]).format, decode(picture.images[0]).size) == ("WEBP", (40, 40))


def test_large_cases_keep_to_their_budget_and_the_telling_slice() -> None:
    mask = make_balls(60, 330)
    prediction = mask.copy()
    prediction[:, 30] = 0
    picture = draw(make_noise(60, 330), mask, prediction)
    assert 0.5 * BUDGET < sum(map(len, picture.images)) <= 1.05 * BUDGET
    assert picture.telling == 30 and picture.telling in picture.slices
    assert 1 < len(picture.slices) == len(picture.images) < 60
    assert picture.reference.shape == (3, 60, 320, 320), "masks of several runs fit each other"
    assert picture.reference.mean() == pytest.approx(mask.mean(), rel=0.02)


def test_a_large_image_without_depth_keeps_more_of_its_pixels() -> None:
    image, mask = np.zeros((3, 1, 700, 800), np.uint8), np.zeros((1, 1, 700, 800), np.uint8)
    picture = draw(image, mask, mask, LabelMap(["a"], "binary"))
    assert picture.reference.shape == (1, 1, 560, 640) and decode(picture.images[0]).size == (640, 560)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bright_labels_keep_their_shades(dtype: type) -> None:
    image = np.random.default_rng(0).integers(40, 60, (1, 1, 200, 200)).astype(dtype)
    mask = np.zeros((1, 1, 200, 200), np.uint8)
    mask[0, 0, 100:110, 90:100] = 1  # 0.25 % of the image: above its percentiles
    mask[0, 0, :50] = 255  # nobody annotated these
    image[0, 0, 100:110, 90:95], image[0, 0, 100:110, 95:100] = 160, 240
    image[0, 0, 0, 0] = 255
    picture = draw(image, mask, mask * 0, LabelMap(["a"], "binary"))
    gray = np.asarray(decode(picture.images[0]).convert("L")).astype(int)
    darker, brighter = gray[102:108, 91:94], gray[102:108, 97:99]
    assert abs(darker.mean() - 255 * 120 / 200) < 12 and brighter.mean() > 245
    assert gray[120:, :80].max() < 60, "noise of the ground is not stretched"


def test_dark_labels_keep_their_shades() -> None:
    image = np.full((1, 1, 100, 100), 1000, np.int16)
    mask = np.zeros((1, 1, 100, 100), np.uint8)
    mask[0, 0, :4, :4] = 1
    image[0, 0, ::2] = 1100
    image[0, 0, :4, :2], image[0, 0, :4, 2:4] = -1000, 0
    window = choose_window(image, compute_channel_statistics(image), mask[0] == 1)
    assert window == (-1000, 1100)


@pytest.mark.parametrize(("brightest", "shown"), [(60, [255, 127, 0]), (200, [200, 100, 0])])
def test_dark_color_is_brightened_and_stays_that_color(brightest: int, shown: list[int]) -> None:
    image = np.zeros((3, 1, 20, 20), np.uint8)
    image[:, 0, 4:12, 4:12] = np.array([brightest, brightest // 2, 0])[:, None, None]
    labeled = image[0] > 0
    rgb = to_rgb(image[:, 0], *choose_window(image, compute_channel_statistics(image), labeled))
    assert rgb[5, 5].tolist() == shown and rgb[0, 0].tolist() == [0, 0, 0]


def test_black_color_stays_black() -> None:
    image = np.zeros((3, 1, 4, 4), np.uint8)
    assert not to_rgb(image[:, 0], *choose_window(image, compute_channel_statistics(image), image[0] > 0)).any()


def test_a_window_without_labels_is_that_of_the_image() -> None:
    image = np.full((1, 1, 4, 4), np.nan, np.float32)
    statistics = np.array([[0, 1, -7, 9]], np.float32)
    for labeled in (np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool)):
        assert choose_window(image, statistics, labeled) == (-7, 9)


@pytest.mark.parametrize("labels", [LABELS, LabelMap(["a", "b", "c"], "multiclass")])
def test_a_thumbnail_shows_a_panel_for_each_set_of_masks(labels: LabelMap) -> None:
    mask = np.zeros((labels.mask_channels, 3, 60, 60), np.uint8)
    mask[:, 1, 20:40, 20:40] = 1
    picture = draw(make_noise(3, 60), mask, mask * 0, labels)
    plain, outlined, _ = np.split(np.asarray(decode(draw_thumbnail(picture, [mask * 0, mask, mask], 3))), [180, 363], 1)
    assert plain.shape == (180, 180, 3) and outlined.shape == (180, 183, 3)
    assert np.ptp(plain.astype(int), axis=2).max() < 30 < np.ptp(outlined.astype(int), axis=2).max(), "only one is gray"


def test_a_thumbnail_of_a_small_slice_shows_its_pixels() -> None:
    stripes = np.broadcast_to(np.arange(12) // 3 % 2 * 200.0, (1, 3, 12, 12)).copy()
    mask = np.zeros((3, 3, 12, 12), np.uint8)
    mask[:, 1, :1, :1] = 1
    picture = draw(stripes, mask, mask)
    gray = np.asarray(decode(draw_thumbnail(picture, [mask * 0], 3))).astype(int).mean(axis=2)[30:]
    between = (gray > 60) & (gray < 195)
    assert gray.shape == (150, 180)
    assert between.mean() < 0.1, "few pixels between two values: edges stay sharp"


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 1 << 20, 1 << 10, 4]},
        {"shape": [1, 2, 3]},
        {"slices": [9]},
        {"telling": 7},
        {"images": []},
        {"reference": "no base64!"},
    ],
)
def test_a_damaged_picture_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    mask = make_balls(3, 20)
    write_picture(tmp_path / "a.json", draw(make_noise(3, 20), mask, mask))
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(UnreadableFileError, match=r"a\.json is no picture of a case"):
        read_picture(tmp_path / "a.json")


class TestSelectCases:
    def test_few_cases_are_all_chosen(self) -> None:
        assert select_cases({"a": 0.5, "b": math.nan}, 2) == ["a", "b"]

    def test_of_many_the_worst_are_chosen_and_some_of_the_best(self) -> None:
        means = {f"{index:03d}": index / 100 for index in range(100)} | {f"n{index}": math.nan for index in range(9)}
        assert select_cases(means, 12) == [*(f"{index:03d}" for index in range(9)), "097", "098", "099"]
        assert select_cases(means, 1) == ["000"]
        assert select_cases(means, 0) == []

    def test_no_case_is_chosen_twice_where_few_have_a_score(self) -> None:
        means = {"a": 0.1, "b": 0.2} | {f"n{index}": math.nan for index in range(9)}
        assert select_cases(means, 8) == ["a", "b"]

    def test_whoever_keeps_the_chosen_of_each_case_so_far_keeps_those_of_all(self) -> None:
        means = dict(enumerate(np.random.default_rng(0).random(200).tolist()))
        kept: dict[str, float] = {}
        for index, mean in means.items():
            kept[str(index)] = mean
            kept = {name: kept[name] for name in select_cases(kept, 20)}
        assert set(kept) == set(select_cases({str(index): mean for index, mean in means.items()}, 20))
