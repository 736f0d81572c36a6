"""What scoring keeps of a case for a page."""

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
from medseg_pl.core.visualization import select_slice
from medseg_pl.io.case_pictures import (
    CasePicture,
    draw_case,
    draw_thumbnail,
    read_picture,
    select_cases,
    write_picture,
)

LABELS = LabelMap(["a", "b", "c"], "multilabel")
BUDGET = 300_000


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


@pytest.mark.parametrize("labels", [LABELS, LabelMap(["a", "b", "c"], "multiclass")])
def test_a_thumbnail_shows_a_panel_for_each_set_of_masks(labels: LabelMap) -> None:
    mask = np.zeros((labels.mask_channels, 3, 60, 60), np.uint8)
    mask[:, 1, 20:40, 20:40] = 1
    picture = draw(make_noise(3, 60), mask, mask * 0, labels)
    plain, outlined, _ = np.split(np.asarray(decode(draw_thumbnail(picture, [mask * 0, mask, mask], 3))), [180, 363], 1)
    assert plain.shape == (180, 180, 3) and outlined.shape == (180, 183, 3)
    assert np.ptp(plain.astype(int), axis=2).max() < 30 < np.ptp(outlined.astype(int), axis=2).max(), "only one is gray"


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
