"""Loader: crop from the memory map, then augment, against decode, augment the whole image, then crop.

512 x 512 gray PNG to a 256 x 256 patch on one core; both sides use the same albumentations transforms.

    python benchmarks/loader.py
"""

from __future__ import annotations

import json
import os
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


def make_images(root: Path) -> None:
    """Smooth noise, which compresses about as well as a scan, with a disc to segment."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        noise = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 2)
        pixels = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        disc = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), tuple(rng.integers(90, 420, 2).tolist()), 60, 1, -1)
        write_png(root / "images" / f"{number}.png", pixels)
        write_png(root / "masks" / f"{number}.png", disc)


def ours(root: Path) -> Callable[[int], object]:
    """One epoch of `PatchDataset` over a built store."""
    source, labels = FolderSource(str(root)), LabelMap(["disc"], "binary")
    entries = Store(root / "store", source, labels).build(source.cases(), threads=1)
    dataset = PatchDataset(
        entries,
        [entry.name for entry in entries],
        Fit("native", (PATCH, PATCH)),
        0,
        0.33,
        StandardAugmentation(),
        seed=0,
    )
    return lambda epoch: [dataset[epoch, index] for index in range(IMAGES)]


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
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(medians))


if __name__ == "__main__":
    main()
