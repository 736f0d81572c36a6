"""Sizes of objects that were drawn, and the order of images from top to bottom."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.planning.objects import find_thickest, find_thinnest, measure_objects, measure_vertical_order
from tests.planning.test_fingerprint import LABELS, InMemory

SIDE = 100


def store(folder: Path, *pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]], labels: LabelMap = LABELS) -> CacheIndex:
    """Cache single images with their masks."""
    geometry = Geometry((1, SIDE, SIDE))
    source = InMemory(folder, [Volume(image[None, None], mask[None, None], geometry) for image, mask in pairs])
    return CaseCache(folder / "store", source, labels).build(source.cases(), threads=1)


def blank() -> NDArray[np.uint8]:
    return np.zeros((SIDE, SIDE), np.uint8)


def test_a_disc_and_two_tubes(tmp_path: Path) -> None:
    mask = blank()
    cv2.circle(mask, (70, 50), 15, 1, -1)
    mask[:, 10:16] = mask[:, 30:36] = 2
    sizes = measure_objects(store(tmp_path, (blank(), mask)), LABELS)
    disc, tubes = sizes["liver"], sizes["tumour"]
    assert (disc.count, tubes.count) == (1, 2)
    assert disc.reach_share == pytest.approx(0.31, abs=0.02)
    assert tubes.reach_share == pytest.approx(0.06, abs=0.015)
    assert tubes.thickness_pixels == pytest.approx(6, abs=0.5)
    assert find_thickest(sizes) == ("liver", disc)
    assert find_thinnest(sizes) == ("tumour", tubes)


def test_a_label_that_is_nowhere_is_left_out(tmp_path: Path) -> None:
    assert measure_objects(store(tmp_path, (blank(), blank())), LABELS) == {}


def test_images_with_a_bright_top_have_a_side_up(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 100, (SIDE, SIDE)).astype(np.uint8) for _ in range(8)]
    ramp = np.linspace(150, 0, SIDE).astype(np.uint8)[:, None]

    def measure(name: str, images: list[NDArray[np.uint8]]) -> float:
        (tmp_path / name).mkdir()
        return measure_vertical_order(store(tmp_path / name, *((image, blank()) for image in images)))

    upright = [image + ramp for image in noise]
    assert measure("upright", upright) > 0.9
    turned = [image if number % 2 else image[::-1].copy() for number, image in enumerate(upright)]
    assert measure("turned", turned) < 0.2
    assert measure("noise", noise) < 0.2
    assert measure("three", upright[:3]) == 0.0
