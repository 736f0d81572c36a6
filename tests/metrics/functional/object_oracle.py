"""Objects from their definitions, one voxel and one way of pairing at a time; nothing is shared with what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

Voxel = tuple[int, int, int]
FULL = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
FACE = [step for step in FULL if sum(map(abs, step)) == 1]


def components(mask: NDArray[np.bool_], steps: list[Voxel] = FULL) -> list[set[Voxel]]:
    """Flood from each voxel, in the order of the array."""
    left = [(z, y, x) for z, y, x in np.argwhere(mask).tolist()]
    unseen, found = set(left), []
    for start in left:
        if start not in unseen:
            continue
        flooded, edge = {start}, [start]
        unseen.discard(start)
        while edge:
            z, y, x = edge.pop()
            for dz, dy, dx in steps:
                near = (z + dz, y + dy, x + dx)
                if near in unseen:
                    unseen.discard(near)
                    flooded.add(near)
                    edge.append(near)
        found.append(flooded)
    return found


def iou(first: set[Voxel], second: set[Voxel]) -> Fraction:
    return Fraction(len(first & second), len(first | second))


def pairings(allowed: list[dict[int, Fraction]], taken: frozenset[int] = frozenset()) -> Iterator[list[Fraction]]:
    """Every way to give each object of the reference one of the prediction or none."""
    if not allowed:
        yield []
        return
    for rest in pairings(allowed[1:], taken):
        yield rest
    for number, value in allowed[0].items():
        if number not in taken:
            for rest in pairings(allowed[1:], taken | {number}):
                yield [value, *rest]


def one_to_one(prediction: list[set[Voxel]], reference: list[set[Voxel]], threshold: Fraction) -> tuple[Fraction, int]:
    """The largest summed IoU, and with it the most pairs."""
    allowed = []
    for ours in reference:
        values = {number: iou(ours, theirs) for number, theirs in enumerate(prediction) if ours & theirs}
        allowed.append({number: value for number, value in values.items() if value >= threshold})
    return max((sum(values, Fraction(0)), len(values)) for values in pairings(allowed))


def many_to_one(
    prediction: list[set[Voxel]], reference: list[set[Voxel]], threshold: Fraction
) -> tuple[Fraction, int, int]:
    """Summed IoU, objects found, and predictions that stand for nothing."""
    given: list[list[set[Voxel]]] = [[] for _ in reference]
    for theirs in prediction:
        shares = [len(theirs & ours) for ours in reference]
        if any(shares):
            given[shares.index(max(shares))].append(theirs)
    total, found, used = Fraction(0), 0, 0
    for ours, parts in zip(reference, given, strict=True):
        value = iou(ours, set().union(*parts)) if parts else Fraction(0)
        if parts and value >= threshold:
            total, found, used = total + value, found + 1, used + len(parts)
    return total, found, len(prediction) - used
