"""Planted copies among pictures that resemble each other, and nothing else, are found."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg_pl.core.labels import LabelMap
from medseg_pl.data import duplicates as duplicates_module
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.duplicates import Duplicate, find_duplicates, find_duplicates_across_sides, find_near_copies
from medseg_pl.data.perceptual_hash import FEWEST_NEIGHBORS, SAME, ImageSignature, coarse_similarity
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.splits import Split
from medseg_pl.data.synthetic import simulate_days
from medseg_pl.io.raster import read_image, write_png

Picture = NDArray[np.uint8]
EACH, ORIGINALS = 10, 64


def texture(seed: int) -> Picture:
    """Noise with structures of many sizes."""
    rng = np.random.default_rng((seed, 5))
    height, width = 80 + seed % 40, 90 + seed % 30
    layers = sum(gaussian_filter(rng.normal(size=(height, width)), size) * size for size in (1, 3, 8))
    low, high = np.percentile(layers, [1, 99])
    return (255 * np.clip((layers - low) / (high - low), 0, 1)).astype(np.uint8)


def simulate_abdomen(seed: int) -> Picture:
    """A middle slice of a synthetic patient: all of them resemble each other."""
    image, _ = next(iter(simulate_days((seed, 1), [(seed, 2)], (9, 96, 112))))
    return (255 * np.clip(image[4] / np.percentile(image[4], 99.5), 0, 1)).astype(np.uint8)


def turned(picture: Picture, seed: int) -> Picture:
    quarter = np.rot90(picture, seed % 4)
    return np.ascontiguousarray(quarter[:, ::-1] if seed % 4 == 0 or seed % 3 else quarter)


def resized(picture: Picture, seed: int) -> Picture:
    factor = np.random.default_rng(seed).uniform(0.5, 2.0)
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def recompressed(picture: Picture, seed: int) -> Picture:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=int(np.random.default_rng(seed).integers(30, 91)))
    return np.asarray(Image.open(buffer))


CHANGES = {"equal": lambda picture, seed: picture, "turned": turned, "resized": resized, "recompressed": recompressed}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Duplicate]:
    """Of 32 textures and 32 abdomens, 40 have a copy, under names that come later."""
    root = tmp_path_factory.mktemp("copies")
    originals = [make(seed) for make in (texture, simulate_abdomen) for seed in range(ORIGINALS // 2)]
    for number, picture in enumerate(originals):
        write_png(root / "images" / f"a{number:03d}.png", picture)
    copied = np.random.default_rng(0).choice(len(originals), 4 * EACH, replace=False).tolist()
    for place, number in enumerate(copied):
        change = list(CHANGES.values())[place // EACH]
        write_png(root / "images" / f"b{number:03d}.png", change(originals[number], number))
    source = FolderSource(str(root), masks=None)
    cases = source.cases()
    index = CaseCache(root / "store", source, LabelMap(["any"], "binary")).build(cases, threads=2)
    return find_duplicates(cases, index)


@pytest.mark.trainings
def test_nearly_all_copies_are_found(found: list[Duplicate]) -> None:
    right = [pair for pair in found if pair.case_b == f"b{pair.case_a[1:]}"]
    assert len(right) >= 0.95 * 4 * EACH


@pytest.mark.trainings
def test_hardly_anything_else_is_taken_for_a_copy(found: list[Duplicate]) -> None:
    wrong = [pair for pair in found if pair.case_b != f"b{pair.case_a[1:]}"]
    assert len(wrong) <= 0.01 * (ORIGINALS + 4 * EACH), [str(pair) for pair in wrong]


@pytest.mark.trainings
def test_equal_pixels_are_called_exact(found: list[Duplicate]) -> None:
    kinds = [pair.kind for pair in found]
    assert kinds.count("exact") >= EACH
    assert kinds.count("near") >= 2 * EACH * 0.95


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The benchmark, which makes the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path("benchmarks").resolve())
        yield importlib.import_module("duplicates")


class TestLookAlikes:
    """Different people whose pictures share the camera and the anatomy."""

    @pytest.mark.trainings
    @pytest.mark.parametrize("people", [10, pytest.param(40, marks=pytest.mark.slow)])
    def test_copies_stand_out_and_people_do_not(self, script: ModuleType, people: int) -> None:
        results = dict(script.measure([script.retina(person, 0.03) for person in range(people)]))
        assert results["highest agreement of two people"] > SAME  # by that alone they would be copies
        assert (results["false pairs"], results["false pairs among copies"]) == (0, 0)
        assert results["promised copies found"] >= 0.95

    @pytest.mark.realdata
    def test_retinas_of_children(self, script: ModuleType, real_data: Path) -> None:
        files = sorted((real_data / "chase_db1" / "images").glob("*.jpg"))
        results = dict(script.measure([read_image(path) for path in files]))
        assert (len(files), results["false pairs"], results["false pairs among copies"]) == (28, 0, 0)
        assert results["promised copies found"] >= 0.95

    def test_what_few_images_share_says_nothing(self, script: ModuleType) -> None:
        pictures = [script.retina(person, 0.03) for person in range(FEWEST_NEIGHBORS)]
        assert script.found_pairs([script.reduce_picture(picture) for picture in pictures]) == set()
        copy = script.recompressed(pictures[3], np.random.default_rng(0))
        copies = [script.reduce_picture(picture) for picture in (*pictures[:5], copy)]
        assert script.found_pairs(copies) == {(3, 5)}

    def test_only_what_is_as_good_as_equal_is_certain(self, script: ModuleType) -> None:
        pictures = [script.retina(person, 0.03) for person in range(12)]
        seed = next(seed for seed in range(99) if 40 <= np.random.default_rng(seed).integers(30, 91) <= 60)
        rng = np.random.default_rng(seed)  # which compresses so that vessels blur
        changed = [script.recompressed(pictures[7], rng), script.turned(pictures[2], rng)]
        copies = [script.reduce_picture(picture) for picture in (*pictures, *changed)]
        kinds = {(pair.earlier, pair.later): pair.kind for pair in find_near_copies(copies, np.arange(14))}
        assert kinds == {(7, 12): "similar", (2, 13): "near"}


class TestSides:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> FolderSource:
        for name, seed in (("p1_a", 1), ("p1_b", 1), ("p2", 2), ("p3", 1)):
            write_png(tmp_path / "images" / f"{name}.png", texture(seed))
        return FolderSource(str(tmp_path), masks=None, group=r"(p\d)")

    def test_copies_of_one_patient_are_no_leak(self, folder: FolderSource, tmp_path: Path) -> None:
        cases = folder.cases()
        index = CaseCache(tmp_path / "store", folder, LabelMap(["any"], "binary")).build(cases, threads=1)
        assert [(pair.case_a, pair.case_b) for pair in find_duplicates(cases, index)] == [("p1_a", "p3")]

    def test_only_copies_on_another_side_count(self, folder: FolderSource, tmp_path: Path) -> None:
        cases = {case.case_id: case for case in folder.cases()}
        cache = CaseCache(tmp_path / "store", folder, LabelMap(["any"], "binary"))
        index = cache.build(list(cases.values()), threads=1)
        apart = Split(("p1_a", "p1_b"), ("p2",), ("p3",), "by hand")
        (pair,) = find_duplicates_across_sides(apart, cases, index, tmp_path / "copies")
        assert (pair.case_a, pair.case_b, pair.kind, str(pair)) == (
            "p1_a",
            "p3",
            "exact",
            "p3 is p1_a (the same pixels)",
        )
        together = Split(("p1_a", "p1_b", "p3"), ("p2",), (), "by hand")
        assert find_duplicates_across_sides(together, cases, index, tmp_path / "copies") == []

    def test_the_same_sides_are_searched_once(
        self, folder: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases = {case.case_id: case for case in folder.cases()}
        cache = CaseCache(tmp_path / "store", folder, LabelMap(["any"], "binary"))
        index = cache.build(list(cases.values()), threads=1)
        searched = []

        def search(*arguments: Any) -> list[Duplicate]:
            searched.append(arguments)
            return find_duplicates(*arguments)

        monkeypatch.setattr(duplicates_module, "find_duplicates", search)
        known = tmp_path / "copies"
        apart = Split(("p1_a", "p1_b"), ("p2",), ("p3",), "by hand")
        first = find_duplicates_across_sides(apart, cases, index, known)
        assert find_duplicates_across_sides(apart, cases, index, known) == first
        assert (len(first), len(searched)) == (1, 1)
        others = Split(("p1_a",), ("p1_b", "p2"), ("p3",), "by hand")
        assert len(find_duplicates_across_sides(others, cases, index, known)) == 2
        assert len(searched) == 2
        for file in known.iterdir():
            file.write_text("[{")  # cut off
        assert find_duplicates_across_sides(apart, cases, index, known) == first
        assert len(searched) == 3


def test_cases_of_one_side_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def similarity(rows: Any, columns: Any) -> Any:
        compared.append((len(rows), len(columns)))
        return coarse_similarity(rows, columns)

    monkeypatch.setattr(duplicates_module, "coarse_similarity", similarity)
    monkeypatch.setattr(duplicates_module, "_BLOCK", 2)
    signatures = np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float16)
    copies = [ImageSignature("", signatures[number], 32) for number in (0, 1, 2, 2, 0, 1)]
    pairs = [(p.earlier, p.later) for p in duplicates_module.find_near_copies(copies, np.array([0, 0, 0, 0, 1, 1]))]
    assert pairs == [(0, 4), (1, 5)]
    assert compared == [(2, 6)]
