"""Distances between the surfaces of two masks: measured once, read by every distance score.

A border voxel is a voxel of a mask that has a face-neighbor outside the mask; outside the image is outside the mask.
Distances run from the center of a border voxel to the center of the nearest border voxel of the other mask. An image
of one slice is a plane: it has borders, and distances, within the slice only.

References:
    Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024 (definitions and pitfalls).
    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", JMIR 23(7), 2021 (surface Dice; there
    weighted by area, here counted by voxel).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load at their first use: a training's own validations measure no distances
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Spacing = tuple[float, float, float]

_TREE_COST = 0.2
"""What one of a tree's `n log2 n` steps costs, in voxels of the distance transform.

`benchmarks/metrics.py` measures it: 0.16 to 0.24 where there are so many border points that the choice matters.
"""

# Voxels 1.2 mm apart are within 1.2 mm, although `7 * 1.2 - 6 * 1.2` is 1.200000000000001.
_ROUNDING = 1.0 + 1e-9


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of each border voxel to the other mask's border.

    Distances are in the unit of the spacing. They are infinite where the other mask is empty, and there are none where
    the mask itself is.

    Args:
        prediction_to_reference: One distance for each border voxel of the prediction.
        reference_to_prediction: One distance for each border voxel of the reference.
    """

    prediction_to_reference: Float[np.ndarray, "p"]
    reference_to_prediction: Float[np.ndarray, "r"]

    @property
    def both(self) -> Float[np.ndarray, "n"]:
        """The distances of both directions, one after the other."""
        return np.concatenate([self.prediction_to_reference, self.reference_to_prediction])


def surface_distances(
    prediction: Bool[np.ndarray, "d h w"], reference: Bool[np.ndarray, "d h w"], spacing: Spacing
) -> SurfaceDistances:
    """Measure the distances between the borders of two masks, in both directions.

    Border voxels that both masks share are at distance 0 and are not searched for. The others are looked up in a k-d
    tree of the other mask's border, or, where borders fill the volume (noise, sponges), in its distance transform.
    Memory is linear in the voxels of the box around both masks.

    Args:
        prediction: One label of a volume; `D = 1` is a 2D image.
        reference: The same label, annotated.
        spacing: Distance between voxel centers along `(z, y, x)`.

    >>> line = np.array([[[1, 1, 0, 0, 0]]], bool)
    >>> distances = surface_distances(line, np.roll(line, 3), spacing=(1.0, 1.0, 0.5))
    >>> distances.prediction_to_reference, distances.reference_to_prediction
    (array([1.5, 1. ]), array([1. , 1.5]))
    """
    box = find_bounding_box(prediction | reference)
    axes = _select_axes(prediction.shape)  # not the box's, which is flat where a volume's masks lie in one slice
    ours, theirs = find_border(prediction[box], axes), find_border(reference[box], axes)
    length = np.asarray(spacing, dtype=np.float64)
    return SurfaceDistances(_find_nearest(ours, theirs, length), _find_nearest(theirs, ours, length))


def hausdorff(distances: SurfaceDistances) -> float:
    """Compute HD, the largest distance in either direction.

    It is NaN where both masks are empty.

    >>> hausdorff(SurfaceDistances(np.array([1.5, 1.0]), np.array([1.0, 1.5])))
    1.5
    """
    return _take_larger(distances, lambda values: float(values.max()))


def hd95(distances: SurfaceDistances) -> float:
    """Compute HD95, the larger of the two directed 95th percentiles.

    Percentiles are interpolated linearly. Other programs mean the 95th percentile of both directions pooled, or of
    distances weighted by area.

    >>> hd95(SurfaceDistances(np.array([0.0, 1.0]), np.array([0.0, 2.0])))
    1.9
    """
    return _take_larger(distances, _compute_percentile)


def assd(distances: SurfaceDistances) -> float:
    """ASSD: the mean distance over the border voxels of both masks.

    >>> assd(SurfaceDistances(np.array([1.0, 2.0, 3.0]), np.array([0.0])))
    1.5
    """
    values = distances.both
    return float(values.mean()) if len(values) else float("nan")


def nsd(distances: SurfaceDistances, tolerance: float) -> float:
    """Compute NSD, the share of border voxels within a tolerance.

    The border voxels of both masks count, each measured to the other border.

    Args:
        distances: Those of both borders.
        tolerance: In the unit of the distances.

    >>> nsd(SurfaceDistances(np.array([1.0, 2.0, 3.0]), np.array([0.0])), tolerance=2.0)
    0.75
    """
    values = distances.both
    return float((values <= tolerance * _ROUNDING).mean()) if len(values) else float("nan")


