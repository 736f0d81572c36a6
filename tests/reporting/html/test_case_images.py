"""What a browser gets of a case."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import channel_statistics
from medseg_pl.reporting.html import pictures
from medseg_pl.reporting.html.case_images import Masks, case_images, thumbnail
from medseg_pl.reporting.html.case_selection import Pictures
from medseg_pl.reporting.html.cases import list_case_entries
from medseg_pl.reporting.html.names import Names
from medseg_pl.reporting.html.page import render_page
from medseg_pl.reporting.run import read_run


def noisy(depth: int, side: int, seed: int = 0) -> NDArray[np.uint16]:
    """The hardest to compress."""
    return np.random.default_rng(seed).integers(0, 4000, (1, depth, side, side)).astype(np.uint16)


def balls(depth: int, side: int, labels: int = 3) -> NDArray[np.uint8]:
    """One ball for each label, in the middle third of the slices, ragged at its rim."""
    z, y, x = np.indices((depth, side, side))
    ragged = np.random.default_rng(1).normal(0, side / 60, (depth, side, side))
    found = [
        (3 * (z - depth / 2)) ** 2 * (side / depth) ** 2
        + (y - side / 2) ** 2
        + (x - side * (k + 1) / (labels + 1)) ** 2
        < (side / 5 + ragged) ** 2
        for k in range(labels)
    ]
    return np.stack(found).astype(np.uint8)


def images_of(image: NDArray[Any], masks: Masks, budget: int, spacing: tuple[float, float, float] | None = None) -> Any:
    depth, height, width = image.shape[1:]
    geometry = Geometry((depth, height, width), spacing)
    return case_images(image, channel_statistics(image), masks, geometry, depth // 2, budget)


def unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)


def cost(found: Any) -> int:
    return sum(map(len, found["images"])) + len(found["reference"]) + sum(map(len, filter(None, found["predictions"])))


def test_small_cases_are_there_pixel_by_pixel() -> None:
    mask = balls(6, 40)
    found = images_of(noisy(6, 40), Masks(mask, [1 - mask, None]), 10**6, spacing=(3.0, 2.0, 1.0))
    assert (found["width"], found["height"], found["aspect"], found["depth"]) == (40, 40, 0.5, 6)
    assert found["slices"] == list(range(6)) and found["telling"] == 3
    assert np.array_equal(unpacked(found["reference"], mask.shape), mask)
    assert np.array_equal(unpacked(found["predictions"][0], mask.shape), 1 - mask)
    assert found["predictions"][1] is None
    decoded = Image.open(io.BytesIO(base64.b64decode(found["images"][0])))
    assert (decoded.format, decoded.size) == ("WEBP", (40, 40))


def test_large_cases_keep_to_their_budget_and_the_telling_slice() -> None:
    mask = balls(24, 330)
    budget = pictures.PAGE_BYTES // 200
    found = images_of(noisy(24, 330), Masks(mask, [mask]), budget)
    assert 0.5 * budget < cost(found) <= 1.05 * budget
    assert found["slices"][found["telling"]] == 12
    assert 1 < len(found["slices"]) < 24 and max(found["width"], found["height"]) < 330
    shape = (3, len(found["slices"]), found["height"], found["width"])
    shown = unpacked(found["reference"], shape)
    assert shown.mean() == pytest.approx(mask[:, found["slices"]].mean(), rel=0.02)


def test_a_large_image_without_depth_keeps_more_of_its_pixels() -> None:
    image, mask = np.zeros((3, 1, 700, 800), np.uint8), np.zeros((1, 1, 700, 800), np.uint8)
    found = images_of(image, Masks(mask, [mask]), pictures.PAGE_BYTES // 50)
    assert (found["width"], found["height"]) == (640, 560)


def test_a_thumbnail_shows_a_panel_for_each_set_of_masks() -> None:
    image, mask = noisy(1, 60), balls(1, 60).astype(bool)
    text = thumbnail(image[:, 0], channel_statistics(image), [mask[:, 0], ~mask[:, 0]])
    decoded = Image.open(io.BytesIO(base64.b64decode(text)))
    assert decoded.size == (180 + 3 + 180, 180)


def test_fifty_volumes_stay_below_twenty_megabytes(two_runs: list[Path]) -> None:
    runs = [read_run(folder, None) for folder in two_runs]
    entries = list_case_entries(runs, Names(None))
    entries += [entries[0]._replace(number=place, case_id=f"further{place}") for place in range(24, 50)]
    mask = balls(24, 330)
    shown = images_of(noisy(24, 330), Masks(mask, [mask, 1 - mask]), pictures.PAGE_BYTES // 50)
    small = thumbnail(noisy(1, 330)[:, 0], channel_statistics(noisy(1, 330)), [mask[:, 12] > 0] * 3)
    album = Pictures(dict.fromkeys(range(50), shown), dict.fromkeys(range(12), small), [{}, {}], True)
    page = render_page(runs, entries, [], album, hashed=False)
    assert 12e6 < len(page.encode()) < 20e6
