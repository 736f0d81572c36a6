"""Synthetic scans: voxel grid, tissues, and what a scanner makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8, UInt16
from numpy.typing import NDArray
from scipy import ndimage

from medseg_pl.data.synthetic.anatomy import (
    STEP,
    Ellipsoid,
    Organ,
    Patient,
    Tube,
    draw_another_day,
    draw_patient,
    draw_wave,
)

Field = Float32[np.ndarray, "d h w"]
Mask = Bool[np.ndarray, "d h w"]

_STACK = (-0.72, 0.78)  # z of the lowest and the highest border of the stack
_PICTURE = (1.72, 2.26)  # a slice is at least this high and wide
_FAR = 9.0
_MARGIN = 0.05  # how far around a tube its depth is known


@dataclass(frozen=True)
class VoxelGrid:
    """Voxel positions of one scan in body units.

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
    """Make the grid that shows a tilted and shifted body.

    Args:
        shape: `(D, H, W)` in voxels.
        tilt: Rotation in the slice, radians.
        offset: Shift `(z, y, x)` of the body, in body units.
    """
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
    """Return the voxels that a solid covers."""
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


@dataclass(frozen=True)
class Texture:
    """Noise of unit spread: `grain` is fine, `mottle` coarse."""

    grain: Field
    mottle: Field


@dataclass(frozen=True)
class Trunk:
    """Layers of the trunk, each inside the one before.

    They are the whole `body`, all within the fat of its `wall`, and the `cavity` within its muscle.
    """

    body: Mask
    wall: Mask
    cavity: Mask


def draw_texture(rng: np.random.Generator, grid: VoxelGrid) -> Texture:
    """Draw the texture of one scan."""
    return Texture(grain=_draw_noise(rng, grid, 0.012), mottle=_draw_noise(rng, grid, 0.045))


def cover_trunk(patient: Patient, grid: VoxelGrid) -> Trunk:
    """Return the layers of the trunk, skin to cavity."""
    high, wide = patient.trunk
    fat, muscle = patient.rim
    insets = (0.0, fat, fat + muscle)
    layers = (Ellipsoid((0.0, 0.0, 0.0), (4.0, high - inset, wide - inset), 0.0) for inset in insets)
    return Trunk(*(cover_solid(grid, layer) for layer in layers))


def paint_surroundings(solids: tuple[Ellipsoid, ...], grid: VoxelGrid, trunk: Trunk, texture: Texture) -> Field:
    """Paint fat, muscle wall, mesentery and solid structures."""
    strands = np.exp(-((texture.mottle / 0.22) ** 2))  # where noise crosses zero it draws thin lines, like vessels
    tissue = np.where(trunk.body, np.float32(0.82), np.float32(0.0))
    tissue[trunk.wall] = 0.25
    np.copyto(tissue, 0.68 + 0.05 * texture.mottle - 0.22 * strands, where=trunk.cavity)
    for solid in solids:
        covered = cover_solid(grid, solid) & trunk.wall
        tissue[covered] = solid.value * (1 + 0.05 * texture.mottle[covered] + 0.15 * strands[covered])
    return tissue


def paint_interior(rng: np.random.Generator, grid: VoxelGrid, organ: Organ, sweep: Sweep, texture: Texture) -> Field:
    """Paint wall, content and gas of an organ.

    The patient lies on the back, so gas is in front.
    """
    tube, look = organ.tube, organ.look
    count = len(tube.radii)
    stripes = look.folds * np.sin(2 * np.pi * STEP * np.arange(count) / look.fold_length)
    content = look.content * (1 + 0.08 * draw_wave(rng, count)) + stripes
    level = tube.points[:, 1] + tube.radii * (look.gas + 0.5 * draw_wave(rng, count))
    value = content.astype(np.float32)[sweep.nearest] + look.mottle * texture.mottle + look.grain * texture.grain
    # y points to the back, so what is in front of the level is gas.
    value[grid.y < level.astype(np.float32)[sweep.nearest]] = 0.08
    # Last: the wall is there around gas as well.
    value[sweep.depth > -look.wall] = 0.22
    return np.asarray(value)


