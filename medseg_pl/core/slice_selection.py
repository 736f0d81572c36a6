"""Which slices of a volume to show where not all of them can be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def telling_slice(reference: Bool[np.ndarray, "n d h w"], prediction: Bool[np.ndarray, "n d h w"]) -> int:
    """The slice in which the masks differ most; the one with most of the reference where they are the same."""
    area = (reference ^ prediction).sum(axis=(0, 2, 3))
    if not area.any():
        area = reference.sum(axis=(0, 2, 3))
    return int(area.argmax()) if area.any() else len(area) // 2


def spread_slices(holding: Bool[np.ndarray, " d"], most: int, always: int) -> Int[np.ndarray, " s"]:
    """At most so many slices, evenly spread over those that hold something and their neighbors.

    Args:
        holding: Which slices hold something; all count where none does.
        most: How many.
        always: A slice that is among them in any case.

    >>> spread_slices(np.array([0, 0, 1, 1, 1, 1, 0, 0, 0], bool), most=3, always=4)
    array([1, 4, 6])
    """
    places = np.flatnonzero(holding)
    first, last = (places[0] - 1, places[-1] + 1) if len(places) else (0, len(holding) - 1)
    span = np.arange(max(0, first), min(last, len(holding) - 1) + 1)
    if len(span) > most:
        span = span[np.unique(np.linspace(0, len(span) - 1, most).round().astype(int))]
    if always in span:
        return span
    nearest = int(np.abs(span - always).argmin())
    return np.sort(np.where(np.arange(len(span)) == nearest, always, span))
