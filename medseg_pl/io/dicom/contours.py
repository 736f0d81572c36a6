"""Which pixels lie inside polygons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

_ROUNDED_DIGITS = 6
"""A contour through the center of a pixel is decided by the rule and not by the last bit of its coordinates."""


def inside_polygons(polygons: Iterable[Float64[np.ndarray, "_ 2"]], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels whose centers lie inside an odd number of polygons: a polygon inside another one is a hole.

    A center on an edge belongs to the polygon below it and to the right of it, so that of two polygons with a common
    edge exactly one has it.

    Args:
        polygons: Corners `(row, column)`, centers of pixels having whole coordinates; the last joins the first.
        size: Rows and columns of the image; what lies outside is cut off.

    >>> square = np.array([[0.5, 0.5], [0.5, 3.5], [2.5, 3.5], [2.5, 0.5]])
    >>> inside_polygons([square], (4, 5)).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    rows, columns = size
    toggles = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        np.add.at(toggles, _crossings(np.round(polygon, _ROUNDED_DIGITS), size), 1)
    inside: NDArray[np.bool_] = np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1
    return inside


def _crossings(polygon: NDArray[np.float64], size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each edge and each row of centers that it crosses: the row, and the first column at or right of the edge."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    limits = np.sort(np.stack([start[:, 0], end[:, 0]]), axis=0)
    first, last = np.clip(np.ceil(limits), 0, size[0]).astype(np.int64)
    edges = np.repeat(np.arange(len(polygon)), last - first)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - last, last - first)
    along = (rows - start[edges, 0]) / (end[edges, 0] - start[edges, 0])
    columns = start[edges, 1] + along * (end[edges, 1] - start[edges, 1])
    return rows, np.clip(np.ceil(np.round(columns, _ROUNDED_DIGITS)), 0, size[1]).astype(np.int64)
