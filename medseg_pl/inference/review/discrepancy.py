"""How what was drawn differs from what was predicted, in words."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.metrics.functional.overlap import count, dice

_MOVED = 0.2
"""By how much moving or exchanging a label has to improve its Dice to be what is wrong with it."""
_LARGER = 1.5


def describe_discrepancy(
    drawn: Bool[np.ndarray, "n d h w"],
    predicted: Bool[np.ndarray, "n d h w"],
    index: int,
    names: list[str],
    grid: Geometry,
) -> str:
    """What is the matter with one label, the plainest explanation first.

    Args:
        drawn: The reference of all labels.
        predicted: The prediction of all labels.
        index: The label.
        names: What the labels are called.
        grid: Of both.
    """
    mine, found = drawn[index], predicted[index]
    if not mine.any() or not found.any():
        return _one_sided(mine, found, grid)
    now = _overlap(mine, found)
    for other, name in enumerate(names):
        if other != index and _overlap(mine, predicted[other]) > now + _MOVED:
            return f"is drawn where {name} is predicted"
    step = _offset(mine, found)
    if step.any() and _overlap(_moved(mine, step), found) > now + _MOVED:
        return f"is drawn {_distance(step, grid)} from where it is predicted"
    times = np.count_nonzero(mine) / np.count_nonzero(found)
    if max(times, 1 / times) >= _LARGER:
        return f"is drawn {times:.2g} times as large as it is predicted"
    return f"is drawn with a Dice of {now:.2f} to the prediction"


def format_size(voxels: int, grid: Geometry) -> str:
    """A volume, or an area of pixels where the spacing is unknown.

    >>> format_size(2000, Geometry((10, 20, 20), (2.0, 1.0, 1.0)))
    '4 ml'
    """
    return f"{voxels} pixels" if grid.voxel_ml is None else f"{voxels * grid.voxel_ml:.3g} ml"


def _one_sided(mine: NDArray[np.bool_], found: NDArray[np.bool_], grid: Geometry) -> str:
    if found.any():
        return f"is not drawn, where {format_size(int(np.count_nonzero(found)), grid)} are predicted"
    if mine.any():
        return f"is not predicted, where {format_size(int(np.count_nonzero(mine)), grid)} are drawn"
    return "is neither drawn nor predicted"


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    found = dice(count(first, second))
    return 1.0 if math.isnan(found) else found


def _offset(mine: NDArray[np.bool_], found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """In whole voxels, from the middle of one mask to that of the other."""
    middles = [np.array([places.mean() for places in np.nonzero(mask)]) for mask in (mine, found)]
    step: NDArray[np.int64] = np.rint(middles[1] - middles[0]).astype(np.int64)
    return step


def _moved(mask: NDArray[np.bool_], step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Without what leaves the image."""
    result = np.zeros_like(mask)
    here = tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(step.tolist(), mask.shape, strict=True))
    there = tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(step.tolist(), mask.shape, strict=True))
    result[there] = mask[here]
    return result


def _distance(step: NDArray[np.int64], grid: Geometry) -> str:
    along: Float64[np.ndarray, "3"] = step * np.asarray(grid.spacing_in_unit)
    return f"{np.linalg.norm(along):.3g} {grid.unit}"
