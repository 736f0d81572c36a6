"""Writers of synthetic scans in the layouts of Kaggle, the Decathlon, and plain folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8, UInt16

from medseg_pl.core.geometry import Geometry, to_affine
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.nifti import write_nifti
from medseg_pl.io.raster import write_png
from medseg_pl.io.regions import encode_runs


class LabeledScan(NamedTuple):
    """One volume with its reference.

    Slice 0 is nearest the feet, row 0 in front of the patient.

    Args:
        case_id: The volume, such as `case101_day20`.
        group: The patient, such as `case101`.
        image: Intensities.
        masks: One mask for each label; they can overlap.
        label_map: The same as 1 to K, for layouts that have one value for each voxel.
        spacing_mm: `(z, y, x)`.
        tilt_rad: How the stack is turned in the scanner: about the left-right axis, then about the long one.
    """

    case_id: str
    group: str
    image: UInt16[np.ndarray, "d h w"]
    masks: Bool[np.ndarray, "k d h w"]
    label_map: UInt8[np.ndarray, "d h w"]
    spacing_mm: tuple[float, float, float]
    tilt_rad: tuple[float, float] = (0.0, 0.0)


class DataCard(NamedTuple):
    """What a data set says about itself."""

    name: str
    description: str
    license: str
    modality: str
    labels: tuple[str, ...]


def write_uw_madison(root: Path, scans: Iterable[LabeledScan], labels: tuple[str, ...]) -> None:
    """Write Kaggle's tree of 16-bit slices and its run lengths."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("id", "class", "segmentation"))
    for scan in scans:
        folder = root / "train" / scan.group / scan.case_id / "scans"
        for number, (pixels, masks) in enumerate(zip(scan.image, scan.masks.swapaxes(0, 1), strict=True), start=1):
            write_png(folder / _make_kaggle_name(number, scan), pixels)
            slice_id = f"{scan.case_id}_slice_{number:04d}"
            rows.writerows((slice_id, label, encode_runs(mask)) for label, mask in zip(labels, masks, strict=True))
    write_text(root / "train.csv", table.getvalue())


def write_decathlon(root: Path, scans: Iterable[LabeledScan], card: DataCard) -> None:
    """Write the Decathlon's NIfTI pairs.

    Args:
        root: The folder to fill.
        scans: The volumes; intensities must fit into 15 bits.
        card: Describes the data set.
    """
    names = []
    for number, scan in enumerate(scans, start=1):
        names.append(f"{card.name}_{number:03d}.nii.gz")
        geometry = _make_scanner_geometry(scan)
        write_nifti(root / "imagesTr" / names[-1], scan.image.astype(np.int16), geometry)
        write_nifti(root / "labelsTr" / names[-1], scan.label_map, geometry)
    write_text(root / "dataset.json", json.dumps(_describe_decathlon(names, card), indent=2) + "\n")


def write_folder(root: Path, scans: Iterable[LabeledScan]) -> None:
    """Write 8-bit pictures and label maps, three slices per volume."""
    for scan in scans:
        pictures = _to_8_bit(scan.image)
        for index in _choose_slices(scan.label_map):
            name = f"{scan.case_id}_{index + 1:04d}.png"
            write_png(root / "images" / name, pictures[index])
            write_png(root / "masks" / name, scan.label_map[index])


def _make_kaggle_name(number: int, scan: LabeledScan) -> str:
    """Name a slice by number, width, height and pixel spacings."""
    _, height, width = scan.image.shape
    _, y_mm, x_mm = scan.spacing_mm
    return f"slice_{number:04d}_{width}_{height}_{x_mm:.2f}_{y_mm:.2f}.png"


def _describe_decathlon(names: list[str], card: DataCard) -> dict[str, object]:
    """Make the content of `dataset.json`."""
    return {
        "name": card.name,
        "description": card.description,
        "licence": card.license,  # the Decathlon's own spelling
        "tensorImageSize": "3D",
        "modality": {"0": card.modality},
        "labels": {str(value): name for value, name in enumerate(("background", *card.labels))},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }


def _make_scanner_geometry(scan: LabeledScan) -> Geometry:
    """Place the volume around the scanner's center.

    Rows run to the back, columns to the patient's left (NIfTI is RAS).
    """
    depth, height, width = scan.image.shape
    z_mm, y_mm, x_mm = scan.spacing_mm
    # Columns of the affine belong to (z, y, x) indices, its rows to (x, y, z) in RAS.
    axes = np.array([[0.0, 0.0, -x_mm], [0.0, -y_mm, 0.0], [z_mm, 0.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = _make_rotation(*scan.tilt_rad) @ axes
    # The middle of the volume lies in the scanner's isocenter.
    affine[:3, 3] = -affine[:3, :3] @ ((depth - 1) / 2, (height - 1) / 2, (width - 1) / 2)
    return Geometry((depth, height, width), scan.spacing_mm, to_affine(affine))


def _make_rotation(pitch: float, yaw: float) -> Float64[np.ndarray, "3 3"]:
    """Make the rotation by `pitch`, then by `yaw`, in radians."""
    a, b, c, d = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    about_z = np.array([[c, -d, 0], [d, c, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def _to_8_bit(image: UInt16[np.ndarray, "d h w"]) -> UInt8[np.ndarray, "d h w"]:
    """Scale intensities to 8 bits, with the brightest half percent in white."""
    white = max(float(np.percentile(image, 99.5)), 1.0)
    return np.round(np.clip(image / white, 0, 1) * 255).astype(np.uint8)


def _choose_slices(labels: UInt8[np.ndarray, "d h w"]) -> list[int]:
    """Choose up to three slices with foreground, spread evenly.

    >>> _choose_slices(np.array([0, 1, 1, 1, 1, 1, 0], np.uint8).reshape(7, 1, 1))
    [2, 3, 4]
    """
    foreground = np.flatnonzero(labels.any(axis=(1, 2)))
    places = np.linspace(0, max(len(foreground) - 1, 0), 5)[1:-1].round().astype(int)
    return sorted({int(foreground[place]) for place in places[: len(foreground)]})
