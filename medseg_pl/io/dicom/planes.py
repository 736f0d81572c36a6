"""Where each image of a file lies, one image to a file or many (enhanced CT, MR and PET, segmentations).

DICOM counts millimeters towards the patient's left, back and head (LPS). Everything here does; only the `Geometry` of
a series counts like the rest of medseg, towards right, front and head (RAS).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pydicom.dataset import Dataset

from medseg_pl.core.errors import UnreadableFileError, count_noun
from medseg_pl.io.dicom.headers import explain_damage, get_items, get_kind, get_text, require_element
from medseg_pl.io.dicom.pixels import read_layout

# Where a file of many images keeps an element that a file of one image has at its top
_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}

_RESCALE = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
_LARGEST_RESCALE = 1e9
FARTHEST_MM = 1e6
"""No coordinate is believed that lies farther away."""


@dataclass(frozen=True)
class Plane:
    """One image in space.

    Args:
        path: The file.
        frame: The number of the image in the file, from 0.
        series: The series.
        position_mm: Center of the pixel in row 0 and column 0 (LPS).
        orientation: Unit vector along a row, then along a column (LPS).
        spacing_mm: From row to row, from column to column.
        size: Rows and columns.
        thickness_mm: Of the slice, not the distance to the next one; `None` where the header does not say.
        slope: Factor of a stored value.
        intercept: Added to the product.
    """

    path: Path
    frame: int
    series: str
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    size: tuple[int, int]
    thickness_mm: float | None
    slope: float
    intercept: float

    @property
    def axes(self) -> Float64[np.ndarray, "3 3"]:
        """Unit vectors: the slice normal, down a column, along a row."""
        along_row, down_column = np.array(self.orientation, dtype=np.float64).reshape(2, 3)
        # DICOM PS3.3 C.7.6.2.1.1: the first three cosines run along a row, towards higher columns.
        normal = np.cross(along_row, down_column)
        return np.stack([normal / np.linalg.norm(normal), down_column, along_row])

    def locate(self, points_mm: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Compute each point's distance from the plane in mm, row and column."""
        offsets: Float64[np.ndarray, "n 3"] = (points_mm - np.asarray(self.position_mm)) @ self.axes.T
        offsets /= (1.0, *self.spacing_mm)
        return offsets

    def point(self, row: float, column: float) -> Float64[np.ndarray, "3"]:
        """Compute the position of a pixel in mm (LPS).

        Args:
            row: From 0 at the center of the first row, may be fractional.
            column: Likewise, along a row.
        """
        _, down_column, along_row = self.axes
        between_rows, between_columns = self.spacing_mm
        place: Float64[np.ndarray, "3"] = (
            np.asarray(self.position_mm) + row * between_rows * down_column + column * between_columns * along_row
        )
        return place


def read_planes(dataset: Dataset, path: Path) -> list[Plane]:
    """Read the positions of a file's images.

    Raises:
        UnreadableFileError: The header lacks a position, or gives an impossible one.
    """
    layout = read_layout(dataset, path)
    with explain_damage(path):
        found = collect_frame_elements(dataset, path)
        if len(found) != layout.frames:
            raise UnreadableFileError(
                f"{path} holds {count_noun(layout.frames, 'image')} and the places of {len(found)}. Export it again as "
                "enhanced multi-frame DICOM, or as one file for each slice."
            )
        if get_kind(dataset) == "projection":
            return [_place_projection(dataset, path, frame, layout.size) for frame in range(layout.frames)]
        series = get_text(dataset, "SeriesInstanceUID")
        return [_build_plane(elements, path, frame, series, layout.size) for frame, elements in enumerate(found)]


def collect_frame_elements(dataset: Dataset, path: Path) -> list[Dataset]:
    """Collect the elements that place each image, wherever the file keeps them.

    Returns:
        One data set for each image.

    Raises:
        UnreadableFileError: The header is damaged.
    """
    with explain_damage(path):
        frames = get_items(dataset, "PerFrameFunctionalGroupsSequence")
        if not frames:
            return [dataset]
        shared = [*get_items(dataset, "SharedFunctionalGroupsSequence")[:1], dataset]
        return [_collect_elements([frame, *shared]) for frame in frames]


def _collect_elements(groups: Sequence[Dataset]) -> Dataset:
    elements = Dataset()
    for keyword, macro in _MACROS.items():
        holders = [holder for group in groups for holder in (*get_items(group, macro)[:1], group)]
        values = [holder.get(keyword) for holder in holders]
        if (value := next((value for value in values if value is not None), None)) is not None:
            setattr(elements, keyword, value)
    return elements


def _place_projection(dataset: Dataset, path: Path, frame: int, size: tuple[int, int]) -> Plane:
    """Place an image without position, such as a radiograph, at the origin.

    Without a distance between its pixels it has no thickness, and so no spacing.
    """
    elements = Dataset()
    elements.update({element.tag: element for element in dataset if element.keyword in _RESCALE})
    apart = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    elements.PixelSpacing = apart or [1, 1]
    elements.ImagePositionPatient, elements.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    if apart:
        elements.SliceThickness = 1
    return _build_plane(elements, path, frame, get_text(dataset, "SOPInstanceUID"), size)


def _build_plane(elements: Dataset, path: Path, frame: int, series: str, size: tuple[int, int]) -> Plane:
    orientation = _read_numbers(elements, "ImageOrientationPatient", 6, path)
    spacing_mm = _read_numbers(elements, "PixelSpacing", 2, path)
    vectors = np.reshape(orientation, (2, 3))
    if not np.allclose(vectors @ vectors.T, np.eye(2), atol=1e-3) or not min(spacing_mm) > 0:
        raise UnreadableFileError(
            f"{path} has ImageOrientationPatient {orientation} and PixelSpacing {spacing_mm}; expected two unit "
            "vectors at a right angle and positive distances. Correct the header, or export it again."
        )
    slope, intercept = (_read_number(elements, keyword, default) for keyword, default in _RESCALE.items())
    if not (0 < abs(slope) < _LARGEST_RESCALE and abs(intercept) < _LARGEST_RESCALE):
        raise UnreadableFileError(
            f"{path} has the rescale slope {slope} and intercept {intercept}; expected numbers of less than "
            f"{_LARGEST_RESCALE:g}, the slope not 0. Correct the header, or export it again."
        )
    thickness_mm = _read_number(elements, "SliceThickness", 0.0)
    return Plane(
        path=path,
        frame=frame,
        series=series,
        position_mm=_read_numbers(elements, "ImagePositionPatient", 3, path),
        orientation=orientation,
        spacing_mm=spacing_mm,
        size=size,
        thickness_mm=thickness_mm if thickness_mm > 0 else None,
        slope=slope,
        intercept=intercept,
    )


def _read_number(elements: Dataset, keyword: str, default: float) -> float:
    value: Any = elements.get(keyword)
    return default if value is None or value == "" else float(value)


def _read_numbers(elements: Dataset, keyword: str, count: int, path: Path) -> tuple[float, ...]:
    value = require_element(elements, keyword, path)
    numbers = tuple(float(number) for number in (value if isinstance(value, Iterable) else [value]))
    if len(numbers) != count or not all(abs(number) < FARTHEST_MM for number in numbers):
        raise UnreadableFileError(
            f"{path} has {count_noun(len(numbers), 'number')} {numbers} in {keyword}; expected {count}, each less than "
            f"{FARTHEST_MM:g}. Correct the header, or export it again."
        )
    return numbers
