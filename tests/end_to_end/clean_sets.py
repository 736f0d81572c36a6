"""Small data sets without a fault, in every layout, to plant faults into.

Each case has an image of its own: smooth tissue of random waves, a bright organ and in it a dark lesion, with noise.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from medseg_pl.data.synthetic.layouts import LabeledScan, write_uw_madison
from tests.dicom_files import save_segmentation, save_series
from tests.sample_files import save_raster, save_volume

CASES = 10
NAMES = tuple(f"p{number}_a" for number in range(CASES))
LABELS = ("organ", "lesion")
NAMED = ("--labels", ",".join(LABELS))
SIZE = (48, 56)
DEPTH = 8


def scan(seed: int, shape: tuple[int, ...] = SIZE) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Intensities from 0 to 1, and a mask with 1 for the organ and 2 for the lesion; `(H, W)` or `(D, H, W)`."""
    rng = np.random.default_rng(seed)
    tissue = ndimage.gaussian_filter(rng.standard_normal(shape), 5, mode="wrap")
    tissue = 0.35 + 0.05 * tissue / tissue.std()
    middle = np.array(shape) / 2 + rng.uniform(-3, 3, len(shape)) * (np.array(shape) > DEPTH)
    organ = _ball(shape, middle, 0.30 + rng.uniform(-0.05, 0.05, len(shape)))
    lesion = _ball(shape, middle + rng.uniform(-2, 2, len(shape)) * (np.array(shape) > DEPTH), [0.13] * len(shape))
    mask = np.where(lesion, 2, organ).astype(np.uint8)
    image = tissue + 0.3 * organ - 0.4 * lesion
    image = ndimage.gaussian_filter(image, [0.0] * (len(shape) - 2) + [0.6, 0.6]) + rng.normal(0, 0.01, shape)
    return image.clip(0, 0.95), mask


def picture(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A gray image of 8 bits and its mask."""
    image, mask = scan(seed, size)
    return np.round(image * 255).astype(np.uint8), mask


def volume(seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """`(x, y, z)` voxels of 12 bits and their mask."""
    image, mask = scan(seed, (DEPTH, *SIZE))
    return np.round(image * 3000).astype(np.int16).T, mask.T


def write_folder(root: Path) -> None:
    """`images` and `masks` of PNG."""
    for seed, name in enumerate(NAMES):
        image, mask = picture(seed)
        save_raster(root / "images" / f"{name}.png", image)
        save_raster(root / "masks" / f"{name}.png", mask)


def write_volumes(root: Path) -> None:
    """A `dataset.json` with NIfTI pairs."""
    entries = []
    for seed, name in enumerate(NAMES):
        image, mask = volume(seed)
        save_volume(root / "imagesTr" / f"{name}.nii.gz", image, (0.8, 0.8, 3.0))
        save_volume(root / "labelsTr" / f"{name}.nii.gz", mask, (0.8, 0.8, 3.0))
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    labels = {"0": "background", **{str(value): name for value, name in enumerate(LABELS, start=1)}}
    description = {"labels": labels, "modality": {"0": "MRI"}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(description))


def write_manifest(root: Path) -> None:
    """The folder with a table that declares a split."""
    write_folder(root)
    sides = ("train",) * 6 + ("val",) * 2 + ("test",) * 2
    rows = [
        {"case_id": name, "group": name[:2], "image": f"images/{name}.png", "mask": f"masks/{name}.png", "split": side}
        for name, side in zip(NAMES, sides, strict=True)
    ]
    write_rows(root, rows)


def read_rows(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(root: Path, rows: list[dict[str, str]]) -> None:
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_scans(root: Path) -> None:
    """Kaggle's tree, the organ without its lesion being one label and the lesion the other."""
    scans = []
    for seed in range(CASES):
        image, mask = scan(seed, (DEPTH, *SIZE))
        masks = np.stack([mask == 1, mask == 2])
        pixels = np.round(image * 3000).astype(np.uint16)
        scans.append(LabeledScan(f"case{seed}_day1", f"case{seed}", pixels, masks, mask, (3.0, 1.5, 1.5)))
    write_uw_madison(root, scans, LABELS)


def write_dicom(root: Path) -> None:
    """CT series, each with a segmentation."""
    for seed, name in enumerate(NAMES[:3]):
        image, mask = scan(seed, (DEPTH, *SIZE))
        stored = np.round(image * 1500).astype(np.int16)
        stored[:, :2] = 0  # air, at -1000
        files = save_series(root / name / "ct", stored, series=name)
        masks = np.stack([mask == 1, mask == 2], axis=-1)
        save_segmentation(root / name / "seg" / "seg.dcm", files, masks, LABELS)


def write_labels_apart(root: Path) -> None:
    """The folder with one folder of masks for each label, and the configuration of a training that says so."""
    for seed, name in enumerate(NAMES):
        image, mask = picture(seed)
        save_raster(root / "images" / f"{name}.png", image)
        for value, label in enumerate(LABELS, start=1):
            save_raster(root / label / f"{name}.png", (mask == value).astype(np.uint8) * 255)
    masks = {label: label for label in LABELS}
    settings = {
        "model": {"labels": {"names": list(LABELS), "task": "multiclass"}, "input_size": [32, 32]},
        "data": {"source": {"class_path": "FolderSource", "init_args": {"root": str(root), "masks": masks}}},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


CLEAN: dict[Callable[[Path], None], tuple[str, ...]] = {
    write_folder: NAMED,
    write_volumes: (),
    write_manifest: NAMED,
    write_scans: (),
    write_dicom: NAMED,
    write_labels_apart: ("--config", "{root}/config.yaml"),
}
"""How each is written, and the options that its check needs."""


def _ball(shape: tuple[int, ...], middle: NDArray[np.float64], radii: object) -> NDArray[np.bool_]:
    grid = np.indices(shape).reshape(len(shape), -1).T
    inside: NDArray[np.bool_] = (((grid - middle) / (np.array(radii) * shape)) ** 2).sum(axis=1) < 1
    return inside.reshape(shape)
