"""Pairs of masks, each a function of its number: what users have, and what breaks implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]


class Pair(NamedTuple):
    kind: str
    prediction: Mask
    reference: Mask
    spacing: tuple[float, float, float]
    tolerance: float

    @property
    def both_there(self) -> bool:
        return bool(self.prediction.any() and self.reference.any())


def ellipsoid(rng: np.random.Generator, shape: Shape) -> Mask:
    """Somewhere near the middle or cut off by the image's edge; at least one voxel."""
    center = [rng.uniform(0, length - 1) for length in shape]
    radii = [rng.uniform(0.3, 0.6) * length + 0.1 for length in shape]
    grid = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    mask = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, center, radii, strict=True)) <= 1
    mask[tuple(round(c) for c in center)] = True
    return np.asarray(mask)


def noise(rng: np.random.Generator, shape: Shape) -> Mask:
    return rng.random(shape) < rng.choice([0.05, 0.5, 0.95])


def box(rng: np.random.Generator, shape: Shape) -> Mask:
    mask = np.zeros(shape, bool)
    corners = [sorted(rng.integers(0, length, 2)) for length in shape]
    mask[tuple(slice(low, high + 1) for low, high in corners)] = True
    return mask


def line(rng: np.random.Generator, shape: Shape) -> Mask:
    """One voxel thin, along one axis."""
    mask = np.zeros(shape, bool)
    place: list[int | slice] = [int(rng.integers(length)) for length in shape]
    place[int(rng.integers(1, 3))] = slice(None)
    mask[tuple(place)] = True
    return mask


def hollow(rng: np.random.Generator, shape: Shape) -> Mask:
    """A block with a hole, some way from the image's edge or at it."""
    mask = np.zeros(shape, bool)
    margin = [int(rng.integers(0, max(1, length // 4) + 1)) if length > 2 else 0 for length in shape]
    mask[tuple(slice(m, length - m) for m, length in zip(margin, shape, strict=True))] = True
    hole = [m + 1 + int(rng.integers(0, 2)) if length > 2 else 0 for m, length in zip(margin, shape, strict=True)]
    mask[tuple(slice(h, max(length - h, h + 1)) for h, length in zip(hole, shape, strict=True))] = False
    return mask


def one_slice(rng: np.random.Generator, shape: Shape) -> Mask:
    """Nothing but the middle slice."""
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2] = ellipsoid(rng, (1, *shape[1:]))[0]
    return mask


def apart(rng: np.random.Generator, shape: Shape) -> tuple[Mask, Mask]:
    """Disjoint: in the two halves of the image's longest axis."""
    axis = int(np.argmax(shape))
    left = np.zeros(shape, bool)
    np.moveaxis(left, axis, 0)[: shape[axis] // 2] = True
    first, second = ellipsoid(rng, shape) & left, ellipsoid(rng, shape) & ~left
    first[0, 0, 0] = second[-1, -1, -1] = True
    return first & ~second, second


def the_same(rng: np.random.Generator, shape: Shape) -> tuple[Mask, Mask]:
    mask = ellipsoid(rng, shape) ^ noise(rng, shape)
    return mask, mask.copy()


def a_few_voxels_off(rng: np.random.Generator, shape: Shape) -> tuple[Mask, Mask]:
    mask = ellipsoid(rng, shape)
    return mask ^ (rng.random(shape) < 0.02), mask


def moved(rng: np.random.Generator, shape: Shape) -> tuple[Mask, Mask]:
    mask = box(rng, shape)
    return np.roll(mask, [int(rng.integers(-2, 3)) for _ in shape], axis=(0, 1, 2)), mask


def twice(draw: Callable[[np.random.Generator, Shape], Mask]) -> Callable[..., tuple[Mask, Mask]]:
    return lambda rng, shape: (draw(rng, shape), draw(rng, shape))


def nothing(*, prediction: bool, reference: bool) -> Callable[..., tuple[Mask, Mask]]:
    def draw(rng: np.random.Generator, shape: Shape) -> tuple[Mask, Mask]:
        first, second = ellipsoid(rng, shape), ellipsoid(rng, shape)
        return first & (not prediction), second & (not reference)

    return draw


KINDS: dict[str, Callable[[np.random.Generator, Shape], tuple[Mask, Mask]]] = {
    "ellipsoids": twice(ellipsoid),
    "noise": twice(noise),
    "boxes": twice(box),
    "lines": twice(line),
    "hollow": twice(hollow),
    "hollow and solid": lambda rng, shape: (hollow(rng, shape), ellipsoid(rng, shape)),
    "one slice of a volume": twice(one_slice),
    "line in noise": lambda rng, shape: (line(rng, shape), noise(rng, shape)),
    "all of the image": lambda rng, shape: (np.ones(shape, bool), ellipsoid(rng, shape)),
    "disjoint": apart,
    "identical": the_same,
    "nearly identical": a_few_voxels_off,
    "moved": moved,
    "no prediction": nothing(prediction=True, reference=False),
    "no reference": nothing(prediction=False, reference=True),
    "neither": nothing(prediction=True, reference=True),
}


def pair(number: int) -> Pair:
    """The same pair for the same number; half of them are 2D, one in six is tiny."""
    rng = np.random.default_rng((number, 5))
    kind = list(KINDS)[number % len(KINDS)]
    size = number // len(KINDS) % 6
    most = {0: (1, 24, 17), 1: (1, 13, 31), 2: (1, 3, 3)}.get(size, (7, 11, 9))
    shape = (
        1 if most[0] == 1 else int(rng.integers(2, most[0] + 1)),
        int(rng.integers(1, most[1] + 1)),
        int(rng.integers(1, most[2] + 1)),
    )
    prediction, reference = KINDS[kind](rng, shape)
    z, y, x = rng.uniform(0.3, 4.0, 3).tolist()
    if number % 5:
        # No two distances are the same number by chance, nor is one the tolerance.
        return Pair(kind, prediction, reference, (z, y, x), float(rng.uniform(0.1, 5.0)))
    # Whole numbers, of which squares, sums and the roots of squares are exact: the tolerance is hit, and counts.
    whole = (float(rng.integers(1, 4)), float(rng.integers(1, 3)), 1.0)
    return Pair(kind, prediction, reference, whole, float(rng.integers(0, 4)))
