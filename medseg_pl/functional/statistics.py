"""Descriptions of a set of scores, with the uncertainty that comes from having few patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean, drawn over groups, since cases of one patient are alike.

    Args:
        values: One finite value for each case.
        groups: The patient of each case.
        resamples: How many sets of groups are drawn.
        seed: Makes the interval a function of the data alone.

    Returns:
        The lower and the upper end; both NaN with fewer than two groups.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; drawn by cluster.
    """
    sums, counts = _by_group(values, groups)
    if len(sums) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):  # one at a time: all at once would take a gigabyte for 50,000 groups
        drawn = rng.integers(len(sums), size=len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _by_group(values: Sequence[float], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of each group, in the order of their names: independent of the order of the cases."""
    order = {name: index for index, name in enumerate(sorted(set(groups)))}
    places = np.array([order[name] for name in groups], dtype=np.int64)
    sums = np.bincount(places, weights=np.asarray(values, dtype=np.float64), minlength=len(order)).astype(np.float64)
    return sums, np.bincount(places, minlength=len(order)).astype(np.float64)


def describe(values: Sequence[float], groups: Sequence[str], *, interval: bool = True) -> dict[str, object]:
    """Mean, median, standard deviation (of the sample), interval and number of the values that are not NaN.

    Args:
        values: One for each case.
        groups: The patient of each case.
        interval: Whether the interval is worth its time.
    """
    kept = [(value, group) for value, group in zip(values, groups, strict=True) if not np.isnan(value)]
    if not kept:
        return {"mean": None, "median": None, "std": None, "ci95": None, "n": 0}
    numbers = np.array([value for value, _ in kept], dtype=np.float64)
    low, high = bootstrap_interval(numbers.tolist(), [group for _, group in kept]) if interval else (np.nan, np.nan)
    return {
        "mean": float(numbers.mean()),
        "median": float(np.median(numbers)),
        "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "ci95": None if np.isnan(low) else [low, high],
        "n": len(numbers),
    }
