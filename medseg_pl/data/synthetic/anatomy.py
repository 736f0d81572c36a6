"""Random anatomies, and how they differ from day to day."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

STEP = 0.03
"""From point to point of a path that `make_tube` made."""


@dataclass(frozen=True)
class Tube:
    """A hollow organ: balls along a path, in body units."""

    points: Float64[np.ndarray, "n 3"]
    radii: Float64[np.ndarray, "n"]


@dataclass(frozen=True)
class Ellipsoid:
    """A solid structure of one mean intensity.

    It is turned by `angle` radians in the slice. Lengths along `(z, y, x)` are in body units.
    """

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    value: float
    angle: float = 0.0


def make_tube(corners: Float64[np.ndarray, "n 3"], radius: float, rng: np.random.Generator) -> Tube:
    """Make a smooth tube with a slowly varying width.

    Args:
        corners: `(n, 3)` points `(z, y, x)` of its path, in body units.
        radius: Its mean radius.
        rng: Draws the width.
    """
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


ORGANS = ("large_bowel", "small_bowel", "stomach")

_OPERATED = 0.125  # share of patients without the right half of the large bowel
_FRAME = (
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
)
_BAG = ((0.70, 0.12, 0.36), (0.52, 0.02, 0.42), (0.36, -0.14, 0.40), (0.26, -0.24, 0.24), (0.26, -0.20, 0.0))


@dataclass(frozen=True)
class Look:
    """Appearance of an organ's inside; fat has an intensity of 0.8.

    Args:
        content: Mean of the content.
        mottle: Spread of its blotches.
        grain: Spread of its speckle.
        wall: Thickness of the dark wall.
        gas: Where the gas ends, in radii behind the middle of the lumen: 0 is half gas, below -1 is none.
        folds: Depth of the stripes across a tube.
        fold_length: Distance from stripe to stripe.
    """

    content: float
    mottle: float
    grain: float
    wall: float
    gas: float
    folds: float = 0.0
    fold_length: float = 1.0


@dataclass(frozen=True)
class Organ:
    """A hollow organ and what fills it."""

    tube: Tube
    look: Look


def draw_organs(rng: np.random.Generator) -> tuple[Organ, ...]:
    """Draw the organs at random, in the order of `ORGANS`."""
    tubes = (_draw_large_bowel(rng), _draw_small_bowel(rng), _draw_stomach(rng))
    return tuple(map(Organ, tubes, _draw_looks(rng)))


def move_tube(tube: Tube, rng: np.random.Generator) -> Tube:
    """Move, bend and fill a tube as on another day."""
    bend = np.stack([draw_wave(rng, len(tube.radii)) for _ in range(3)], axis=1)
    points = tube.points + rng.normal(0, 0.012, 3) + 0.015 * bend
    return Tube(points, tube.radii * rng.uniform(0.92, 1.08))


def _draw_large_bowel(rng: np.random.Generator) -> Tube:
    """Draw the frame of the abdomen; some patients lack its right part."""
    corners = np.array(_FRAME)
    # The whole frame lies higher in some patients.
    corners[:, 0] += rng.normal(0, 0.04)
    tube = make_tube(corners + rng.normal(0, 0.02, corners.shape), rng.uniform(0.105, 0.135), rng)
    first = len(tube.radii) // 3 if rng.uniform() < _OPERATED else 0
    # The pouches along the large bowel.
    haustra = 1 + 0.13 * np.sin(np.arange(len(tube.radii)) * rng.uniform(0.75, 0.95))
    return Tube(tube.points[first:], (tube.radii * haustra)[first:])


def _draw_small_bowel(rng: np.random.Generator) -> Tube:
    """Draw loops inside the frame: a slowly climbing Lissajous path."""
    time = np.linspace(0, 1, 340)
    turns = rng.uniform((6.5, 8.5, 3.5), (8.0, 10.0, 5.0))
    y, x, z = np.sin(2 * np.pi * (turns[:, None] * time + rng.uniform(0, 1, (3, 1))))
    size = rng.uniform(0.9, 1.1)
    narrowing = 1 - 0.35 * time
    path = np.stack([-0.62 + 0.60 * time + 0.05 * z, -0.14 + 0.22 * size * y, 0.38 * size * narrowing * x], axis=1)
    # No two loops are alike.
    path += ndimage.gaussian_filter1d(rng.normal(0, 0.10, path.shape), 8, axis=0)
    return Tube(path, np.full(len(path), rng.uniform(0.085, 0.105)))


def _draw_stomach(rng: np.random.Generator) -> Tube:
    """Draw a bent bag under the left dome, narrow in the middle."""
    corners = np.array(_BAG)
    tube = make_tube(corners + rng.normal(0, 0.025, corners.shape), 1.0, rng)
    widths = np.interp(np.linspace(0, 1, len(tube.radii)), [0, 0.3, 0.7, 1], [0.20, 0.25, 0.19, 0.11])
    return Tube(tube.points, widths * rng.uniform(0.88, 1.12))


def _draw_looks(rng: np.random.Generator) -> tuple[Look, Look, Look]:
    """Draw how each organ's inside appears.

    The large bowel is speckled, often with gas; the small bowel is bright and striped; the stomach is blotchy, with a
    gas bubble in front.
    """
    large, small, stomach = rng.uniform(0.93, 1.07, 3) * (0.46, 0.66, 0.52)
    gas = rng.normal((-0.35, -1.6, -0.45), 0.25)
    return (
        Look(large, mottle=0.05, grain=0.12, wall=0.022, gas=gas[0]),
        Look(small, mottle=0.04, grain=0.03, wall=0.018, gas=gas[1], folds=0.10, fold_length=0.07),
        Look(stomach, mottle=0.10, grain=0.03, wall=0.03, gas=gas[2]),
    )


PEAKS = (700.0, 12000.0)
"""The range of the brightest voxel over patients, as wide as in real scans of this kind."""

# No label, but could be taken for one. Later ones cover earlier ones.
_SOLIDS = (
    Ellipsoid((0.52, -0.02, -0.40), (0.42, 0.44, 0.46), 0.44, 0.3),  # liver
    Ellipsoid((0.55, 0.22, 0.66), (0.30, 0.24, 0.15), 0.50, 0.4),  # spleen
    Ellipsoid((0.08, 0.28, -0.42), (0.30, 0.16, 0.13), 0.56, -0.4),  # right kidney
    Ellipsoid((0.16, 0.28, 0.42), (0.30, 0.16, 0.13), 0.56, 0.4),  # left kidney
    Ellipsoid((0.06, 0.28, -0.43), (0.14, 0.07, 0.05), 0.80, -0.4),  # their pelves
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


@dataclass(frozen=True)
class Patient:
    """Everything about a scan but its texture and noise, in body units.

    Args:
        trunk: Half height and half width of the body in a slice.
        rim: Thickness of the fat under the skin, and of the muscle below it.
        tilt: Rotation in the slice, radians.
        offset: Shift `(z, y, x)` of the whole body.
        solids: Structures without a label: liver, spleen, kidneys, spine, muscles, vessels; painted in this order.
        organs: Structures with a label, in the order of `ORGANS`.
        peak: The brightest voxel.
        overlap: How deep two masks may share voxels.
    """

    trunk: tuple[float, float]
    rim: tuple[float, float]
    tilt: float
    offset: tuple[float, float, float]
    solids: tuple[Ellipsoid, ...]
    organs: tuple[Organ, ...]
    peak: float
    overlap: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw an anatomy at random."""
    stature = rng.uniform(0.9, 1.04)
    low, high = np.log(PEAKS)
    return Patient(
        trunk=(stature * rng.uniform(0.71, 0.81), stature),
        rim=(rng.uniform(0.05, 0.13), rng.uniform(0.045, 0.07)),
        tilt=rng.normal(0, 0.05),
        offset=(rng.normal(0, 0.04), rng.normal(0, 0.02), rng.normal(0, 0.02)),
        solids=tuple(_jitter(solid, rng) for solid in _SOLIDS),
        organs=draw_organs(rng),
        peak=float(np.exp(rng.uniform(low, high))),
        overlap=float(rng.choice([0.0, 0.03, 0.05])),
    )


def draw_another_day(patient: Patient, rng: np.random.Generator) -> Patient:
    """Change filling, positions, gas and gain moderately."""
    tubes = [move_tube(organ.tube, rng) for organ in patient.organs]
    z, y, x = np.array(patient.offset) + rng.normal(0, 0.01, 3)
    looks = [replace(organ.look, gas=organ.look.gas + rng.normal(0, 0.2)) for organ in patient.organs]
    return replace(
        patient,
        tilt=patient.tilt + rng.normal(0, 0.015),
        offset=(z, y, x),
        organs=tuple(map(Organ, tubes, looks)),
        peak=float(np.clip(patient.peak * rng.uniform(0.85, 1.15), *PEAKS)),
    )


def _jitter(solid: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    """Move, scale and brighten a structure a little."""
    z, y, x = np.array(solid.center) + rng.normal(0, 0.012, 3) * (3.0, 1.0, 1.0)
    tall, high, wide = np.array(solid.radii) * rng.uniform(0.9, 1.1, 3)
    return Ellipsoid((z, y, x), (tall, high, wide), solid.value * rng.uniform(0.92, 1.08), solid.angle)
