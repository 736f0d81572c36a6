"""Synthetic abdominal MRI: volumes to try every command on, without a patient in them.

Lengths are in *body units*: 1 is about half the width of a trunk (some 15 cm). Axes are `(z, y, x)`: z points to
the head, y to the back, x to the patient's left, so that the liver is on the left of the picture. The trunk always
fills the picture and the organs always fill the stack, whatever the shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ORGANS = ("large_bowel", "small_bowel", "stomach")
PEAKS = (700.0, 12000.0)
"""The range of the brightest voxel over patients, as wide as in real scans of this kind."""

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Seed = int | Sequence[int]

_OUTSIDE = 9.0
_STACK = (-0.72, 0.78)
_STEP = 0.03  # from point to point of a path
_OPERATED = 0.125  # share of patients without the right half of the large bowel


class Phantom(NamedTuple):
    """One synthetic volume.

    Args:
        image: Intensities, `(D, H, W)`; slice 0 is nearest the feet.
        masks: One mask per name in `ORGANS`, `(3, D, H, W)`; they can overlap by a rim of voxels.
    """

    image: NDArray[np.uint16]
    masks: Bools


@dataclass(frozen=True)
class Look:
    """How the inside of an organ appears, in the intensities of a scan whose fat is about 0.8.

    Args:
        content: Mean of the content.
        mottle: Spread of its blotches.
        grain: Spread of its speckle.
        folds: Depth of the stripes across a tube.
        fold_length: Distance from stripe to stripe.
        wall: Thickness of the dark wall.
        gas: Where the gas ends, in radii behind the middle of the lumen: 0 is half gas, below -1 is none.
    """

    content: float
    mottle: float
    grain: float
    folds: float
    fold_length: float
    wall: float
    gas: float


@dataclass(frozen=True)
class Tube:
    """A hollow organ: balls along a path, `points` `(N, 3)` with `radii` `(N,)`."""

    points: NDArray[np.float64]
    radii: NDArray[np.float64]


@dataclass(frozen=True)
class Ellipsoid:
    """A solid structure with one mean intensity, turned by `angle` radians in the slice."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    value: float
    angle: float = 0.0


@dataclass(frozen=True)
class Patient:
    """Everything about a scan but its texture and noise, in body units.

    Args:
        trunk: Half height and half width of the body in a slice.
        rim: Thickness of the fat under the skin, and of the muscle below it.
        tilt: Rotation in the slice, radians.
        offset: Shift `(z, y, x)` of the whole body.
        solids: What is no label: liver, spleen, kidneys, spine, muscles, vessels; painted in this order.
        tubes: The organs, as in `ORGANS`.
        looks: The appearance of each organ.
        peak: The brightest voxel.
        overlap: How deep two masks may share voxels.
    """

    trunk: tuple[float, float]
    rim: tuple[float, float]
    tilt: float
    offset: tuple[float, float, float]
    solids: tuple[Ellipsoid, ...]
    tubes: tuple[Tube, ...]
    looks: tuple[Look, ...]
    peak: float
    overlap: float


