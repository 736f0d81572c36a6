"""Descriptions of a set of scores, with the uncertainty that comes from few patients, as numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int8
from numpy.typing import NDArray

from medseg_pl.core.errors import count_noun

RESAMPLES = 2000

# Of three groups one draw in nine has no spread: the ends would always be the smallest and the largest value. Those of
# four nearly always are, which a summary's `cautions` say.
FEWEST_GROUPS = 4

# With fewer groups an interval holds the true mean less often than it says.
FEW_GROUPS = 10

# Drawn numbers in memory, whatever the number of groups: arrays that fit the cache are twice as fast.
_HELD_AT_ONCE = 2**14

NOTHING = "–"
"""What stands where there is no number."""


class Values(NamedTuple):
    """One finite value for each case, beside the patient of each case."""

    values: Sequence[float]
    groups: Sequence[str]


class Totals(NamedTuple):
    """Sum and number of each group's values, `(G, L)` each.

    There is one column for each of `L` sets of values.
    """

    sums: Float64[np.ndarray, "g l"]
    counts: Float64[np.ndarray, "g l"]


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % bootstrap-t interval of the mean over groups.

    Cases of one patient are alike, so groups are drawn. Each draw is measured in units of its own standard error, which
    keeps the interval honest with few patients and with scores that pile up near 1. On simulated patients without
    misses it holds the true mean in 91 to 95 of 100 data sets from 10 patients on, with 5 patients in 85 to 94. It
    cannot know of failures that it was not shown: where one patient in 20 is missed altogether, 10 patients give 77 for
    Dice and 40 for HD95. `benchmarks/intervals.py` measures it, beside BCa and two other methods that do no better.

    Args:
        values: One finite value for each case.
        groups: The patient of each case.
        resamples: How many sets of groups are drawn.
        seed: Makes the interval a function of the data alone, whatever the order of the cases.

    Returns:
        The lower and the upper end, within the range of the values; both NaN with fewer than four groups, or where
        the means of fewer than ten are all alike.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12; drawn by cluster as in Cameron,
        Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", Review of Economics and
        Statistics 90:414, 2008.
    """
    # Not scipy.stats.bootstrap: it has no studentized interval, and draws values but no groups of unequal size.
    return bootstrap_means([Values(values, groups)], resamples=resamples, seed=seed)


