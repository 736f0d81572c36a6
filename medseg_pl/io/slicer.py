"""3D Slicer's segmentations (`.seg.nrrd`): segments by name, in layers where they overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, GeometryError, MaskValueError
from medseg_pl.core.geometry import Geometry
from medseg_pl.io.itk import read_itk, read_itk_header
from medseg_pl.io.paths import find_suffix

_NRRD = (".nrrd", ".nhdr")
_SAME_GRID_VOXELS = 0.1


class Segment(NamedTuple):
    """One structure of a segmentation.

    Attributes:
        name: What the person who drew it called it.
        value: What its voxels hold.
        layer: In which of the file's layers.
    """

    name: str
    value: int
    layer: int


def is_segmentation(path: Path) -> bool:
    """Tell whether a file is NRRD with named segments; false where its header cannot be read."""
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
    """Read the layers `(L, D, H, W)` on the grid of an image, of which Slicer keeps the part that is filled.

    Args:
        path: The segmentation.
        geometry: The image's grid.

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
    """Mark the voxels of a segment.

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
