"""Regions of images: outlines, run lengths, and 3D Slicer's segments (`.seg.nrrd`), in layers where they overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, count_noun
from medseg_pl.core.geometry import Geometry
from medseg_pl.io.itk import read_itk, read_itk_header
from medseg_pl.io.paths import find_suffix

# Corners of an ellipse: the outline is off by 4e-5 of its radius
_ROUND = 360

_NRRD = (".nrrd", ".nhdr")

_SAME_GRID_VOXELS = 0.1


class Runs(NamedTuple):
    """A mask inside a box, as run lengths of outside and inside.

    Attributes:
        lengths: The lengths alternate; the first is one of outside.
        corner: `(row, column)` of the box.
        size: `(height, width)` of the box.
        by_columns: Whether pixels follow each other down the columns, as in COCO.
    """

    lengths: Int64[np.ndarray, " n"]
    corner: tuple[int, int]
    size: tuple[int, int]
    by_columns: bool = False


class Region(NamedTuple):
    """One object that somebody outlined.

    Attributes:
        category: What it is called.
        polygons: Its parts: corners `(x, y)` in pixels, the corner of the image being `(0, 0)`.
        runs: The same as runs, where the tool painted instead.
    """

    category: str
    polygons: tuple[Float64[np.ndarray, "_ 2"], ...] = ()
    runs: Runs | None = None


class AnnotatedImage(NamedTuple):
    """The outlines drawn in one image.

    Attributes:
        name: The image's file as the tool names it.
        size: `(height, width)` of the image that was annotated.
        regions: In the order in which they were drawn, those behind first.
    """

    name: str
    size: tuple[int, int]
    regions: tuple[Region, ...]


StructureKey = int | str
"""A structure by its number in the file or by its name."""


class Structure(NamedTuple):
    """A segment or a region of interest.

    Attributes:
        number: The number by which the rest of the file refers to it.
        name: The name that its author gave it.
    """

    number: int
    name: str


def draw_region(region: Region, size: tuple[int, int], source: str) -> Bool[np.ndarray, "h w"]:
    """Mark the pixels whose centers lie in any part of a region.

    Parts outside the image are cut off.

    Args:
        region: The region.
        size: `(height, width)` of the image.
        source: What to call the region in an error.

    Raises:
        MaskValueError: Runs do not fill their box, or the box leaves the image.

    >>> corners = np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 2.0], [1.0, 2.0]])
    >>> draw_region(Region("a", (corners,)), (3, 4), "a").astype(int)
    array([[0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    mask = np.zeros(size, dtype=bool)
    for polygon in region.polygons:
        _draw_polygon(mask, polygon)
    if region.runs is not None:
        _draw_runs(mask, region.runs, source)
    return mask


def outline_ellipse(
    center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0
) -> Float64[np.ndarray, "_ 2"]:
    """Compute the corners `(x, y)` of an ellipse.

    Args:
        center: `(x, y)`.
        radii: Along x and y before the turn.
        degrees: Turn, clockwise as seen.
    """
    angles = np.linspace(0, 2 * np.pi, _ROUND, endpoint=False)
    return turn_points(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii, degrees) + center


def outline_box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> NDArray[np.float64]:
    """Compute the corners `(x, y)` of a box.

    Args:
        left: Its smallest x before the turn.
        top: Its smallest y.
        right: Its largest x.
        bottom: Its largest y.
        degrees: Turn about the center, clockwise as seen.
    """
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    turned: NDArray[np.float64] = turn_points(corners - center, degrees) + center
    return turned


def turn_points(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Turn points clockwise as seen, about the origin.

    Args:
        points: `(n, 2)` of x and y, where y runs down.
        degrees: The angle.
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([points[:, 0] * cosine - points[:, 1] * sine, points[:, 0] * sine + points[:, 1] * cosine], axis=1)


def _draw_polygon(mask: NDArray[np.bool_], polygon: NDArray[np.float64]) -> None:
    """Draw within the polygon's own box, which is small in a large image."""
    limits = np.array(mask.shape)
    corners = polygon[:, ::-1] - 0.5  # a pixel's center is half a pixel from its corner
    low = np.clip(np.floor(corners.min(axis=0)).astype(np.int64), 0, limits)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(np.int64) + 1, low, limits)
    (top, left), (bottom, right) = (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))
    mask[top:bottom, left:right] |= fill_polygons([corners - low], (bottom - top, right - left))


def _draw_runs(mask: NDArray[np.bool_], runs: Runs, source: str) -> None:
    (top, left), (height, width) = runs.corner, runs.size
    lengths = runs.lengths
    fits = 0 <= top <= top + height <= mask.shape[0] and 0 <= left <= left + width <= mask.shape[1]
    covered = sum(lengths.tolist())  # of any size: a sum in 64 bits may wrap to the number that is expected
    if not fits or (lengths < 0).any() or covered != height * width:
        raise MaskValueError(
            f"{source}: runs of {covered} pixels in a box of {height} x {width} at ({top}, {left}) do not "
            f"fit the image of {mask.shape[0]} x {mask.shape[1]}. Export the annotation again."
        )
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    box = inside.reshape(width, height).T if runs.by_columns else inside.reshape(height, width)
    mask[top : top + height, left : left + width] |= box


# A contour through the center of a pixel is decided by the rule and not by the last bit of its coordinates
_ROUNDED_DIGITS = 6


def fill_polygons(polygons: Iterable[Float64[np.ndarray, "_ 2"]], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Fill polygons by the even-odd rule, which makes inner ones holes.

    A center on an edge belongs to the polygon below it and to the right of it, so that of two polygons with a common
    edge exactly one has it.

    Args:
        polygons: Corners `(row, column)`, centers of pixels having whole coordinates; the last joins the first.
        size: Rows and columns of the image; anything outside is cut off.

    >>> square = np.array([[0.5, 0.5], [0.5, 3.5], [2.5, 3.5], [2.5, 0.5]])
    >>> fill_polygons([square], (4, 5)).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    rows, columns = size
    toggles = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        np.add.at(toggles, _find_crossings(np.round(polygon, _ROUNDED_DIGITS), size), 1)
    inside: NDArray[np.bool_] = np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1
    return inside


def _find_crossings(polygon: NDArray[np.float64], size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where edges cross rows of pixel centers.

    Returns:
        For each crossing the row, and the first column at or right of the edge.
    """
    start, end = polygon, np.roll(polygon, -1, axis=0)
    limits = np.sort(np.stack([start[:, 0], end[:, 0]]), axis=0)
    first, last = np.clip(np.ceil(limits), 0, size[0]).astype(np.int64)
    edges = np.repeat(np.arange(len(polygon)), last - first)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - last, last - first)
    along = (rows - start[edges, 0]) / (end[edges, 0] - start[edges, 0])
    columns = start[edges, 1] + along * (end[edges, 1] - start[edges, 1])
    return rows, np.clip(np.ceil(np.round(columns, _ROUNDED_DIGITS)), 0, size[1]).astype(np.int64)


def encode_runs(mask: NDArray[np.bool_]) -> str:
    """Encode an `(H, W)` mask as runs.

    An empty mask becomes an empty text.

    >>> encode_runs(np.array([[True, True, False], [False, False, True]]))
    '1 2 6 1'
    """
    flat = np.concatenate([[False], mask.ravel().astype(bool), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = changes[::2], changes[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts.tolist(), ends.tolist(), strict=True))


def decode_runs(text: str, shape: tuple[int, int], source: str = "run lengths") -> Bool[np.ndarray, "h w"]:
    """Decode runs into an `(H, W)` mask.

    Args:
        text: `start length` pairs; empty for an empty mask.
        shape: `(height, width)`.
        source: What to call the text in an error.

    Raises:
        MaskValueError: The text is no list of pairs, or a run leaves the image.

    >>> decode_runs("1 2 6 1", (2, 3)).astype(int)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    size = shape[0] * shape[1]
    try:
        numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise MaskValueError(f"{source}: expected 'start length' pairs of whole numbers, got {text[:60]!r}.") from None
    if len(numbers) % 2:
        raise MaskValueError(f"{source}: expected 'start length' pairs, got an odd count of {len(numbers)} numbers.")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    # Compared this way round, huge numbers do not overflow.
    if (starts < 0).any() or (lengths < 0).any() or (lengths > size - starts).any():
        raise MaskValueError(
            f"{source}: a run leaves the image of {count_noun(shape[0], 'row')} and {shape[1]} columns. "
            "Check that width and height are not exchanged."
        )
    # A run adds 1 where it begins and takes it back behind its end, so that many that overlap take no memory.
    changes = np.zeros(size + 1, dtype=np.int32)
    np.add.at(changes, starts, 1)
    np.add.at(changes, starts + lengths, -1)
    return (np.cumsum(changes[:-1], out=changes[:-1]) > 0).reshape(shape)


class Segment(NamedTuple):
    """One structure of a segmentation.

    Attributes:
        name: The name that its author gave it.
        value: The value of its voxels.
        layer: The file's layer that holds it.
    """

    name: str
    value: int
    layer: int


def is_segmentation(path: Path) -> bool:
    """Tell whether a file is NRRD with named segments.

    It is none where its header cannot be read.
    """
    if find_suffix(path).lower() not in _NRRD:
        return False
    try:
        return _make_key(0, "Name") in read_itk_header(path).fields
    except DataError:
        return False


def read_segments(path: Path) -> list[Segment]:
    """List the segments of a file from its header.

    Files of older versions have a layer for each segment, and no values.

    Raises:
        MaskValueError: A field is damaged.
    """
    fields = read_itk_header(path).fields
    segments: list[Segment] = []
    while _make_key(len(segments), "Name") in fields:
        number = len(segments)
        try:
            value = int(fields.get(_make_key(number, "LabelValue"), 1))
            old = _make_key(number, "LabelValue") not in fields
            layer = number if old else int(fields.get(_make_key(number, "Layer"), 0))
        except ValueError as error:
            raise MaskValueError(f"{path} has a damaged segment {number}: {error}. Save it again in Slicer.") from None
        segments.append(Segment(fields[_make_key(number, "Name")], value, layer))
    return segments


def read_layers(path: Path, geometry: Geometry) -> NDArray[Any]:
    """Read the layers of a segmentation on an image's grid.

    Slicer stores only the part that is filled.

    Args:
        path: The segmentation.
        geometry: The image's grid.

    Returns:
        `(L, D, H, W)`.

    Raises:
        GeometryError: The file lies on another grid, or beyond the image.
    """
    layers, own = read_itk(path)
    if own.affine is None or geometry.affine is None:
        if own.shape != geometry.shape:
            raise _refuse(
                path, f"is {_format_size(own.shape)} without a place, and its image {_format_size(geometry.shape)}"
            )
        return layers
    there = np.linalg.pinv(np.asarray(geometry.affine)) @ np.asarray(own.affine)
    offset = np.round(there[:3, 3])
    moved = np.abs(there - np.block([[np.eye(3), offset[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]))
    if (moved[:3, :3] @ own.shape).max() + moved[:3, 3].max() > _SAME_GRID_VOXELS:
        raise _refuse(path, "lies on another grid than its image (turned, shifted, or of another spacing)")
    low = offset.astype(int)
    whole = np.zeros((len(layers), *geometry.shape), layers.dtype)
    inside = tuple(slice(max(0, -first), max(0, size - first)) for first, size in zip(low, geometry.shape, strict=True))
    part = layers[(slice(None), *inside)]
    if np.count_nonzero(part) < np.count_nonzero(layers):
        raise _refuse(path, "marks voxels outside its image")
    place = tuple(slice(max(0, first), max(0, first) + size) for first, size in zip(low, part.shape[1:], strict=True))
    whole[(slice(None), *place)] = part
    return whole


def find_segment(layers: NDArray[Any], segment: Segment, path: Path) -> Bool[np.ndarray, "d h w"]:
    """Mark the voxels of a segment in `(L, D, H, W)` layers.

    Raises:
        MaskValueError: The file has no such layer.
    """
    if not 0 <= segment.layer < len(layers):
        raise MaskValueError(
            f"{path} puts {segment.name!r} into layer {segment.layer} of {len(layers)}. Save it again in Slicer."
        )
    found: NDArray[np.bool_] = layers[segment.layer] == segment.value
    return found


def _make_key(number: int, field: str) -> str:
    return f"Segment{number}_{field}"


def _refuse(path: Path, reason: str) -> GeometryError:
    return GeometryError(f"{path} {reason}. Resample it in Slicer to the image (Specify geometry), or remove the case.")


def _format_size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def match_structures(structures: Sequence[Structure], keys: Sequence[StructureKey]) -> list[int]:
    """Find the numbers of the structures that keys mean.

    Upper and lower case are the same, and so are spaces and underscores.

    >>> match_structures([Structure(1, "Left Kidney"), Structure(2, "liver")], ["left_kidney", 2])
    [1, 2]
    """
    names = {_normalize_name(key) for key in keys if isinstance(key, str)}
    numbers = {key for key in keys if isinstance(key, int)}
    return [number for number, name in structures if number in numbers or _normalize_name(name) in names]


def _normalize_name(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).strip().casefold()
