"""RTSTRUCT: contours in millimeters, drawn on the slices of a series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medseg_pl.core.errors import GeometryError, UnreadableFileError
from medseg_pl.io.dicom.contours import inside_polygons
from medseg_pl.io.dicom.headers import damage, items, read_dataset, required, text
from medseg_pl.io.dicom.planes import FARTHEST_MM
from medseg_pl.io.dicom.series import Series
from medseg_pl.io.dicom.structures import Structure

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def read_regions(path: Path) -> list[Structure]:
    """The regions of interest that have a closed contour; points and open lines enclose nothing.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    dataset = read_dataset(path)
    with damage(path):
        drawn = {number for number, item in _regions(dataset, path) if _closed(item)}
        return [structure for structure in _named(dataset, path) if structure.number in drawn]


def read_contours(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Masks of regions on the slices of the series they were drawn on, as the files hold them.

    A pixel is inside where its center is inside an odd number of the region's contours on its slice, so that a contour
    inside another one is a hole. See `inside_polygons` for centers on a contour.

    Args:
        path: The file.
        wanted: For each mask the numbers of the regions that it unites.
        series: What was drawn on.

    Raises:
        GeometryError: A contour lies on no slice of the series.
        UnreadableFileError: The file is damaged.
    """
    dataset = read_dataset(path)
    masks = [np.zeros(series.shape, dtype=bool) for _ in wanted]
    with damage(path):
        regions = [(number, _closed(item)) for number, item in _regions(dataset, path)]
        names = {structure.number: structure.name for structure in _named(dataset, path)}
    for number, contours in regions:
        if not any(number in numbers for numbers in wanted):
            continue
        slices = _by_slice(contours, f"{path}, region {names.get(number, number)!r}", series, path)
        for index, polygons in slices.items():
            inside = inside_polygons(polygons, series.planes[index].size)
            for mask, numbers in zip(masks, wanted, strict=True):
                if number in numbers:
                    mask[index] |= inside
    return masks


def _named(dataset: Dataset, path: Path) -> list[Structure]:
    found = items(dataset, "StructureSetROISequence")
    return [Structure(int(required(item, "ROINumber", path)), text(item, "ROIName")) for item in found]


def _regions(dataset: Dataset, path: Path) -> list[tuple[int, Dataset]]:
    found = items(dataset, "ROIContourSequence")
    return [(int(required(item, "ReferencedROINumber", path)), item) for item in found]


def _closed(region: Dataset) -> list[Dataset]:
    return [item for item in items(region, "ContourSequence") if text(item, "ContourGeometricType") in _CLOSED]


def _by_slice(
    contours: Sequence[Dataset], what: str, series: Series, path: Path
) -> dict[int, list[Float64[np.ndarray, "_ 2"]]]:
    """The polygons on each slice, in rows and columns."""
    slices: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for place, contour in enumerate(contours, start=1):
        points_mm = _points(contour, f"{what}, contour {place},", path)
        index = series.nearest(points_mm[0])
        found = series.planes[index].locate(points_mm)
        if (away_mm := float(np.abs(found[:, 0]).max())) > series.slack_mm:
            raise GeometryError(
                f"{what}, contour {place}, lies up to {away_mm:.2f} mm from the nearest slice, "
                f"{series.planes[index].path}; expected at most {series.slack_mm:.2f} mm. Restore missing slices, or "
                "move the contours away if they are of another series."
            )
        slices[index].append(found[:, 1:])
    return slices


def _points(contour: Dataset, what: str, path: Path) -> Float64[np.ndarray, "n 3"]:
    with damage(path):
        values = np.array([float(value) for value in contour.get("ContourData") or ()], dtype=np.float64)
    if len(values) == 0 or len(values) % 3 or not (np.abs(values) < FARTHEST_MM).all():
        raise UnreadableFileError(
            f"{what} has {len(values)} coordinates; expected three for each point, each less than {FARTHEST_MM:g} mm. "
            "Export the structures again."
        )
    return values.reshape(-1, 3)
