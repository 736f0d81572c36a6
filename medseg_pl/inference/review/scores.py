"""Which masks a person should look at first: what probabilities, other models and other cases say of a mask.

Every sign is between 0, nothing to see, and 1.

References:
    Borges et al., "Soft Dice Confidence: a near-optimal confidence estimator for selective prediction in semantic
    segmentation", 2024, for `expected_dice`.
    Iglewicz and Hoaglin, "How to detect and handle outliers", 1993, for the spread of `implausibility`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy.typing import NDArray

from medseg_pl.metrics.functional.overlap import count, dice

FEWEST_CASES = 8
"""Of fewer it cannot be said what is usual."""

_UNREMARKABLE = 3.0
_RARE = 0.1
_LEAST_SPREAD = math.log(1.1)
_NORMAL = 1.4826  # standard deviations of normal numbers in their median absolute deviation


def expected_dice(probability: Float[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"]) -> float:
    r"""The Dice that a mask would have if the probabilities were right: near its mean over all they could stand for.

    $$\frac{2 \sum_{i \in M} p_i}{|M| + \sum_i p_i}$$

    An empty mask is right, with a Dice of 1, if nothing is there, and wrong, with 0, if anything is: the chance of the
    former is at most `1 - max p`.

    >>> expected_dice(np.array([1.0, 0.5, 0.5, 0.0]), np.array([True, True, False, False]))
    0.75
    >>> expected_dice(np.array([0.25, 0.125]), np.array([False, False]))
    0.75
    """
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return 1.0 - float(probability.max(initial=0))
    inside = float(probability.sum(where=mask, dtype=np.float64))
    return 2 * inside / (voxels + float(probability.sum(dtype=np.float64)))


def agreement(others: Sequence[Bool[np.ndarray, "*shape"]], mask: Bool[np.ndarray, "*shape"]) -> float:
    """The mean Dice of a mask with others of the same image, 1 where both are empty; NaN without others.

    >>> mask, half = np.array([True, True, False]), np.array([True, False, False])
    >>> agreement([mask, half], mask)
    0.8333333333333333
    """
    if not others:
        return math.nan
    found = [dice(count(other, mask)) for other in others]
    return float(np.mean([1.0 if math.isnan(value) else value for value in found]))


def implausibility(sizes: Sequence[float]) -> Float64[np.ndarray, "n"]:
    """How unusual the size of a label is in each of several cases; all 0 with fewer than `FEWEST_CASES`.

    Where a label is there, 0 up to 3 robust standard deviations from the median, 0.5 at 6, towards 1. Where it is
    absent, or there although most cases lack it, 0 if a tenth of the cases or more are like that, towards 1 where none
    else is.

    >>> implausibility([100, 100, 90, 110, 100, 95, 105, 10, 100]).round(2)[[2, 7]]
    array([0.  , 0.88])
    >>> implausibility([*[100.0] * 19, 0]).round(2)[[0, 19]]
    array([0. , 0.5])
    """
    found = np.asarray(sizes, dtype=np.float64)
    present = found > 0
    unusual = np.zeros(len(found))
    if len(found) < FEWEST_CASES:
        return unusual
    if present.sum() >= FEWEST_CASES:
        away = np.abs(_deviations(np.log(found[present])))
        unusual[present] = 1 - _UNREMARKABLE / np.maximum(away, _UNREMARKABLE)
    for alike in (present, ~present):
        rarity = max(0.0, 1 - float(alike.mean()) / _RARE)
        unusual[alike] = np.maximum(unusual[alike], rarity)
    return unusual


def _deviations(logarithms: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """From the median, in robust standard deviations, of which one is taken to be at least a tenth of the size."""
    away: NDArray[np.float64] = logarithms - np.median(logarithms)
    return away / max(_NORMAL * float(np.median(np.abs(away))), _LEAST_SPREAD)


def combine_evidence(signs: Sequence[float]) -> float:
    """Several signs as one: as likely as that at least one of independent ones is true; NaN says nothing.

    >>> combine_evidence([0.5, 0.5, math.nan])
    0.75
    """
    return 1 - math.prod(1 - sign for sign in signs if not math.isnan(sign))


def excess_over_median(signs: Sequence[float]) -> Float64[np.ndarray, "n"]:
    """By how much each case's sign exceeds the median: what all cases have is no reason to look at one of them.

    With fewer than `FEWEST_CASES` the signs as they are.

    >>> excess_over_median([0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]).tolist()
    [0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    found = np.asarray(signs, dtype=np.float64)
    return found if len(found) < FEWEST_CASES else np.maximum(found - np.median(found), 0)