def find_border(mask: Bool[np.ndarray, "d h w"], axes: Sequence[int] | None = None) -> Bool[np.ndarray, "d h w"]:
    """Find the voxels of a mask with a face-neighbor outside it.

    Args:
        mask: One label of a volume.
        axes: The axes of the neighbors; by default all, or those within the slice where there is only one.

    >>> find_border(np.ones((1, 3, 4), bool)).astype(int)[0]
    array([[1, 1, 1, 1],
           [1, 0, 0, 1],
           [1, 1, 1, 1]])
    """
    inside = mask.copy()
    for axis in (_select_axes(mask.shape) if axes is None else axes) if mask.size else ():
        line, inner = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        inner[1:] &= line[:-1]
        inner[:-1] &= line[1:]
        inner[[0, -1]] = False
    np.logical_xor(mask, inside, out=inside)
    return inside


def find_bounding_box(mask: Bool[np.ndarray, "d h w"]) -> tuple[slice, slice, slice]:
    """Find the smallest box around a mask, empty for an empty mask.

    >>> find_bounding_box(np.array([[[0, 0, 1, 1], [0, 0, 0, 0]]], bool))
    (slice(0, 1, None), slice(0, 1, None), slice(2, 4, None))
    """
    depth = _find_extent(mask, axis=0)
    height = _find_extent(mask[depth], axis=1)
    return depth, height, _find_extent(mask[depth, height], axis=2)


def measure_diagonal(shape: tuple[int, int, int], spacing: Spacing) -> float:
    """Measure an image's diagonal, or its slice's: no distance is larger.

    Args:
        shape: `(D, H, W)` in voxels; the diagonal is that of the slice if `D` is 1.
        spacing: `(z, y, x)`; the result is in its unit.

    >>> measure_diagonal((1, 30, 40), (5.0, 0.5, 0.5))
    25.0
    """
    return float(np.linalg.norm([shape[axis] * spacing[axis] for axis in _select_axes(shape)]))


def _select_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Select the axes along which there are borders."""
    return (1, 2) if shape[0] == 1 else (0, 1, 2)


def _find_extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """Find the range of planes along an axis that hold voxels."""
    others = tuple(other for other in range(3) if other != axis)
    places = np.flatnonzero(mask.any(axis=others))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _find_nearest(
    origins: NDArray[np.bool_], targets: NDArray[np.bool_], length: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measure from each border voxel of `origins` to the nearest of `targets`."""
    distances = np.zeros(np.count_nonzero(origins))
    if not targets.any():
        distances[:] = np.inf
        return distances
    apart = origins & ~targets
    search = _query_tree if _is_tree_faster(apart, targets) else _apply_transform
    distances[apart[origins]] = search(apart, targets, length)
    return distances


def _is_tree_faster(origins: NDArray[np.bool_], targets: NDArray[np.bool_]) -> bool:
    """Tell whether a tree's `n log n` steps beat one pass."""
    points = np.count_nonzero(origins) + np.count_nonzero(targets)
    return bool(_TREE_COST * points * np.log2(points) < origins.size)


def _query_tree(
    origins: NDArray[np.bool_], targets: NDArray[np.bool_], length: NDArray[np.float64]
) -> NDArray[np.float64]:
    axes = list(_select_axes(origins.shape))
    # Neither compact nor balanced: voxels lie evenly enough, and building takes a third of the time.
    tree = scipy.spatial.cKDTree(
        np.argwhere(targets)[:, axes] * length[axes], leafsize=32, balanced_tree=False, compact_nodes=False
    )
    found: NDArray[np.float64] = tree.query(np.argwhere(origins)[:, axes] * length[axes])[0]
    return found


def _apply_transform(
    origins: NDArray[np.bool_], targets: NDArray[np.bool_], length: NDArray[np.float64]
) -> NDArray[np.float64]:
    found: NDArray[np.float64] = scipy.ndimage.distance_transform_edt(~targets, sampling=length)[origins]
    return found


def _compute_percentile(values: NDArray[np.float64]) -> float:
    # Between two infinite distances numpy finds NaN.
    return float(np.percentile(values, 95)) if np.isfinite(values).all() else float("inf")


def _take_larger(distances: SurfaceDistances, directed: Callable[[NDArray[np.float64]], float]) -> float:
    both = (distances.prediction_to_reference, distances.reference_to_prediction)
    return max((directed(values) for values in both if len(values)), default=float("nan"))