def bootstrap_means(columns: Sequence[Values], *, resamples: int, seed: int) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of several columns' means.

    A group is drawn for all columns together, see `bootstrap_interval`. Draws in which a column has no value do not
    count.

    Args:
        columns: The values of each.
        resamples: How many sets of groups are drawn.
        seed: Makes the interval a function of the data alone.

    Returns:
        Both ends; NaN where a column has fewer than four groups, where the means of fewer than ten groups are all
        alike, or where fewer than half of the draws count.
    """
    if not columns or any(len(set(column.groups)) < FEWEST_GROUPS for column in columns):
        return float("nan"), float("nan")
    totals = sum_groups(columns)
    mean, error = compute_mean_and_error(totals)
    noise = estimate_rounding(totals)
    # So few that agree by chance would look like certainty.
    if error <= noise and len(totals.sums) < FEW_GROUPS:
        return float("nan"), float("nan")
    drawn = _draw_resamples(totals, resamples, np.random.default_rng(seed))
    deviations = np.sort(_studentize(drawn - [mean, 0.0], noise))
    if len(deviations) < resamples / 2:
        return float("nan"), float("nan")
    rank = int(0.025 * len(deviations))
    ends = mean - deviations[-1 - rank] * error, mean - deviations[rank] * error
    # Of values and not of groups' means: those hold the mean of five normal groups 90 times in 100, and not 94.
    least, most = (float(np.mean([limit(column.values) for column in columns])) for limit in (min, max))
    low, high = (float(min(max(end, least), most)) for end in ends)
    return low, high


def sum_groups(columns: Sequence[Values]) -> Totals:
    """Sum by group, exactly and in any order of cases and groups."""
    names = {name: place for place, name in enumerate(sorted({name for column in columns for name in column.groups}))}
    sums, counts = np.zeros((2, len(names), len(columns)))
    for i, column in enumerate(columns):
        values = np.asarray(column.values, dtype=np.float64)
        places = np.array([names[name] for name in column.groups], dtype=np.int64)
        order = np.lexsort((values, places))
        sums[:, i] = np.bincount(places[order], weights=values[order], minlength=len(names))
        counts[:, i] = np.bincount(places, minlength=len(names))
    order = np.lexsort((*sums.T, *counts.T))
    return Totals(sums[order], counts[order])


def compute_mean_and_error(totals: Totals) -> tuple[float, float]:
    r"""Compute the mean of the columns' means and its cluster-robust error.

    With $s_g$ and $n_g$ the sum and the number of the values of group $g$ of $G$, $m = \sum s_g / \sum n_g$:

    $$\mathrm{SE}^2 = \frac{G}{G-1} \sum_g \Big(\frac{s_g - m\,n_g}{\sum n_g}\Big)^2,$$

    where the term in brackets is averaged over the columns. With one case in each group it is the usual standard error;
    of one group it is NaN.

    References:
        Cameron and Miller, "A practitioner's guide to cluster-robust inference", Journal of Human Resources 50:317,
        2015.

    >>> mean, error = compute_mean_and_error(sum_groups([Values([1.0, 3.0], ["a", "b"])]))
    >>> mean, round(error, 12)
    (2.0, 1.0)
    """
    means, errors = _compute_means_and_errors(totals.sums[None], totals.counts[None])
    return float(means[0]), float(errors[0])


def estimate_rounding(totals: Totals) -> float:
    """Estimate the rounding error of a mean, below which nothing differs."""
    scale = (np.abs(totals.sums).sum(axis=0) / totals.counts.sum(axis=0)).mean()
    return max(1e-12 * float(scale), 1e-150)  # of anything less the square, and so the standard error, is 0


def describe(values: Sequence[float], groups: Sequence[str], *, interval: bool = True) -> dict[str, object]:
    """Describe the values that are not NaN.

    Args:
        values: One for each case.
        groups: The patient of each case.
        interval: Whether the interval is worth its time.

    Returns:
        Mean, median, standard deviation (of the sample), interval and number.
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


