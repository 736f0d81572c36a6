"""The three organs that are labeled: where they run, and how their inside appears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg_pl.data.synthetic.shapes import Tube, tube_along, wave

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
    """How the inside of an organ appears, in the intensities of a scan whose fat is about 0.8.

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
    """The organs at random, in the order of `ORGANS`."""
    tubes = (_large_bowel(rng), _small_bowel(rng), _stomach(rng))
    return tuple(map(Organ, tubes, _looks(rng)))


def moved(tube: Tube, rng: np.random.Generator) -> Tube:
    """The tube on another day: shifted, bent a little along its length, fuller or emptier."""
    bend = np.stack([wave(rng, len(tube.radii)) for _ in range(3)], axis=1)
    points = tube.points + rng.normal(0, 0.012, 3) + 0.015 * bend
    return Tube(points, tube.radii * rng.uniform(0.92, 1.08))


def _large_bowel(rng: np.random.Generator) -> Tube:
    """The frame: up on the right, across in front, down on the left and in; some have lost the right part."""
    corners = np.array(_FRAME)
    corners[:, 0] += rng.normal(0, 0.04)
    tube = tube_along(corners + rng.normal(0, 0.02, corners.shape), rng.uniform(0.105, 0.135), rng)
    first = len(tube.radii) // 3 if rng.uniform() < _OPERATED else 0
    haustra = 1 + 0.13 * np.sin(np.arange(len(tube.radii)) * rng.uniform(0.75, 0.95))
    return Tube(tube.points[first:], (tube.radii * haustra)[first:])


def _small_bowel(rng: np.random.Generator) -> Tube:
    """Loops in the middle of the frame: a Lissajous path that climbs slowly."""
    time = np.linspace(0, 1, 340)
    turns = rng.uniform((6.5, 8.5, 3.5), (8.0, 10.0, 5.0))
    y, x, z = np.sin(2 * np.pi * (turns[:, None] * time + rng.uniform(0, 1, (3, 1))))
    size = rng.uniform(0.9, 1.1)
    narrowing = 1 - 0.35 * time
    path = np.stack([-0.62 + 0.60 * time + 0.05 * z, -0.14 + 0.22 * size * y, 0.38 * size * narrowing * x], axis=1)
    path += ndimage.gaussian_filter1d(rng.normal(0, 0.10, path.shape), 8, axis=0)
    return Tube(path, np.full(len(path), rng.uniform(0.085, 0.105)))


def _stomach(rng: np.random.Generator) -> Tube:
    """A bent bag under the left dome: wide at the top, narrow where it crosses the middle."""
    corners = np.array(_BAG)
    tube = tube_along(corners + rng.normal(0, 0.025, corners.shape), 1.0, rng)
    widths = np.interp(np.linspace(0, 1, len(tube.radii)), [0, 0.3, 0.7, 1], [0.20, 0.25, 0.19, 0.11])
    return Tube(tube.points, widths * rng.uniform(0.88, 1.12))


def _looks(rng: np.random.Generator) -> tuple[Look, Look, Look]:
    """Large bowel: speckled, often gas. Small bowel: bright and striped. Stomach: blotchy, a gas bubble in front."""
    large, small, stomach = rng.uniform(0.93, 1.07, 3) * (0.46, 0.66, 0.52)
    gas = rng.normal((-0.35, -1.6, -0.45), 0.25)
    return (
        Look(large, mottle=0.05, grain=0.12, wall=0.022, gas=gas[0]),
        Look(small, mottle=0.04, grain=0.03, wall=0.018, gas=gas[1], folds=0.10, fold_length=0.07),
        Look(stomach, mottle=0.10, grain=0.03, wall=0.03, gas=gas[2]),
    )
