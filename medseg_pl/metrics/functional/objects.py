"""Objects of a mask: its connected components, their sizes and centers, and which of two masks overlap.

A mask is cut into runs, stretches of voxels along its last axis. Objects are few runs and many voxels, so what is
computed of runs takes a small part of the time that labeling every voxel would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts load at their first use
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from medseg_pl.metrics.functional.surface import Spacing

Connectivity = Literal["full", "face"]
"""Voxels of an object touch at a face, an edge or a corner (`full`), or at a face only."""


@dataclass(frozen=True)
class Objects:
    """Connected components of a mask, numbered by their first voxels from 0.

    Args:
        shape: `(D, H, W)` of the mask.
        starts: Where each run begins: a flat index into the mask, padded by one row and one column at its end.
        ends: One behind the last voxel of each run.
        ids: The object of each run.
        total: The number of objects.
    """

    shape: tuple[int, int, int]
    starts: Int64[np.ndarray, "runs"]
    ends: Int64[np.ndarray, "runs"]
    ids: Int64[np.ndarray, "runs"]
    total: int

    @cached_property
    def sizes(self) -> Int64[np.ndarray, "n"]:
        """The voxels of each object."""
        return _sum_integers(self.ids, self.ends - self.starts, self.total)

    @cached_property
    def centers(self) -> Float64[np.ndarray, "n 3"]:
        """The mean voxel index `(z, y, x)` of each object."""
        _, height, width = self.shape
        lengths = self.ends - self.starts
        rows, first = np.divmod(self.starts, width + 1)
        z, y = np.divmod(rows, height + 1)
        # Twice the sum of x over a run is an integer; so are the others, and no order of adding changes a digit.
        sums = [lengths * z * 2, lengths * y * 2, lengths * (2 * first + lengths - 1)]
        totals = np.stack([_sum_integers(self.ids, values, self.total) for values in sums], axis=1)
        return totals / (2.0 * self.sizes[:, None])

    def measure_volumes(self, spacing: Spacing) -> Float64[np.ndarray, "n"]:
        """Compute each object's volume in the cubed unit of the spacing."""
        return self.sizes * float(np.prod(spacing))

    def measure_diameters(self, spacing: Spacing) -> Float64[np.ndarray, "n"]:
        r"""Compute the diameter of each object's equal ball, or disc in 2D.

        $$d = (6V / \pi)^{1/3}, \qquad d = 2\,(A / \pi)^{1/2}.$$
        """
        if self.shape[0] == 1:
            return 2 * np.sqrt(self.sizes * spacing[1] * spacing[2] / np.pi)
        return np.cbrt(6 * self.measure_volumes(spacing) / np.pi)

    def find_maxima(self, values: NDArray[np.floating]) -> Float64[np.ndarray, "n"]:
        """Find the largest of an image's values in each object."""
        highest = np.full(self.total, -np.inf)
        np.maximum.at(highest, self._ids_by_voxel, values.reshape(-1)[self._voxels].astype(np.float64))
        return highest

    def paint(self, numbers: NDArray[np.int64] | None = None) -> Int64[np.ndarray, "d h w"]:
        """Paint each object with its number on a background of 0.

        Args:
            numbers: The number of each object; by default 1, 2, 3 …
        """
        painted = np.zeros(self.shape, dtype=np.int64)
        written = np.arange(1, self.total + 1) if numbers is None else numbers
        painted.reshape(-1)[self._voxels] = written[self._ids_by_voxel]
        return painted

    @cached_property
    def _voxels(self) -> Int64[np.ndarray, "voxels"]:
        """The flat index into the mask of each voxel, run by run."""
        _, height, width = self.shape
        rows, first = np.divmod(self.starts, width + 1)
        z, y = np.divmod(rows, height + 1)
        lengths = self.ends - self.starts
        begin = (z * height + y) * width + first
        steps = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found: NDArray[np.int64] = np.repeat(begin, lengths) + steps
        return found

    @cached_property
    def _ids_by_voxel(self) -> Int64[np.ndarray, "voxels"]:
        return np.repeat(self.ids, self.ends - self.starts)


class ObjectOverlaps(NamedTuple):
    """The pairs of objects that share voxels.

    Attributes:
        reference: The object of the reference, in each pair; pairs are sorted by it, then by the prediction's.
        prediction: The object of the prediction.
        shared: The voxels in both.
        reference_sizes: The voxels of every object of the reference, with or without a pair.
        prediction_sizes: Those of the prediction's objects.
    """

    reference: Int64[np.ndarray, "k"]
    prediction: Int64[np.ndarray, "k"]
    shared: Int64[np.ndarray, "k"]
    reference_sizes: Int64[np.ndarray, "r"]
    prediction_sizes: Int64[np.ndarray, "p"]

    @property
    def iou(self) -> Float64[np.ndarray, "k"]:
        """The IoU of each pair."""
        united = self.reference_sizes[self.reference] + self.prediction_sizes[self.prediction] - self.shared
        return np.asarray(self.shared / united, dtype=np.float64)