@dataclass(frozen=True)
class Grid:
    """Voxel positions of one scan in body units, each `(D, H, W)`, and the way back to voxel indices."""

    z: Floats
    y: Floats
    x: Floats
    steps: tuple[float, float, float]
    tilt: float
    origin: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(D, H, W)`."""
        depth, height, width = self.z.shape
        return depth, height, width

    def index_of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractional voxel indices of `points` `(N, 3)`."""
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        z, y, x = points.T
        turned = np.stack([z, cosine * y + sine * x, cosine * x - sine * y], axis=1)
        indices: NDArray[np.float64] = turned / np.array(self.steps) + np.array(self.origin)
        return indices


@dataclass(frozen=True)
class Texture:
    """Noise of unit spread, `(D, H, W)`: `grain` is fine, `mottle` coarse."""

    grain: Floats
    mottle: Floats


@dataclass(frozen=True)
class Sweep:
    """A tube on the grid.

    Args:
        depth: Signed distance to the surface, `(D, H, W)`, negative inside; large where the tube is far.
        nearest: Number of the nearest point of the path.
    """

    depth: Floats
    nearest: NDArray[np.int32]


def abdomen(rng: np.random.Generator, shape: tuple[int, int, int] = (24, 96, 112)) -> Phantom:
    """One scan of a new patient.

    >>> scan = abdomen(np.random.default_rng(0), shape=(8, 48, 56))
    >>> scan.image.dtype, scan.masks.shape
    (dtype('uint16'), (3, 8, 48, 56))
    """
    return scan_on_a_day(draw_patient(rng), rng, shape)


def patient_days(patient_seed: Seed, day_seeds: Sequence[Seed], shape: tuple[int, int, int]) -> Iterator[Phantom]:
    """The scans of one patient on several days: one anatomy, with other fillings, bends and noise each day."""
    patient = draw_patient(np.random.default_rng(patient_seed))
    for seed in day_seeds:
        yield scan_on_a_day(patient, np.random.default_rng(seed), shape)


def exclusive(masks: Bools) -> NDArray[np.uint8]:
    """Masks `(K, ...)` as one label map `(...)` of 0 to K: where they overlap, the later one wins.

    >>> exclusive(np.array([[True, True, False], [False, True, False]])).tolist()
    [1, 2, 0]
    """
    labels = np.zeros(masks.shape[1:], np.uint8)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels


def draw_patient(rng: np.random.Generator) -> Patient:
    """An anatomy at random."""
    stature = rng.uniform(0.9, 1.04)
    low, high = np.log(PEAKS)
    return Patient(
        trunk=(stature * rng.uniform(0.71, 0.81), stature),
        rim=(rng.uniform(0.05, 0.13), rng.uniform(0.045, 0.07)),
        tilt=rng.normal(0, 0.05),
        offset=(rng.normal(0, 0.04), rng.normal(0, 0.02), rng.normal(0, 0.02)),
        solids=tuple(_jittered(solid, rng) for solid in _solids()),
        tubes=(_large_bowel(rng), _small_bowel(rng), _stomach(rng)),
        looks=_looks(rng),
        peak=float(np.exp(rng.uniform(low, high))),
        overlap=float(rng.choice([0.0, 0.03, 0.05])),
    )


def scan_on_a_day(patient: Patient, rng: np.random.Generator, shape: tuple[int, int, int]) -> Phantom:
    """The patient as one scan shows them: organs moved and filled differently, then texture, bias and noise."""
    today = _another_day(patient, rng)
    grid = _grid(today, shape)
    texture = Texture(_noise(rng, grid, 0.012), _noise(rng, grid, 0.045))
    body, wall, cavity = _trunk(today, grid)
    tissue = _background(today.solids, grid, (body, wall, cavity), texture)
    sweeps = [_sweep(grid, tube, texture) for tube in today.tubes]
    masks = np.stack([(sweep.depth < 0) & cavity for sweep in sweeps])
    for mask, tube, look, sweep in zip(masks, today.tubes, today.looks, sweeps, strict=True):
        np.copyto(tissue, _interior(rng, grid, tube, look, sweep, texture), where=mask)
    image = _acquire(rng, grid, tissue, today.peak)
    return Phantom(image, _separated(masks, sweeps, today.overlap))


def _another_day(patient: Patient, rng: np.random.Generator) -> Patient:
    """Moderate changes: filling, position of each organ, gas, position on the table and receiver gain."""
    tubes = tuple(_moved(tube, rng) for tube in patient.tubes)
    z, y, x = np.array(patient.offset) + rng.normal(0, 0.01, 3)
    return replace(
        patient,
        tubes=tubes,
        looks=tuple(replace(look, gas=look.gas + rng.normal(0, 0.2)) for look in patient.looks),
        tilt=patient.tilt + rng.normal(0, 0.015),
        offset=(z, y, x),
        peak=float(np.clip(patient.peak * rng.uniform(0.85, 1.15), *PEAKS)),
    )


def _moved(tube: Tube, rng: np.random.Generator) -> Tube:
    """The organ on another day: shifted, bent a little along its length, fuller or emptier."""
    bend = np.stack([_wave(rng, len(tube.radii)) for _ in range(3)], axis=1)
    points = tube.points + rng.normal(0, 0.012, 3) + 0.015 * bend
    return Tube(points, tube.radii * rng.uniform(0.92, 1.08))


def _solids() -> tuple[Ellipsoid, ...]:
    """Structures that are no label but could be taken for one. Later ones cover earlier ones."""
    return (
        Ellipsoid((0.52, -0.02, -0.40), (0.42, 0.44, 0.46), 0.44, 0.3),  # liver
        Ellipsoid((0.55, 0.22, 0.66), (0.30, 0.24, 0.15), 0.50, 0.4),  # spleen
        Ellipsoid((0.08, 0.28, -0.42), (0.30, 0.16, 0.13), 0.56, -0.4),  # right kidney
        Ellipsoid((0.16, 0.28, 0.42), (0.30, 0.16, 0.13), 0.56, 0.4),  # left kidney
        Ellipsoid((0.06, 0.28, -0.43), (0.14, 0.07, 0.05), 0.80, -0.4),  # its pelvis
        Ellipsoid((0.16, 0.28, 0.43), (0.14, 0.07, 0.05), 0.80, 0.4),
        Ellipsoid((-0.6, 0.30, -0.24), (0.75, 0.13, 0.10), 0.24),  # psoas
        Ellipsoid((-0.6, 0.30, 0.24), (0.75, 0.13, 0.10), 0.24),
        Ellipsoid((0.0, 0.54, -0.22), (3.0, 0.12, 0.19), 0.23, -0.1),  # back muscles
        Ellipsoid((0.0, 0.54, 0.22), (3.0, 0.12, 0.19), 0.23, 0.1),
        Ellipsoid((0.0, 0.31, 0.0), (3.0, 0.125, 0.16), 0.40),  # vertebrae
        Ellipsoid((0.0, 0.47, 0.0), (3.0, 0.06, 0.075), 0.12),  # canal, with its bright fluid
        Ellipsoid((0.0, 0.47, 0.0), (3.0, 0.04, 0.055), 0.85),
        Ellipsoid((0.0, 0.14, 0.05), (3.0, 0.05, 0.05), 0.78),  # aorta
        Ellipsoid((0.0, 0.15, -0.09), (3.0, 0.045, 0.065), 0.70),  # vena cava
    )


def _jittered(solid: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    """The structure a little elsewhere, larger or smaller, darker or brighter."""
    z, y, x = np.array(solid.centre) + rng.normal(0, 0.012, 3) * (3.0, 1.0, 1.0)
    tall, high, wide = np.array(solid.radii) * rng.uniform(0.9, 1.1, 3)
    return Ellipsoid((z, y, x), (tall, high, wide), solid.value * rng.uniform(0.92, 1.08), solid.angle)


def _looks(rng: np.random.Generator) -> tuple[Look, ...]:
    """Large bowel: speckled, often gas. Small bowel: bright and striped. Stomach: blotchy, a gas bubble in front."""
    bright = rng.uniform(0.93, 1.07, 3)
    gas = rng.normal((-0.35, -1.6, -0.45), 0.25)
    return (
        Look(0.46 * bright[0], 0.05, 0.12, 0.0, 1.0, 0.022, gas[0]),
        Look(0.66 * bright[1], 0.04, 0.03, 0.10, 0.07, 0.018, gas[1]),
        Look(0.52 * bright[2], 0.10, 0.03, 0.0, 1.0, 0.03, gas[2]),
    )


def _large_bowel(rng: np.random.Generator) -> Tube:
    """The frame: up on the right, across in front, down on the left and in; some have lost the right part."""
    path = np.array(
        [
            (-0.62, 0.04, -0.56),
            (-0.30, 0.10, -0.62),
            (0.02, 0.04, -0.62),
            (0.10, -0.24, -0.46),
            (0.04, -0.40, -0.16),
            (0.06, -0.40, 0.14),
            (0.20, -0.26, 0.46),
            (0.34, 0.02, 0.66),
            (0.02, 0.12, 0.66),
            (-0.35, 0.12, 0.62),
            (-0.62, 0.06, 0.52),
            (-0.72, 0.10, 0.20),
        ]
    )
    path[:, 0] += rng.normal(0, 0.04)
    tube = _along(path + rng.normal(0, 0.02, path.shape), rng.uniform(0.105, 0.135), rng)
    first = len(tube.radii) // 3 if rng.uniform() < _OPERATED else 0
    haustra = 1 + 0.13 * np.sin(np.arange(len(tube.radii)) * rng.uniform(0.75, 0.95))
    return Tube(tube.points[first:], (tube.radii * haustra)[first:])


def _small_bowel(rng: np.random.Generator) -> Tube:
    """Loops in the middle of the frame: a Lissajous path that climbs slowly."""
    time = np.linspace(0, 1, 340)
    turns = rng.uniform((6.5, 8.5, 3.5), (8.0, 10.0, 5.0))
    y, x, wave = np.sin(2 * np.pi * (turns[:, None] * time + rng.uniform(0, 1, (3, 1))))
    size = rng.uniform(0.9, 1.1)
    narrowing = 1 - 0.35 * time
    path = np.stack([-0.62 + 0.60 * time + 0.05 * wave, -0.14 + 0.22 * size * y, 0.38 * size * narrowing * x], axis=1)
    path += ndimage.gaussian_filter1d(rng.normal(0, 0.10, path.shape), 8, axis=0)
    return Tube(path, np.full(len(path), rng.uniform(0.085, 0.105)))


def _stomach(rng: np.random.Generator) -> Tube:
    """A bent bag under the left dome: wide at the top, narrow where it crosses the middle."""
    path = np.array(
        [(0.70, 0.12, 0.36), (0.52, 0.02, 0.42), (0.36, -0.14, 0.40), (0.26, -0.24, 0.24), (0.26, -0.2, 0.0)]
    )
    tube = _along(path + rng.normal(0, 0.025, path.shape), 1.0, rng)
    widths = np.interp(np.linspace(0, 1, len(tube.radii)), [0, 0.3, 0.7, 1], [0.20, 0.25, 0.19, 0.11])
    return Tube(tube.points, widths * rng.uniform(0.88, 1.12))


def _along(path: NDArray[np.float64], radius: float, rng: np.random.Generator) -> Tube:
    """A smooth tube through the corners of `path`, with a slowly varying width."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    places = np.arange(0, reached[-1], _STEP)
    points = np.stack([np.interp(places, reached, axis) for axis in path.T], axis=1)
    width = 1 + 0.08 * _wave(rng, len(places))
    return Tube(ndimage.gaussian_filter1d(points, 3, axis=0, mode="nearest"), radius * width)


def _wave(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A slow random function of unit spread along a tube."""
    wave = ndimage.gaussian_filter1d(rng.standard_normal(count), 8, mode="reflect")
    normalised: NDArray[np.float64] = wave / 0.19  # the spread that this filter leaves of white noise
    return normalised


def _grid(patient: Patient, shape: tuple[int, int, int]) -> Grid:
    """Positions of the voxels, gently warped so that no outline is a perfect ellipse."""
    depth, height, width = shape
    step = max(2.26 / width, 1.72 / height)
    steps = ((_STACK[1] - _STACK[0]) / depth, step, step)
    middle = (-_STACK[0] / steps[0] - 0.5, (height - 1) / 2, (width - 1) / 2)
    origin = np.array(middle) + np.array(patient.offset) / np.array(steps)
    z, v, u = ((np.arange(n, dtype=np.float32) - o) * s for n, o, s in zip(shape, origin, steps, strict=True))
    z, v, u = z[:, None, None], v[None, :, None], u[None, None, :]
    cosine, sine = np.cos(patient.tilt), np.sin(patient.tilt)
    y, x = cosine * v - sine * u, cosine * u + sine * v
    y, x = y + 0.015 * np.sin(6 * x + 4 * z), x + 0.015 * np.sin(7 * y - 3 * z)
    z, y, x = (np.asarray(axis, np.float32) for axis in np.broadcast_arrays(z, y, x))
    return Grid(z, y, x, steps, patient.tilt, (origin[0], origin[1], origin[2]))


def _noise(rng: np.random.Generator, grid: Grid, scale: float) -> Floats:
    """Smooth noise of unit spread, with blobs of about `scale` body units."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, [scale / step for step in grid.steps], mode="reflect", truncate=3.0)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


def _radius(grid: Grid, solid: Ellipsoid) -> Floats:
    """Below 1 inside of `solid`; the squared distance from its centre in units of its radii."""
    (z, y, x), (tall, high, wide) = solid.centre, solid.radii
    cosine, sine = np.float32(np.cos(solid.angle)), np.float32(np.sin(solid.angle))
    dy, dx = grid.y - np.float32(y), grid.x - np.float32(x)
    v, u = cosine * dy - sine * dx, cosine * dx + sine * dy
    return np.asarray(((grid.z - z) / tall) ** 2 + (v / high) ** 2 + (u / wide) ** 2, np.float32)


def _trunk(patient: Patient, grid: Grid) -> tuple[Bools, Bools, Bools]:
    """The body, what lies within its fat, and the cavity within its muscle."""
    high, wide = patient.trunk
    fat, muscle = patient.rim
    body, wall, cavity = (
        _radius(grid, Ellipsoid((0.0, 0.0, 0.0), (4.0, high - inset, wide - inset), 0.0)) < 1
        for inset in (0.0, fat, fat + muscle)
    )
    return body, wall, cavity


def _background(solids: Sequence[Ellipsoid], grid: Grid, trunk: tuple[Bools, Bools, Bools], texture: Texture) -> Floats:
    """Everything but the organs: fat, muscle wall, mesentery and the solid structures."""
    body, wall, cavity = trunk
    strands = np.exp(-((texture.mottle / 0.22) ** 2))  # where noise crosses zero it draws thin lines, like vessels
    tissue = np.where(body, np.float32(0.82), np.float32(0.0))
    np.copyto(tissue, 0.25, where=wall)
    np.copyto(tissue, 0.68 + 0.05 * texture.mottle - 0.22 * strands, where=cavity)
    for solid in solids:
        inside = (_radius(grid, solid) < 1) & wall
        tissue[inside] = solid.value * (1 + 0.05 * texture.mottle[inside] + 0.15 * strands[inside])
    return tissue


def _sweep(grid: Grid, tube: Tube, texture: Texture) -> Sweep:
    """Draw a tube ball by ball, visiting the box around each, with a slightly rough surface."""
    depth = np.full(grid.shape, _OUTSIDE, np.float32)
    nearest = np.zeros(grid.shape, np.int32)
    for number, (centre, radius) in enumerate(zip(grid.index_of(tube.points), tube.radii, strict=True)):
        box, distance = _ball(grid, centre, float(radius))
        closer = distance < depth[box]
        depth[box][closer] = distance[closer]
        nearest[box][closer] = number
    return Sweep(depth + np.float32(0.008) * texture.mottle, nearest)


def _ball(grid: Grid, centre: NDArray[np.float64], radius: float) -> tuple[tuple[slice, ...], Floats]:
    """The box of voxels that a ball and a small margin touch, and their signed distance to its surface."""
    reach = (radius + 0.05) / np.array(grid.steps)
    lows = np.clip(np.ceil(centre - reach), 0, grid.shape).astype(int)
    highs = np.clip(np.floor(centre + reach) + 1, lows, grid.shape).astype(int)
    z, y, x = (
        ((np.arange(low, high, dtype=np.float32) - c) * s) ** 2
        for low, high, c, s in zip(lows, highs, centre, grid.steps, strict=True)
    )
    distance = np.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :]) - radius
    box = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
    return box, np.asarray(distance, np.float32)


def _interior(rng: np.random.Generator, grid: Grid, tube: Tube, look: Look, sweep: Sweep, texture: Texture) -> Floats:
    """Intensities of wall, content and the gas that rises to the front of the lumen (the patient lies on the back)."""
    count = len(tube.radii)
    stripes = look.folds * np.sin(2 * np.pi * _STEP * np.arange(count) / look.fold_length)
    content = look.content * (1 + 0.08 * _wave(rng, count)) + stripes
    level = tube.points[:, 1] + tube.radii * (look.gas + 0.5 * _wave(rng, count))
    value = content.astype(np.float32)[sweep.nearest] + look.mottle * texture.mottle + look.grain * texture.grain
    value[grid.y < level.astype(np.float32)[sweep.nearest]] = 0.08
    value[sweep.depth > -look.wall] = 0.22
    return np.asarray(value, np.float32)


def _separated(masks: Bools, sweeps: Sequence[Sweep], overlap: float) -> Bools:
    """Masks that share no more than a rim: an organ ends where another, painted later, is `overlap` deep."""
    for organ in range(len(masks)):
        for later in range(organ + 1, len(masks)):
            masks[organ] &= ~(masks[later] & (sweeps[later].depth < -overlap))
    return masks


def _acquire(rng: np.random.Generator, grid: Grid, tissue: Floats, peak: float) -> NDArray[np.uint16]:
    """What the scanner makes of the tissue: blur, receive bias, Rician noise, arbitrary scale."""
    blurred = ndimage.gaussian_filter(tissue, (0.0, 0.55, 0.55))
    a, b, c, d = rng.normal(0, (0.10, 0.12, 0.12, 0.10))
    bias = np.exp(float(a) * grid.z + float(b) * grid.y + float(c) * grid.x + float(d) * grid.x**2)
    real, imaginary = rng.standard_normal((2, *grid.shape), dtype=np.float32) * rng.uniform(0.015, 0.03)
    signal = np.hypot(blurred * bias + real, imaginary)
    return np.asarray(np.round(signal * (peak / float(signal.max()))), np.uint16)
