"""The two shapes that a body is made of: tubes for hollow organs, ellipsoids for solid ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

STEP = 0.03
"""From point to point of a path that `tube_along` made."""


@dataclass(frozen=True)
class Tube:
    """A hollow organ: balls along a path."""

    points: Float64[np.ndarray, "n 3"]
    radii: Float64[np.ndarray, "n"]


@dataclass(frozen=True)
class Ellipsoid:
    """A solid structure with one mean intensity, turned by `angle` radians in the slice."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    value: float
    angle: float = 0.0


def tube_along(corners: Float64[np.ndarray, "n 3"], radius: float, rng: np.random.Generator) -> Tube:
    """A smooth tube through `corners`, with a slowly varying width."""
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.arange(0, reached[-1], STEP)
    points = np.stack([np.interp(places, reached, axis) for axis in corners.T], axis=1)
    widths = 1 + 0.08 * wave(rng, len(places))
    return Tube(ndimage.gaussian_filter1d(points, 3, axis=0, mode="nearest"), radius * widths)


def wave(rng: np.random.Generator, count: int) -> Float64[np.ndarray, "n"]:
    """A slow random function of unit spread along a tube."""
    smooth: Float64[np.ndarray, "n"] = ndimage.gaussian_filter1d(rng.standard_normal(count), 8, mode="reflect")
    return smooth / 0.19  # the spread that this filter leaves of white noise