def _draw_noise(rng: np.random.Generator, grid: VoxelGrid, scale: float) -> Field:
    """Smooth noise of unit spread, with blobs of about `scale` body units."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, scale / grid.steps, mode="reflect", truncate=3.0)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


Masks = Bool[np.ndarray, "k d h w"]
Seed = int | Sequence[int]


class Phantom(NamedTuple):
    """One synthetic volume.

    Args:
        image: Intensities; slice 0 is nearest the feet.
        masks: One mask per name in `ORGANS`; they can overlap by a rim of voxels.
    """

    image: UInt16[np.ndarray, "d h w"]
    masks: Masks


def simulate_abdomen(rng: np.random.Generator, shape: tuple[int, int, int] = (24, 96, 112)) -> Phantom:
    """Simulate one scan of a new patient.

    Args:
        rng: The source of randomness.
        shape: `(D, H, W)` in voxels.

    >>> scan = simulate_abdomen(np.random.default_rng(0), shape=(8, 48, 56))
    >>> scan.image.dtype, scan.masks.shape
    (dtype('uint16'), (3, 8, 48, 56))
    """
    return _scan(draw_patient(rng), rng, shape)


def simulate_days(patient_seed: Seed, day_seeds: Sequence[Seed], shape: tuple[int, int, int]) -> Iterator[Phantom]:
    """Simulate `(D, H, W)` scans of one patient on several days."""
    patient = draw_patient(np.random.default_rng(patient_seed))
    for seed in day_seeds:
        yield _scan(patient, np.random.default_rng(seed), shape)


def merge_exclusive(masks: Bool[np.ndarray, "k *shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Merge masks to one label map; where they overlap, the later wins.

    >>> merge_exclusive(np.array([[True, True, False], [False, True, False]])).tolist()
    [1, 2, 0]
    """
    labels = np.zeros(masks.shape[1:], np.uint8)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels


def _scan(patient: Patient, rng: np.random.Generator, shape: tuple[int, int, int]) -> Phantom:
    """Simulate one scan: anatomy, texture, bias and noise."""
    today = draw_another_day(patient, rng)
    grid = make_grid(shape, today.tilt, today.offset)
    texture = draw_texture(rng, grid)
    trunk = cover_trunk(today, grid)
    tissue = paint_surroundings(today.solids, grid, trunk, texture)
    sweeps = [_sweep_roughly(grid, organ, texture) for organ in today.organs]
    masks = np.stack([(swept.depth < 0) & trunk.cavity for swept in sweeps])
    for organ, swept, mask in zip(today.organs, sweeps, masks, strict=True):
        np.copyto(tissue, paint_interior(rng, grid, organ, swept, texture), where=mask)
    return Phantom(_simulate_scanner(rng, grid, tissue, today.peak), _separate_masks(masks, sweeps, today.overlap))


def _sweep_roughly(grid: VoxelGrid, organ: Organ, texture: Texture) -> Sweep:
    """Draw the organ on the grid with a slightly rough surface."""
    smooth = sweep(grid, organ.tube)
    return replace(smooth, depth=smooth.depth + np.float32(0.008) * texture.mottle)


def _separate_masks(masks: Masks, sweeps: Sequence[Sweep], overlap: float) -> Masks:
    """Separate masks so that they share no more than a rim."""
    separated = masks.copy()
    for organ, later in combinations(range(len(masks)), 2):
        separated[organ] &= ~(masks[later] & (sweeps[later].depth < -overlap))
    return separated


def _simulate_scanner(
    rng: np.random.Generator, grid: VoxelGrid, tissue: Field, peak: float
) -> UInt16[np.ndarray, "d h w"]:
    """Simulate blur, receive bias, Rician noise and arbitrary scale."""
    blurred = ndimage.gaussian_filter(tissue, (0.0, 0.55, 0.55))
    a, b, c, d = rng.normal(0, (0.10, 0.12, 0.12, 0.10)).tolist()
    # A receive coil's sensitivity falls off smoothly.
    bias = np.exp(a * grid.z + b * grid.y + c * grid.x + d * grid.x**2)
    real, imaginary = rng.standard_normal((2, *grid.shape), dtype=np.float32) * rng.uniform(0.015, 0.03)
    # The magnitude of a complex signal with Gaussian noise in both parts: Rician noise.
    signal = np.hypot(blurred * bias + real, imaginary)
    return np.asarray(np.round(signal * (peak / float(signal.max()))), np.uint16)
