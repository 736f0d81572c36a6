"""DICOM SEG and RTSTRUCT: masks of their structures on the slices of a series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medseg_pl.core.errors import GeometryError, UnreadableFileError, count_noun
from medseg_pl.io.dicom.headers import explain_damage, get_items, get_kind, get_text, read_dataset, require_element
from medseg_pl.io.dicom.pixels import read_frames, read_layout
from medseg_pl.io.dicom.planes import FARTHEST_MM, Plane, read_planes
from medseg_pl.io.dicom.series import Series
from medseg_pl.io.regions import Structure, fill_polygons


def read_structures(path: Path) -> list[Structure]:
    """List the structures of a SEG or an RTSTRUCT.

    Raises:
        UnreadableFileError: The file is neither, or it is damaged.
    """
    return read_regions(path) if _has_contours(path) else read_segments(path)


def read_masks(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Read masks of structures on the slices of their series.

    Args:
        path: The file.
        wanted: For each mask the numbers of the structures that it unites.
        series: The series that they were drawn on.

    Raises:
        GeometryError: Something is drawn where the series has no pixel.
        UnreadableFileError: The file cannot be decoded.
    """
    read = read_contours if _has_contours(path) else read_segmentation
    return read(path, wanted, series)


def _has_contours(path: Path) -> bool:
    dataset = read_dataset(path)
    with explain_damage(path):
        kind = get_kind(dataset)
    if kind not in ("segmentation", "structures"):
        raise UnreadableFileError(f"{path} is neither a DICOM SEG nor an RTSTRUCT. Move it away.")
    return kind == "structures"


SAME_PIXEL = 0.1
"""How far, in pixels, a frame's corners may lie from centers of the series' pixels: it moves no border."""

_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")


def read_segments(path: Path) -> list[Structure]:
    """List the segments of a file, without a label map's background.

    Raises:
        UnreadableFileError: The file is damaged or describes no segment.
    """
    return _list_segments(read_dataset(path), path)


