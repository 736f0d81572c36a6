"""The voxels of a scan: where they lie in the body, and which of them a shape covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32
from numpy.typing import NDArray
from scipy import ndimage

STEP = 0.03
"""From point to point of a path that `make_tube` made."""


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


def make_tube(corners: Float64[np.ndarray, "n 3"], radius: float, rng: np.random.Generator) -> Tube:
    """Make a smooth tube through `corners` with a slowly varying width."""
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.arange(0, reached[-1], STEP)
    points = np.stack([np.interp(places, reached, axis) for axis in corners.T], axis=1)
    widths = 1 + 0.08 * draw_wave(rng, len(places))
    return Tube(ndimage.gaussian_filter1d(points, 3, axis=0, mode="nearest"), radius * widths)


def draw_wave(rng: np.random.Generator, count: int) -> Float64[np.ndarray, "n"]:
    """Draw a slow random function of unit spread along a tube."""
    smooth: Float64[np.ndarray, "n"] = ndimage.gaussian_filter1d(rng.standard_normal(count), 8, mode="reflect")
    return smooth / 0.19  # the spread that this filter leaves of white noise


Field = Float32[np.ndarray, "d h w"]
Mask = Bool[np.ndarray, "d h w"]

_STACK = (-0.72, 0.78)  # z of the lowest and the highest border of the stack
_PICTURE = (1.72, 2.26)  # a slice is at least this high and wide
_FAR = 9.0
_MARGIN = 0.05  # how far around a tube its depth is known


@dataclass(frozen=True)
class VoxelGrid:
    """Voxel positions of one scan in body units, and the way back to voxel indices.

    Args:
        z: Towards the head.
        y: Towards the back.
        x: To the patient's left.
        steps: From voxel to voxel along `(D, H, W)`.
        tilt: Rotation in the slice, radians.
        origin: Fractional voxel index of the middle of the body.
    """

    z: Field
    y: Field
    x: Field
    steps: Float64[np.ndarray, "3"]
    tilt: float
    origin: Float64[np.ndarray, "3"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(D, H, W)`."""
        depth, height, width = self.z.shape
        return depth, height, width

    def to_indices(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Compute fractional voxel indices of `points`."""
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        z, y, x = points.T
        turned = np.stack([z, cosine * y + sine * x, cosine * x - sine * y], axis=1)
        return np.asarray(turned / self.steps + self.origin)


@dataclass(frozen=True)
class Sweep:
    """A tube on the grid.

    Args:
        depth: Signed distance to the surface, negative inside; large where the tube is far.
        nearest: Number of the nearest point of the path.
    """

    depth: Field
    nearest: Int32[np.ndarray, "d h w"]


def make_grid(shape: tuple[int, int, int], tilt: float, offset: tuple[float, float, float]) -> VoxelGrid:
    """Make the grid that shows a tilted and shifted body."""
    depth, height, width = shape
    # Square pixels, and the whole trunk inside whichever side is short.
    pixel = max(_PICTURE[0] / height, _PICTURE[1] / width)
    steps = np.array([(_STACK[1] - _STACK[0]) / depth, pixel, pixel])
    middle = np.array([-_STACK[0] / steps[0] - 0.5, (height - 1) / 2, (width - 1) / 2])
    origin = middle + np.array(offset) / steps
    z, v, u = np.ix_(*((np.arange(n, dtype=np.float32) - o) * s for n, o, s in zip(shape, origin, steps, strict=True)))
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return VoxelGrid(*_warp_axes(z, cosine * v - sine * u, cosine * u + sine * v), steps, tilt, origin)


def cover_solid(grid: VoxelGrid, solid: Ellipsoid) -> Mask:
    """Return the voxels that `solid` covers."""
    (z, y, x), (tall, high, wide) = solid.center, solid.radii
    cosine, sine = np.float32(np.cos(solid.angle)), np.float32(np.sin(solid.angle))
    dy, dx = grid.y - np.float32(y), grid.x - np.float32(x)
    v, u = cosine * dy - sine * dx, cosine * dx + sine * dy
    squared = ((grid.z - z) / tall) ** 2 + (v / high) ** 2 + (u / wide) ** 2
    return np.asarray(np.asarray(squared, np.float32) < 1)


def sweep(grid: VoxelGrid, tube: Tube) -> Sweep:
    """Draw a tube ball by ball, visiting the box around each."""
    depth = np.full(grid.shape, _FAR, np.float32)
    nearest = np.zeros(grid.shape, np.int32)
    for number, (center, radius) in enumerate(zip(grid.to_indices(tube.points), tube.radii, strict=True)):
        box, distance = _measure_ball(grid, center, float(radius))
        closer = distance < depth[box]
        depth[box][closer] = distance[closer]
        nearest[box][closer] = number
    return Sweep(depth, nearest)


def _warp_axes(z: NDArray[np.floating], y: NDArray[np.floating], x: NDArray[np.floating]) -> tuple[Field, Field, Field]:
    """Bend positions gently, so that no outline is a perfect ellipse."""
    bent_y, bent_x = y + 0.015 * np.sin(6 * x + 4 * z), x + 0.015 * np.sin(7 * y - 3 * z)
    z, y, x = (np.asarray(axis, np.float32) for axis in np.broadcast_arrays(z, bent_y, bent_x))
    return z, y, x


def _measure_ball(grid: VoxelGrid, center: Float64[np.ndarray, "3"], radius: float) -> tuple[tuple[slice, ...], Field]:
    """Measure signed distances to a ball in the box around it."""
    reach = (radius + _MARGIN) / grid.steps
    # Only the box around a ball is visited: a tube is some hundred small balls.
    lows = np.clip(np.ceil(center - reach), 0, grid.shape).astype(int)
    highs = np.clip(np.floor(center + reach) + 1, lows, grid.shape).astype(int)
    box = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
    indices = np.ogrid[box]
    z, y, x = (((i.astype(np.float32) - c) * s) ** 2 for i, c, s in zip(indices, center, grid.steps, strict=True))
    return box, np.asarray(np.sqrt(z + y + x) - radius, np.float32)
