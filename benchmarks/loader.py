"""Loader: crop from the memory map, then augment, against decode, augment the whole image, then crop.

512 x 512 gray PNG to a 256 x 256 patch on one core; both sides use the same albumentations transforms. Then what a
process that loads holds in memory of its own, with ten times the images: pages of the memory map are not counted, for
all processes share them and the system takes them back. Linux only (`/proc`).

    python benchmarks/loader.py [results.json]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import albumentations
import cv2
import numpy as np

from medseg_pl.core.labels import LabelMap
from medseg_pl.data.slices import PatchDataset
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.store import Store
from medseg_pl.data.transforms import StandardAugmentation
from medseg_pl.functional.fit import Fit
from medseg_pl.io.raster import write_png

IMAGES, SIZE, PATCH, ROUNDS = 64, 512, 256, 7
FEW, MANY, DRAWN = 100, 1000, 2000
"""Images of the two data sets whose memory is compared, and patches that are drawn from each."""


def make_images(root: Path, count: int = IMAGES) -> None:
    """Smooth noise, which compresses about as well as a scan, with a disc to segment."""
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 2)
        pixels = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        disc = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), tuple(rng.integers(90, 420, 2).tolist()), 60, 1, -1)
        write_png(root / "images" / f"{number}.png", pixels)
        write_png(root / "masks" / f"{number}.png", disc)


def build(root: Path, count: int = IMAGES) -> list[Path]:
    """The entries of the first images in the store."""
    source, labels = FolderSource(str(root)), LabelMap(["disc"], "binary")
    return Store(root / "store", source, labels).build(source.cases()[:count], threads=1)


def patches(entries: list[Path]) -> PatchDataset:
    """What training draws from."""
    names = [entry.name for entry in entries]
    return PatchDataset(entries, names, Fit("native", (PATCH, PATCH)), 0, 0.33, StandardAugmentation(), seed=0)


def ours(root: Path) -> Callable[[int], object]:
    """One epoch of `PatchDataset` over a built store."""
    dataset = patches(build(root))
    return lambda epoch: [dataset[epoch, index] for index in range(IMAGES)]


def anonymous_mb(entries: list[Path]) -> float:
    """Anonymous resident memory of this process after it has drawn patches from all of the entries."""
    cv2.setNumThreads(0)
    dataset = patches(entries)
    for draw in range(DRAWN):
        dataset[divmod(draw, len(entries))]
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux has it"
    return int(found[1]) / 1024


def memory() -> dict[str, float]:
    """The same draws from few images and from ten times as many, each in a process of its own."""
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), MANY)
        entries = build(Path(folder), MANY)
        held = {}
        for count in (FEW, MANY):
            with fresh.Pool(1) as pool:
                held[str(count)] = pool.apply(anonymous_mb, (entries[:count],))
            print(f"{count:5} images {held[str(count)]:8.1f} MB of anonymous memory after {DRAWN} patches")
    few, many = held.values()
    print(f"{MANY // FEW} times the images, {many / few - 1:+.1%} memory")
    return held


def usual(root: Path) -> Callable[[int], object]:
    """The usual way: decode, augment the full image, crop."""
    augmentation = StandardAugmentation()
    transforms = [*augmentation.geometric(), *augmentation.intensity(), albumentations.RandomCrop(PATCH, PATCH)]
    pipeline = albumentations.Compose(transforms)

    def epoch(_: int) -> object:
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
        contenders = {"medseg": ours(Path(folder)), "decode + full-image augmentation": usual(Path(folder))}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for round_ in range(ROUNDS):
            for name, epoch in contenders.items():
                started = time.perf_counter()
                epoch(round_)
                rates[name].append(IMAGES / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:34} {rate:8.0f} images/s")
    print(f"ratio {medians['medseg'] / medians['decode + full-image augmentation']:.1f} (median of {ROUNDS} rounds)")
    results = {"images_per_s": medians, "anonymous_mb": memory()}
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