def find_objects(mask: Bool[np.ndarray, "d h w"], connectivity: Connectivity = "full") -> Objects:
    """Find the connected components of a mask.

    Args:
        mask: One label of a volume; `D = 1` is a 2D image.
        connectivity: Which voxels touch.

    >>> objects = find_objects(np.array([[[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]], bool))
    >>> objects.sizes.tolist(), objects.centers.tolist()
    ([3, 1], [[0.0, 0.3333333333333333, 1.0], [0.0, 2.0, 0.0]])
    """
    depth, height, width = mask.shape
    padded = np.zeros((depth, height + 1, width + 1), dtype=bool)
    padded[:, :height, :width] = mask
    flat = padded.reshape(-1)
    # Runs instead of voxels: a mask has some hundred times fewer of them.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        # Nothing stands before the first voxel from which it could differ.
        changes = np.concatenate([[0], changes])
    starts, ends = changes[::2], changes[1::2]
    links = [_link_runs(starts, ends, step, connectivity) for step in _list_steps(height, width, connectivity)]
    first, second = (np.concatenate(side) for side in zip(*links, strict=True))
    graph = scipy.sparse.coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(starts), len(starts)))
    total, ids = scipy.sparse.csgraph.connected_components(graph, directed=False) if len(starts) else (0, starts)
    return Objects(mask.shape, starts, ends, _number_by_first(ids), int(total))


def count_overlaps(reference: Objects, prediction: Objects) -> ObjectOverlaps:
    """Count the voxels that objects of two masks share.

    Returns:
        Only pairs that share voxels.

    >>> masks = [np.array([[[1, 1, 0, 1]]], bool), np.array([[[0, 1, 1, 1]]], bool)]
    >>> overlaps = count_overlaps(*map(find_objects, masks))
    >>> overlaps.reference, overlaps.prediction, overlaps.shared
    (array([0, 1]), array([0, 0]), array([1, 1]))
    """
    # Runs of one mask are sorted and disjoint, so those that overlap a run are a range.
    low = np.searchsorted(prediction.ends, reference.starts, side="right")
    high = np.searchsorted(prediction.starts, reference.ends, side="left")
    ours, theirs = _expand_ranges(low, high)
    begin = np.maximum(reference.starts[ours], prediction.starts[theirs])
    length = np.minimum(reference.ends[ours], prediction.ends[theirs]) - begin
    columns = max(1, prediction.total)
    # One number for each pair sorts far faster than rows of two.
    pairs, where = np.unique(reference.ids[ours] * columns + prediction.ids[theirs], return_inverse=True)
    shared = _sum_integers(where, length, len(pairs))
    return ObjectOverlaps(pairs // columns, pairs % columns, shared, reference.sizes, prediction.sizes)


def _list_steps(height: int, width: int, connectivity: Connectivity) -> Sequence[int]:
    """List how far ahead the rows are whose runs may touch."""
    row, plane = width + 1, (height + 1) * (width + 1)
    if connectivity == "face":
        return row, plane
    return row, *(plane + side * row for side in (-1, 0, 1))


def _link_runs(
    starts: NDArray[np.int64], ends: NDArray[np.int64], step: int, connectivity: Connectivity
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair each run with those it touches a step of rows ahead."""
    # Rows between slices are empty.
    slack = 1 if connectivity == "full" else 0  # corners touch where one run ends as the other begins
    low = np.searchsorted(ends, starts + step + 1 - slack, side="left")
    high = np.searchsorted(starts, ends + step - 1 + slack, side="right")
    return _expand_ranges(low, high)


def _expand_ranges(low: NDArray[np.intp], high: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """List each index with all members of its range.

    >>> _expand_ranges(np.array([0, 5, 2]), np.array([2, 5, 3]))
    (array([0, 0, 2]), array([0, 1, 2]))
    """
    lengths = np.maximum(high - low, 0)
    owners = np.repeat(np.arange(len(low)), lengths)
    steps = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owners, np.repeat(low, lengths) + steps


def _number_by_first(ids: NDArray[np.integer]) -> Int64[np.ndarray, " n"]:
    """Renumber in the order of first appearance in the array."""
    _, first, where = np.unique(ids, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[where], dtype=np.int64)


def _sum_integers(keys: NDArray[np.integer], values: NDArray[np.int64], total: int) -> Int64[np.ndarray, " n"]:
    sums = np.zeros(total, dtype=np.int64)
    np.add.at(sums, keys, values)
    return sums