def read_segmentation(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Read masks of segments on the slices of their series.

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
    # Not by highdicom.seg.segread(...).get_volume, whose volume has a grid of its own: here a frame goes to the slice
    # of the series on which it was drawn, or is refused; one read like the other takes 0.7 to 1.4 times the time.
    dataset = read_dataset(path, pixels=True)
    kind = _read_type(dataset, path)
    masks = [np.zeros(series.shape, dtype=bool) for _ in wanted]
    planes = _find_planes(dataset, path, series)
    owners = [None] * len(planes) if kind == "LABELMAP" else _list_owners(dataset, path)
    if len(owners) != (frames := read_layout(dataset, path).frames):
        raise UnreadableFileError(
            f"{path} has {count_noun(frames, 'frame')}, and says of {len(owners)} what they show. Export it again."
        )
    needed = {number for numbers in wanted for number in numbers}
    chosen = [frame for frame, owner in enumerate(owners) if owner is None or owner in needed]
    threshold = _find_threshold(dataset, kind, path)
    for frame, values in read_frames(dataset, path, chosen):
        owner = owners[frame]
        for mask, numbers in zip(masks, wanted, strict=True):
            if owner is None:
                _place(np.isin(values, list(numbers)), planes[frame], series, mask)
            elif owner in numbers:
                _place(values > threshold, planes[frame], series, mask)
    return masks


def _find_planes(dataset: Dataset, path: Path, series: Series) -> list[Plane]:
    """Find the planes of the frames.

    Without a frame of reference they lie on the only image.
    """
    if "FrameOfReferenceUID" in dataset or len(series.planes) > 1:
        return read_planes(dataset, path)
    return [series.planes[0]] * read_layout(dataset, path).frames


def _list_segments(dataset: Dataset, path: Path) -> list[Structure]:
    kind = _read_type(dataset, path)
    with explain_damage(path):
        found = [
            Structure(int(require_element(item, "SegmentNumber", path)), get_text(item, "SegmentLabel"))
            for item in get_items(dataset, "SegmentSequence")
        ]
    # Number 0 is the background of a label map, and no segment's in other files.
    segments = [segment for segment in found if segment.number != 0 or kind != "LABELMAP"]
    if not segments:
        raise UnreadableFileError(f"{path} describes no segment. Move it away, or export the segmentation again.")
    return segments


def _read_type(dataset: Dataset, path: Path) -> str:
    with explain_damage(path):
        kind = get_text(dataset, "SegmentationType")
    if kind not in _TYPES:
        raise UnreadableFileError(
            f"{path} is a segmentation of the type {kind or 'unknown'}; expected one of {', '.join(_TYPES)}. Export it "
            "as one of these."
        )
    return kind


def _find_threshold(dataset: Dataset, kind: str, path: Path) -> float:
    if kind != "FRACTIONAL":
        return 0.0
    with explain_damage(path):
        return int(require_element(dataset, "MaximumFractionalValue", path)) / 2


def _list_owners(dataset: Dataset, path: Path) -> list[int | None]:
    """List the segment of each frame."""
    with explain_damage(path):
        shared = get_items(dataset, "SharedFunctionalGroupsSequence")[:1]
        owners: list[int | None] = []
        for frame in get_items(dataset, "PerFrameFunctionalGroupsSequence"):
            found = [item for group in (frame, *shared) for item in get_items(group, "SegmentIdentificationSequence")]
            owners.append(int(require_element(found[0] if found else Dataset(), "ReferencedSegmentNumber", path)))
    return owners


def _place(values: Bool[np.ndarray, "r c"], plane: Plane, series: Series, mask: Bool[np.ndarray, "d h w"]) -> None:
    """Add one frame to a mask of the series."""
    if not values.any():
        return
    index = series.find_nearest(np.asarray(plane.position_mm))
    top, left = _find_corner(plane, index, series)
    _, height, width = mask.shape
    inside = values[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    if inside.sum() < values.sum():
        raise GeometryError(
            f"{plane.path}, frame {plane.frame + 1}, has something outside the {height} x {width} pixels of "
            f"{series.planes[index].path}. Export the segmentation again from this series."
        )
    top, left = max(top, 0), max(left, 0)
    mask[index, top : top + inside.shape[0], left : left + inside.shape[1]] |= inside


def _find_corner(plane: Plane, index: int, series: Series) -> tuple[int, int]:
    """Find row and column of the slice at the frame's first pixel."""
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


_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def read_regions(path: Path) -> list[Structure]:
    """List the regions that have a closed contour.

    Points and open lines enclose nothing.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    dataset = read_dataset(path)
    with explain_damage(path):
        drawn = {number for number, item in _list_regions(dataset, path) if _list_closed(item)}
        return [structure for structure in _list_named(dataset, path) if structure.number in drawn]


def read_contours(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Read masks of regions on the slices of their series.

    A pixel is inside where its center is inside an odd number of the region's contours on its slice, so that a contour
    inside another one is a hole. See `fill_polygons` for centers on a contour.

    Args:
        path: The file.
        wanted: For each mask the numbers of the regions that it unites.
        series: The series that they were drawn on.

    Raises:
        GeometryError: A contour lies on no slice of the series.
        UnreadableFileError: The file is damaged.
    """
    dataset = read_dataset(path)
    masks = [np.zeros(series.shape, dtype=bool) for _ in wanted]
    with explain_damage(path):
        regions = [(number, _list_closed(item)) for number, item in _list_regions(dataset, path)]
        names = {structure.number: structure.name for structure in _list_named(dataset, path)}
    for number, contours in regions:
        if not any(number in numbers for numbers in wanted):
            continue
        slices = _group_by_slice(contours, f"{path}, region {names.get(number, number)!r}", series, path)
        for index, polygons in slices.items():
            inside = fill_polygons(polygons, series.planes[index].size)
            for mask, numbers in zip(masks, wanted, strict=True):
                if number in numbers:
                    mask[index] |= inside
    return masks


def _list_named(dataset: Dataset, path: Path) -> list[Structure]:
    found = get_items(dataset, "StructureSetROISequence")
    return [Structure(int(require_element(item, "ROINumber", path)), get_text(item, "ROIName")) for item in found]


def _list_regions(dataset: Dataset, path: Path) -> list[tuple[int, Dataset]]:
    found = get_items(dataset, "ROIContourSequence")
    return [(int(require_element(item, "ReferencedROINumber", path)), item) for item in found]


def _list_closed(region: Dataset) -> list[Dataset]:
    return [item for item in get_items(region, "ContourSequence") if get_text(item, "ContourGeometricType") in _CLOSED]


def _group_by_slice(
    contours: Sequence[Dataset], what: str, series: Series, path: Path
) -> dict[int, list[Float64[np.ndarray, "_ 2"]]]:
    """Group the polygons by slice, in rows and columns."""
    slices: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for place, contour in enumerate(contours, start=1):
        points_mm = _read_points(contour, f"{what}, contour {place},", path)
        index = series.find_nearest(points_mm[0])
        found = series.planes[index].locate(points_mm)
        if (away_mm := float(np.abs(found[:, 0]).max())) > series.slack_mm:
            raise GeometryError(
                f"{what}, contour {place}, lies up to {away_mm:.2f} mm from the nearest slice, "
                f"{series.planes[index].path}; expected at most {series.slack_mm:.2f} mm. Restore missing slices, or "
                "move the contours away if they are of another series."
            )
        slices[index].append(found[:, 1:])
    return slices


def _read_points(contour: Dataset, what: str, path: Path) -> Float64[np.ndarray, "n 3"]:
    with explain_damage(path):
        values = np.array([float(value) for value in contour.get("ContourData") or ()], dtype=np.float64)
    if len(values) == 0 or len(values) % 3 or not (np.abs(values) < FARTHEST_MM).all():
        raise UnreadableFileError(
            f"{what} has {len(values)} coordinates; expected three for each point, each less than {FARTHEST_MM:g} mm. "
            "Export the structures again."
        )
    return values.reshape(-1, 3)
