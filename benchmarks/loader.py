"""Loader: crop from the memory map, then augment, against decode, augment the whole image, then crop.

512 x 512 gray PNG to a 256 x 256 patch on one core; both sides use the same albumentations transforms. Then what a
process that loads holds in memory of its own, with ten times the images: pages of the memory map are not counted, for
all processes share them and the system takes them back. Linux only (`/proc`).

    python benchmarks/loader.py [results.json]
"""

from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import albumentations
import cv2
import numpy as np
from _report import Claim, finish, medians

from medseg_pl.core.labels import LabelMap
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.datasets import PatchDataset
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.transforms.augmentation import StandardAugmentation
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.raster import write_png

IMAGES, SIZE, PATCH, ROUNDS = 64, 512, 256, 7
FEW, MANY, DRAWN = 100, 1000, 2000
"""Images of the two data sets whose memory is compared, and patches that are drawn from each."""


def make_images(root: Path, images: int = IMAGES) -> None:
    """Smooth noise, which compresses about as well as a scan, with a disc to segment."""
    rng = np.random.default_rng(0)
    for number in range(images):
        noise = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 2)
        pixels = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        disc = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), tuple(rng.integers(90, 420, 2).tolist()), 60, 1, -1)
        write_png(root / "images" / f"{number}.png", pixels)
        write_png(root / "masks" / f"{number}.png", disc)


def build(root: Path, images: int = IMAGES) -> CacheIndex:
    """The first images in the cache."""
    source, labels = FolderSource(str(root)), LabelMap(["disc"], "binary")
    return CaseCache(root / "store", source, labels).build(source.cases()[:images], threads=1)


def patches(index: CacheIndex) -> PatchDataset:
    """What training draws from."""
    return PatchDataset(index, Resize("none", (PATCH, PATCH)), 0, 0.33, StandardAugmentation(), seed=0)


def ours(root: Path) -> Callable[[], object]:
    """One epoch of `PatchDataset` over cached cases."""
    dataset, epochs = patches(build(root)), count()

    def epoch() -> object:
        number = next(epochs)
        return [dataset[number, index] for index in range(IMAGES)]

    return epoch


def anonymous_mb(index: CacheIndex) -> float:
    """Anonymous resident memory of this process after it has drawn patches from all cases."""
    cv2.setNumThreads(0)
    dataset = patches(index)
    for draw in range(DRAWN):
        dataset[divmod(draw, len(index))]
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux has it"
    return int(found[1]) / 1024


def memory() -> dict[str, float]:
    """The same draws from few images and from ten times as many, each in a process of its own."""
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), MANY)
        index = build(Path(folder), MANY)
        held = {}
        for images in (FEW, MANY):
            with fresh.Pool(1) as pool:
                held[str(images)] = pool.apply(anonymous_mb, (index.select(index.row_ids[:images].tolist()),))
            print(f"{images:5} images {held[str(images)]:8.1f} MB of anonymous memory after {DRAWN} patches")
    return held


def usual(root: Path) -> Callable[[], object]:
    """The usual way: decode, augment the full image, crop."""
    augmentation = StandardAugmentation()
    transforms = [
        *augmentation.make_geometric(),
        *augmentation.make_intensity(),
        albumentations.RandomCrop(PATCH, PATCH),
    ]
    pipeline = albumentations.Compose(transforms)

    def epoch() -> object:
        return [
            pipeline(
                image=cv2.imread(str(root / "images" / f"{number}.png"), cv2.IMREAD_UNCHANGED),
                mask=cv2.imread(str(root / "masks" / f"{number}.png"), cv2.IMREAD_UNCHANGED),
            )
            for number in range(IMAGES)
        ]

    return epoch


def main() -> None:
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder))
        usual_way = "decode + full-image augmentation"
        spent = medians({"medseg": ours(Path(folder)), usual_way: usual(Path(folder))}, ROUNDS)
    rates = {name: IMAGES / seconds for name, seconds in spent.items()}
    for name, rate in rates.items():
        print(f"{name:34} {rate:8.0f} images/s")
    ratio, held = rates["medseg"] / rates[usual_way], memory()
    more = held[str(MANY)] / held[str(FEW)] - 1
    claims = [
        Claim("loading a patch", usual_way, "8 times as fast", f"{ratio:.1f} times as fast", ratio >= 8),
        Claim("patches on one core", "-", "800 a second", f"{rates['medseg']:.0f} a second", rates["medseg"] >= 800),
        Claim("memory", f"{MANY // FEW} times the images", "at most 5 % more", f"{more:+.1%}", more <= 0.05),
    ]
    finish(claims, {"images_per_s": rates, "anonymous_mb": held}, ["albumentations", "opencv-python-headless"], cores=1)


if __name__ == "__main__":
    main()
