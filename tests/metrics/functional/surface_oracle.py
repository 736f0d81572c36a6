"""Scores from their definitions, one voxel at a time: slow, short, and sharing nothing with what is tested."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Voxel = tuple[int, int, int]
Spacing = tuple[float, float, float]

IN_THE_SLICE = [(0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
IN_THE_VOLUME = [*IN_THE_SLICE, (1, 0, 0), (-1, 0, 0)]


def voxels(mask: NDArray[np.bool_]) -> set[Voxel]:
    return {(z, y, x) for z, y, x in np.argwhere(mask).tolist()}


def border(mask: NDArray[np.bool_]) -> list[Voxel]:
    """The voxels with a face-neighbor outside the mask; an image of one slice has neighbors in the slice only."""
    inside = voxels(mask)
    steps = IN_THE_SLICE if len(mask) == 1 else IN_THE_VOLUME
    return sorted(
        (z, y, x) for z, y, x in inside if any((z + dz, y + dy, x + dx) not in inside for dz, dy, dx in steps)
    )


def distances(of: list[Voxel], to: list[Voxel], spacing: Spacing) -> list[float]:
    """From each voxel to the nearest of the others, all pairs measured."""
    apart = (np.array(of)[:, None] - np.array(to)[None]) * np.array(spacing)
    shortest: list[float] = np.sqrt((apart**2).sum(axis=2)).min(axis=1).tolist()
    return shortest


def percentile_95(values: list[float]) -> float:
    """Linearly interpolated: of 21 values it is the twentieth."""
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def scores(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Spacing, tolerance: float
) -> dict[str, float]:
    """The scores of one label of one case; NaN where both masks are empty, the worst where exactly one is."""
    p, r = voxels(prediction), voxels(reference)
    if not p and not r:
        return dict.fromkeys(("dice", "iou", "hd", "hd95", "assd", "nsd"), math.nan)
    overlap = {"dice": 2 * len(p & r) / (len(p) + len(r)), "iou": len(p & r) / len(p | r)}
    if not p or not r:
        axes = [length * step for length, step in zip(prediction.shape, spacing, strict=True)]
        far = math.hypot(*(axes[1:] if len(prediction) == 1 else axes))
        return {**overlap, "hd": far, "hd95": far, "assd": far, "nsd": 0.0}
    ours, theirs = border(prediction), border(reference)
    there, back = distances(ours, theirs, spacing), distances(theirs, ours, spacing)
    both = [*there, *back]
    return {
        **overlap,
        "hd": max(both),
        "hd95": max(percentile_95(there), percentile_95(back)),
        "assd": math.fsum(both) / len(both),
        "nsd": sum(distance <= tolerance for distance in both) / len(both),
    }
