"""DICOM SEG: binary, fractional and label-map segmentations, placed on the slices of a series."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from pydicom.dataset import Dataset

from medseg_pl.core.errors import GeometryError, UnreadableFileError
from medseg_pl.io.dicom.headers import damage, items, read_dataset, required, text
from medseg_pl.io.dicom.pixels import read_frames, read_layout
from medseg_pl.io.dicom.planes import Plane, read_planes
from medseg_pl.io.dicom.series import Series
from medseg_pl.io.dicom.structures import Structure

SAME_PIXEL = 0.1
"""How far, in pixels, a frame's corners may lie from centers of the series' pixels: it moves no border."""

_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")


def read_segments(path: Path) -> list[Structure]:
    """The segments of a file; of a label map without its background.

    Raises:
        UnreadableFileError: The file is damaged or describes no segment.
    """
    return _segments(read_dataset(path), path)


def read_segmentation(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Masks of segments on the slices of the series they were drawn on, as the files hold them.

    A frame goes to the slice in whose plane it lies, whatever its order in the file; it may be a part of the slice.
    Slices without a frame are empty. Of a fractional segmentation, what is more than half covered, or more than half
    probable, is inside.

    Args:
        path: The file.
        wanted: For each mask the numbers of the segments that it unites.
        series: What was segmented.

    Raises:
        GeometryError: Something is drawn where the series has no pixel, or on another grid.
        UnreadableFileError: The file cannot be decoded.
    """
    dataset = read_dataset(path, pixels=True)
    kind = _type(dataset, path)
    masks = [np.zeros(series.shape, dtype=bool) for _ in wanted]
    planes = _planes(dataset, path, series)
    owners = [None] * len(planes) if kind == "LABELMAP" else _owners(dataset, path)
    needed = {number for numbers in wanted for number in numbers}
    chosen = [frame for frame, owner in enumerate(owners) if owner is None or owner in needed]
    threshold = _threshold(dataset, kind, path)
    for frame, values in read_frames(dataset, path, chosen):
        owner = owners[frame]
        for mask, numbers in zip(masks, wanted, strict=True):
            if owner is None:
                _place(np.isin(values, list(numbers)), planes[frame], series, mask)
            elif owner in numbers:
                _place(values > threshold, planes[frame], series, mask)
    return masks


def _planes(dataset: Dataset, path: Path, series: Series) -> list[Plane]:
    """Where the frames lie: on the only image, where neither it nor they lie anywhere in the patient."""
    if "FrameOfReferenceUID" in dataset or len(series.planes) > 1:
        return read_planes(dataset, path)
    return [series.planes[0]] * read_layout(dataset, path).frames


def _segments(dataset: Dataset, path: Path) -> list[Structure]:
    kind = _type(dataset, path)
    with damage(path):
        found = [
            Structure(int(required(item, "SegmentNumber", path)), text(item, "SegmentLabel"))
            for item in items(dataset, "SegmentSequence")
        ]
    # Number 0 is the background of a label map, and no segment's in other files.
    segments = [segment for segment in found if segment.number != 0 or kind != "LABELMAP"]
    if not segments:
        raise UnreadableFileError(f"{path} describes no segment. Move it away, or export the segmentation again.")
    return segments


def _type(dataset: Dataset, path: Path) -> str:
    with damage(path):
        kind = text(dataset, "SegmentationType")
    if kind not in _TYPES:
        raise UnreadableFileError(
            f"{path} is a segmentation of the type {kind or 'unknown'}; expected one of {', '.join(_TYPES)}. Export it "
            "as one of these."
        )
    return kind


def _threshold(dataset: Dataset, kind: str, path: Path) -> float:
    if kind != "FRACTIONAL":
        return 0.0
    with damage(path):
        return int(required(dataset, "MaximumFractionalValue", path)) / 2


def _owners(dataset: Dataset, path: Path) -> list[int | None]:
    """The segment of each frame."""
    with damage(path):
        shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
        owners: list[int | None] = []
        for frame in items(dataset, "PerFrameFunctionalGroupsSequence"):
            found = [item for group in (frame, *shared) for item in items(group, "SegmentIdentificationSequence")]
            owners.append(int(required(found[0] if found else Dataset(), "ReferencedSegmentNumber", path)))
    return owners


def _place(values: Bool[np.ndarray, "r c"], plane: Plane, series: Series, mask: Bool[np.ndarray, "d h w"]) -> None:
    """Add one frame to a mask of the series."""
    if not values.any():
        return
    index = series.nearest(np.asarray(plane.position_mm))
    top, left = _corner(plane, index, series)
    _, height, width = mask.shape
    inside = values[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    if inside.sum() < values.sum():
        raise GeometryError(
            f"{plane.path}, frame {plane.frame + 1}, has something outside the {height} x {width} pixels of "
            f"{series.planes[index].path}. Export the segmentation again from this series."
        )
    top, left = max(top, 0), max(left, 0)
    mask[index, top : top + inside.shape[0], left : left + inside.shape[1]] |= inside


def _corner(plane: Plane, index: int, series: Series) -> tuple[int, int]:
    """Row and column of the slice on which the frame's first pixel lies."""
    slice_ = series.planes[index]
    height, width = plane.size
    pixels = np.array([[0, 0], [height - 1, 0], [0, width - 1]], dtype=np.float64)
    found = slice_.locate(np.array([plane.point(row, column) for row, column in pixels]))
    top, left = (int(place) for place in np.round(found[0, 1:]))
    if (away_mm := float(np.abs(found[:, 0]).max())) > series.slack_mm:
        raise GeometryError(
            f"{plane.path}, frame {plane.frame + 1}, lies {away_mm:.2f} mm from the nearest slice, {slice_.path}; "
            f"expected at most {series.slack_mm:.2f} mm. Restore missing slices, or move the segmentation away if it "
            "is of another series."
        )
    if (away := float(np.abs(found[:, 1:] - pixels - (top, left)).max())) > SAME_PIXEL:
        raise GeometryError(
            f"{plane.path}, frame {plane.frame + 1}, lies on another grid than {slice_.path}: a corner is {away:.2f} "
            f"pixels from the center of a pixel; expected at most {SAME_PIXEL}. Export the segmentation again on the "
            "grid of its series."
        )
    return top, left
