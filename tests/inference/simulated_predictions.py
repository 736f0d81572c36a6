"""Predictions of a network that was never trained: references whose borders are moved, with probabilities to match."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

Fault = Literal["shifted", "dropped", "swapped"]
FAULTS: tuple[Fault, ...] = ("shifted", "dropped", "swapped")


def probabilities_near(
    planes: np.ndarray, rng: np.random.Generator, noise: float = 1.5, width: float = 1.0
) -> np.ndarray:
    """Of labels `(N, D, H, W)`: 1 well inside, 0 well outside, and the border off by some pixels, smoothly.

    Args:
        planes: Where the labels are.
        rng: Chance.
        noise: How far the border is off, in pixels.
        width: Over how many pixels the probability goes from 3/4 to 1/4.
    """
    found = []
    for plane in planes:
        rough = gaussian_filter(rng.normal(size=plane.shape), (1, 3, 3))
        moved = _distance(plane) + noise * rough / rough.std()
        found.append(1 / (1 + np.exp(-moved / width)))
    return np.array(found, dtype=np.float32)


def with_fault(planes: np.ndarray, fault: Fault, rng: np.random.Generator) -> np.ndarray:
    """Labels `(N, D, H, W)` as someone may have drawn them by mistake."""
    if fault == "shifted":  # all of them, by an eighth of the picture
        return np.roll(planes, planes.shape[-1] // 8 * int(rng.choice([-1, 1])), axis=int(rng.integers(2, 4)))
    result = planes.copy()
    there = [index for index, plane in enumerate(planes) if plane.any()]
    if fault == "dropped":
        result[rng.choice(there)] = False
    else:
        first, second = rng.choice(there, 2, replace=False)
        result[[first, second]] = planes[[second, first]]
    return result


def _distance(plane: np.ndarray) -> np.ndarray:
    """From the border, in pixels within a slice: positive inside, and far where there is no border."""
    inside = [distance_transform_edt(slice_) if slice_.any() else np.full(slice_.shape, 0.0) for slice_ in plane]
    outside = [distance_transform_edt(~slice_) if slice_.any() else np.full(slice_.shape, 20.0) for slice_ in plane]
    return np.array(inside) - np.array(outside)