def _draw_resamples(totals: Totals, resamples: int, rng: np.random.Generator) -> Float64[np.ndarray, "r 2"]:
    """Draw groups with replacement; return mean and standard error of each draw.

    Draws that leave a column empty are not kept. There is no matrix product, whose last digit depends on the number of
    threads.
    """
    groups = len(totals.sums)
    rows = max(1, _HELD_AT_ONCE // totals.sums.size)
    drawn = np.empty((resamples, 2))
    for start in range(0, resamples, rows):
        block = drawn[start : start + rows]
        chosen = rng.integers(groups, size=(len(block), groups))
        block[:, 0], block[:, 1] = _compute_means_and_errors(totals.sums[chosen], totals.counts[chosen])
    return drawn[np.isfinite(drawn[:, 0])]


def _compute_means_and_errors(
    sums: Float64[np.ndarray, "r g l"], counts: Float64[np.ndarray, "r g l"]
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Apply `compute_mean_and_error` to many sets of groups.

    A mean is NaN where a column has no value, an error where it has no second group.
    """
    totals = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        means = sums.sum(axis=1, keepdims=True) / totals
        influences = ((sums - means * counts) / totals).mean(axis=2)
    groups = sums.shape[1]
    correction = groups / (groups - 1) if groups > 1 else np.nan
    return means.mean(axis=(1, 2)), np.sqrt(correction * (influences**2).sum(axis=1))


def _studentize(drawn: Float64[np.ndarray, "r 2"], noise: float) -> NDArray[np.float64]:
    """Divide deviations by their own standard errors.

    The result is infinite where the draw shows no spread at all. What rounding alone made is 0: of patients with one
    mean, an infinite deviation would fill the range of the values.
    """
    deviations, errors = np.where(np.abs(drawn) <= noise, 0.0, drawn).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviations == 0, 0.0, deviations / errors)


# The most combinations of signs to try: all of them with up to 12 patients.
FLIPS = 4096


def compute_selection_p(
    gains: Float64[np.ndarray, "g t"], *, flips: int = FLIPS, seed: int = 0
) -> Float64[np.ndarray, " t"]:
    """Compute one-sided p-values of candidates, corrected for their number.

    If a candidate gains nothing, the gain of each patient could as well have had the other sign. All candidates of a
    patient change sign together, so the correction knows how alike they are. Each combination of signs gives every
    candidate a p-value of its own; the corrected one is the share of combinations whose smallest p-value is as small.

    Args:
        gains: The sum of the gains of each patient, for each candidate.
        flips: The most combinations of signs; they are drawn where there are more.
        seed: Makes p a function of the data alone.

    References:
        Westfall and Young, "Resampling-based multiple testing", 1993 (min-P); Phipson and Smyth, "Permutation p-values
        should never be zero", Statistical Applications in Genetics and Molecular Biology 9:39, 2010.

    >>> compute_selection_p(np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]))  # one of eight combinations is as good
    array([0.125, 1.   ])
    """
    scale = np.abs(gains).sum(axis=0)
    # Rounded, so that equal sums stay equal whatever the order in which a processor adds them.
    sums = np.round(_make_signs(len(gains), flips, seed) @ (gains / np.where(scale > 0, scale, 1.0)), 9)
    above = [len(column) - np.searchsorted(np.sort(column), column) for column in sums.T]
    p_values = np.stack(above, axis=1) / len(sums)
    least = np.sort(p_values.min(axis=1, initial=1.0))
    corrected: Float64[np.ndarray, " t"] = np.searchsorted(least, p_values[0], side="right") / len(sums)
    return corrected


def _make_signs(groups: int, flips: int, seed: int) -> Int8[np.ndarray, "f g"]:
    """Make all combinations of signs, or as many as wanted.

    The first one flips nothing.
    """
    if groups < 63 and 2**groups <= flips:
        bits = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(flips, groups))
        bits[0] = 0
    return (1 - 2 * bits).astype(np.int8)


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number, or a dash where there is none.

    >>> format_number(0.12345), format_number(None), format_number(float("nan"))
    ('0.123', '–', '–')
    """
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def format_interval(ends: Sequence[float] | None, digits: int = 3, joint: str = " to ") -> str:
    """Format both ends of an interval; a dash if there is none.

    >>> format_interval([0.5, 0.75], 2)
    '0.50 to 0.75'
    """
    return NOTHING if ends is None else joint.join(f"{end:.{digits}f}" for end in ends)


def note_few_groups(groups: int, noun: str = "patient", *, given: bool = False) -> str:
    """Note what few patients do to an interval; empty where they are enough.

    Args:
        groups: Their number.
        noun: What they are called: `name_group` knows.
        given: Whether there is an interval, however few they are: earlier releases gave one.

    >>> note_few_groups(3)
    'With 3 patients there is no interval: quote the single scores.'
    >>> note_few_groups(9).split(". ")[0]
    'With 9 patients an interval holds the true mean less often than 95 times in 100'
    >>> note_few_groups(2, "case")
    'With 2 cases there is no interval: quote the single scores.'
    """
    with_few = f"With {count_noun(groups, noun)}"
    if groups < FEWEST_GROUPS and not given:
        return f"{with_few} there is no interval: quote the single scores."
    if groups < FEW_GROUPS:
        return (
            f"{with_few} an interval holds the true mean less often than 95 times in 100. Quote it with the number "
            f"of {noun}s."
        )
    return ""


def format_p(value: float | None) -> str:
    """Format a p-value, or a dash where there is none.

    >>> format_p(0.0001), format_p(0.04)
    ('<0.001', '0.040')
    """
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"
