"""Pairs of masks with objects, each a function of its number: apart, touching, split, merged, missing, in noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]
Masks = tuple[Mask, Mask]


class Pair(NamedTuple):
    kind: str
    prediction: Mask
    reference: Mask
    spacing: tuple[float, float, float]


def boxes(rng: np.random.Generator, shape: Shape, total: int) -> Mask:
    """Blocks at random places, which may touch or overlap."""
    mask = np.zeros(shape, bool)
    for _ in range(total):
        corner = [int(rng.integers(0, length)) for length in shape]
        mask[tuple(slice(start, start + int(rng.integers(1, 4))) for start in corner)] = True
    return mask


def apart(rng: np.random.Generator, shape: Shape) -> Masks:
    return boxes(rng, shape, 3), boxes(rng, shape, 3)


def crowded(rng: np.random.Generator, shape: Shape) -> Masks:
    return boxes(rng, shape, 6), boxes(rng, shape, 6)


def moved(rng: np.random.Generator, shape: Shape) -> Masks:
    mask = boxes(rng, shape, 4)
    return np.roll(mask, [int(rng.integers(-1, 2)) for _ in shape], axis=(0, 1, 2)), mask


def split(rng: np.random.Generator, shape: Shape) -> Masks:
    """One object of the reference is several of the prediction."""
    mask = boxes(rng, shape, 3)
    cut = mask.copy()
    cut[:, :, int(rng.integers(0, shape[2])) :: 3] = False
    return cut, mask


def merged(rng: np.random.Generator, shape: Shape) -> Masks:
    return split(rng, shape)[::-1]


def noise(rng: np.random.Generator, shape: Shape) -> Masks:
    share = rng.choice([0.1, 0.25])
    return rng.random(shape) < share, rng.random(shape) < share


def corners(rng: np.random.Generator, shape: Shape) -> Masks:
    """Voxels that touch at corners only."""
    board = np.indices(shape).sum(axis=0) % 2 == 0
    return board & (rng.random(shape) < 0.3), board & (rng.random(shape) < 0.3)


def nothing(which: tuple[bool, bool]) -> Callable[[np.random.Generator, Shape], Masks]:
    def draw(rng: np.random.Generator, shape: Shape) -> Masks:
        return boxes(rng, shape, 3) & which[0], boxes(rng, shape, 3) & which[1]

    return draw


KINDS: dict[str, Callable[[np.random.Generator, Shape], Masks]] = {
    "apart": apart,
    "crowded": crowded,
    "moved": moved,
    "split": split,
    "merged": merged,
    "noise": noise,
    "corners": corners,
    "no prediction": nothing((False, True)),
    "no reference": nothing((True, False)),
    "neither": nothing((False, False)),
}


def pair(number: int) -> Pair:
    """The same pair for the same number; half of them are 2D."""
    rng = np.random.default_rng((number, 21))
    kind = list(KINDS)[number % len(KINDS)]
    flat = number // len(KINDS) % 2 == 0
    high = 12 if flat else 6
    shape = (1 if flat else int(rng.integers(2, 6)), int(rng.integers(2, high)), int(rng.integers(2, high)))
    prediction, reference = KINDS[kind](rng, shape)
    z, y, x = rng.uniform(0.3, 4.0, 3).tolist()
    return Pair(kind, prediction, reference, (z, y, x))
