"""What stands in a mask file, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

from medseg_pl.checks.measurements import Marked, MaskFacts, Specks
from medseg_pl.core.geometry import Geometry
from medseg_pl.io.file_header import FileHeader

TINY = 3
"""Voxels of the largest component that may be a slip of the pen."""

_MOST_MARKS = 256
_MOST_MEASURED = 12
"""Components are counted of masks with this many values; others are no label masks, or would take long."""
_TABLE, _EXACT = 1 << 16, 1 << 53


def measure_mask(
    pixels: Shaped[np.ndarray, "*c d h w"],
    geometry: Geometry,
    path: Path,
    header: FileHeader,
    label: int | None = None,
    stored: bool = False,
    with_specks: bool = True,
) -> MaskFacts:
    """Count what a mask file holds.

    Args:
        pixels: Values `(D, H, W)`, or colors `(3, D, H, W)`.
        geometry: Where they lie.
        path: The file.
        header: What it says of itself.
        label: The index of the label that the file holds alone.
        stored: Whether the values are those of a stored mask.
        with_specks: Whether components are measured too, which takes longest.
    """
    colored = pixels.ndim == 4
    finite = bool(np.isfinite(pixels).all())
    indices, table = indexed(_packed(pixels) if colored else pixels)
    marks = [tuple(float(part) for part in _unpacked(value)) if colored else (float(value),) for value in table]
    counts = np.bincount(indices.ravel(), minlength=len(table))
    common = np.argsort(-counts, kind="stable")[:_MOST_MARKS]
    coherence = _coherence(indices, counts)
    return MaskFacts(
        path=path,
        label=label,
        geometry=geometry,
        header=header,
        voxels=int(counts.sum()),
        marks=tuple(Marked(marks[i], int(counts[i]), float(coherence[i])) for i in common),
        distinct=len(table),
        finite=finite,
        whole=colored or bool((table[np.isfinite(table)] % 1 == 0).all()),
        colored=colored,
        specks=() if not with_specks or colored or len(table) > _MOST_MEASURED else _all_specks(indices, table),
        stored=stored,
    )


def indexed(values: Shaped[np.ndarray, "d h w"]) -> tuple[Shaped[np.ndarray, "d h w"], Shaped[np.ndarray, " n"]]:
    """Each value as its place in the sorted table of those that occur, as `np.unique` does, but faster for few.

    >>> indices, table = indexed(np.array([[[0, 255, 7]]]))
    >>> indices.tolist(), table.tolist()
    ([[[0, 2, 1]]], [0, 7, 255])
    """
    low, high = values.min(), values.max()
    finite = bool(np.isfinite(low) and np.isfinite(high))  # NaN, too, is its own minimum
    whole = values.dtype.kind != "f" or (finite and bool((values == np.rint(values)).all()))
    if not whole or float(high) - float(low) >= _TABLE or abs(float(low)) > _EXACT:
        table, indices = np.unique(values, return_inverse=True)
        return indices.reshape(values.shape), table
    # The type of the values may be too small for their differences.
    offsets = (values - low if low == 0 else values.astype(np.int64) - int(low)).astype(np.uint16)
    present = np.bincount(offsets.ravel()) > 0
    places = (np.cumsum(present) - 1).astype(np.uint16)
    return places[offsets], np.flatnonzero(present) + int(low)


def _packed(colors: Shaped[np.ndarray, "3 d h w"]) -> Shaped[np.ndarray, "d h w"]:
    """Each color as one number; only the first 64 bits of 16-bit colors are needed."""
    red, green, blue = colors.astype(np.int64)
    return np.asarray(red << 32 | green << 16 | blue)


def _unpacked(packed: Any) -> tuple[int, int, int]:
    number = int(packed)
    return number >> 32, number >> 16 & 0xFFFF, number & 0xFFFF


def _coherence(indices: Shaped[np.ndarray, "d h w"], counts: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """The share of each value's pixels that are followed by the same value, along the rows or along the columns."""
    shares = []
    for before, after in ((indices[..., :-1], indices[..., 1:]), (indices[..., :-1, :], indices[..., 1:, :])):
        same = np.bincount(before[before == after].ravel(), minlength=len(counts))
        shares.append(same / np.maximum(counts, 1))
    return np.asarray(np.maximum(*shares))


def _all_specks(indices: Shaped[np.ndarray, "d h w"], table: Shaped[np.ndarray, " n"]) -> tuple[Specks, ...]:
    return tuple(_specks(indices == place, float(value)) for place, value in enumerate(table) if value != 0)


def _specks(mask: Bool[np.ndarray, "d h w"], value: float) -> Specks:
    """Sizes of the components, which touch at corners too."""
    cropped = mask[_box(mask)]
    if len(cropped) == 1:
        _, _, stats, _ = cv2.connectedComponentsWithStats(cropped[0].astype(np.uint8), connectivity=8)
        sizes = stats[1:, cv2.CC_STAT_AREA]
    else:
        found, _ = ndimage.label(cropped, np.ones((3, 3, 3)))
        sizes = np.bincount(found.ravel())[1:]
    return Specks(value, int(sizes.max()), int((sizes <= TINY).sum()), len(sizes))


def _box(mask: Bool[np.ndarray, "d h w"]) -> tuple[slice, ...]:
    """The smallest box round what is true."""
    ends = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[[0, -1]] for axis in range(3)]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
