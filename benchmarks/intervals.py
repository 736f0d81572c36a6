"""Intervals of a mean score: in how many of 100 data sets they hold the true mean, by four methods.

Benign scores vary without a break; some distances have a long tail; and in some data sets one patient in 20 or 10 is
missed altogether: Dice 0, HD95 the image's diagonal, here 300 mm. Benign patients have 1 to 8 slices that are alike,
the others one case each.

    python benchmarks/intervals.py [results.json]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from _report import Claim, finish
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr
from scipy.stats import norm

from medseg_pl.metrics.statistics.intervals import bootstrap_interval

DATA_SETS = 1000
RESAMPLES = 1000
PATIENTS = (5, 10, 20, 50, 100)
DIAGONAL_MM = 300.0
ALIKE = 0.8
"""The share of the variance that lies between patients."""

Values = NDArray[np.float64]
Interval = tuple[float, float]


class Design(NamedTuple):
    """Scores whose true mean is known.

    Attributes:
        kind: `benign`, `long tail` or `missed`.
        quantile: Turns evenly distributed numbers into scores.
        mean: The true one.
        several: Whether patients have several cases.
    """

    kind: str
    quantile: Callable[[Values], Values]
    mean: float
    several: bool = False


def lognormal(sigma: float) -> Callable[[Values], Values]:
    return lambda u: np.exp(1 + sigma * norm.ppf(u))


def missed(share: float, worst: float, others: Callable[[Values], Values]) -> Callable[[Values], Values]:
    return lambda u: np.where(u < share, worst, others(np.maximum(1e-12, (u - share) / (1 - share))))


def good_dice(u: Values) -> Values:
    return np.asarray(betaincinv(20, 2, u))


DESIGNS = {
    "normal": Design("benign", norm.ppf, 0.0, several=True),
    "Dice, Beta(6, 1.5)": Design("benign", lambda u: betaincinv(6, 1.5, u), 6 / 7.5, several=True),
    "Dice, Beta(3, 0.5)": Design("benign", lambda u: betaincinv(3, 0.5, u), 3 / 3.5, several=True),
    "HD95, exponential": Design("benign", lambda u: -np.log1p(-u), 1.0, several=True),
    "HD95, lognormal 0.8": Design("long tail", lognormal(0.8), float(np.exp(1.32))),
    "HD95, lognormal 1.0": Design("long tail", lognormal(1.0), float(np.exp(1.5))),
    "Dice, 1 in 20 missed": Design("missed", missed(0.05, 0.0, good_dice), 0.95 * 20 / 22),
    "Dice, 1 in 10 missed": Design("missed", missed(0.1, 0.0, good_dice), 0.9 * 20 / 22),
    "HD95, 1 in 20 missed": Design(
        "missed", missed(0.05, DIAGONAL_MM, lognormal(0.6)), 0.95 * float(np.exp(1.18)) + 0.05 * DIAGONAL_MM
    ),
    "HD95, 1 in 10 missed": Design(
        "missed", missed(0.1, DIAGONAL_MM, lognormal(0.6)), 0.9 * float(np.exp(1.18)) + 0.1 * DIAGONAL_MM
    ),
}
METHODS = ("medseg", "log scale", "BCa", "percentile")


def data_sets(design: Design, patients: int) -> Iterator[tuple[Values, NDArray[np.int64]]]:
    """Values, and the patient of each."""
    rng = np.random.default_rng(patients)
    for _ in range(DATA_SETS):
        sizes = rng.integers(1, 9, size=patients) if design.several else np.ones(patients, np.int64)
        patient = np.repeat(np.arange(patients), sizes)
        common, own = rng.standard_normal(patients)[patient], rng.standard_normal(len(patient))
        yield design.quantile(ndtr(np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * own)), patient


def intervals(
    values: Values, patient: NDArray[np.int64], rng: np.random.Generator, logarithmic: bool
) -> dict[str, Interval]:
    """The interval of medseg, and those of its peers from draws of patients."""
    sums, counts = np.bincount(patient, weights=values), np.bincount(patient).astype(float)
    groups = len(sums)
    means, errors = means_and_errors(rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES), sums, counts)
    (mean,), (error,) = means_and_errors(np.ones((1, groups)), sums, counts)
    found = {"medseg": bootstrap_interval(values.tolist(), [str(name) for name in patient], resamples=RESAMPLES)}
    if logarithmic:
        found["log scale"] = log_scale(mean, error, means, errors, (values.min(), values.max()))
    left_out, _ = means_and_errors(1 - np.eye(groups), sums, counts)
    found["BCa"] = bias_corrected(mean, means, left_out)
    low, high = np.quantile(means, [0.025, 0.975])
    found["percentile"] = (float(low), float(high))
    return found


def means_and_errors(weights: Values, sums: Values, counts: Values) -> tuple[Values, Values]:
    totals = weights @ counts
    means = weights @ sums / totals
    squares = weights @ sums**2 - 2 * means * (weights @ (sums * counts)) + means**2 * (weights @ counts**2)
    groups = len(sums)
    return means, np.sqrt(np.maximum(groups / (groups - 1) * squares, 0)) / totals


def log_scale(mean: float, error: float, means: Values, errors: Values, limits: Interval) -> Interval:
    """Bootstrap-t of the mean's logarithm."""
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = np.sort(np.where(np.isclose(means, mean), 0.0, np.log(means / mean) * means / errors))
    rank = int(0.025 * len(deviations))
    with np.errstate(over="ignore"):
        low, high = mean * np.exp(-deviations[[-1 - rank, rank]] * error / mean)
    return max(float(low), limits[0]), min(float(high), limits[1])


def bias_corrected(mean: float, means: Values, left_out: Values) -> Interval:
    """Efron's BCa: percentiles corrected for bias and acceleration."""
    below = np.clip(((means < mean).mean() + (means <= mean).mean()) / 2, 1 / RESAMPLES, 1 - 1 / RESAMPLES)
    bias, pulls = norm.ppf(below), left_out.mean() - left_out
    spread = 6 * (pulls**2).sum() ** 1.5
    acceleration = (pulls**3).sum() / spread if spread > 0 else 0.0
    z = bias + norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def coverage(design: Design, patients: int) -> dict[str, int]:
    """In how many of 100 data sets each interval holds the true mean."""
    rng = np.random.default_rng(0)
    held: dict[str, int] = {}
    for values, patient in data_sets(design, patients):
        for method, (low, high) in intervals(values, patient, rng, design.mean > 0).items():
            held[method] = held.get(method, 0) + (low <= design.mean <= high)
    return {method: round(100 * number / DATA_SETS) for method, number in held.items()}


def main() -> None:
    print("| scores | method | " + " | ".join(f"{patients} patients" for patients in PATIENTS) + " |")
    print("| --- " * (2 + len(PATIENTS)) + "|")
    table: dict[str, dict[int, dict[str, int]]] = {}
    for name, design in DESIGNS.items():
        table[name] = {patients: coverage(design, patients) for patients in PATIENTS}
        for method in METHODS:
            cells = [str(table[name][patients].get(method, "–")) for patients in PATIENTS]
            print(f"| {name} | {method} | " + " | ".join(cells) + " |", flush=True)
    finish([*claims(table)], table, ["scipy"], cores=1)


def claims(table: dict[str, dict[int, dict[str, int]]]) -> Iterator[Claim]:
    """The range over all designs of a kind, with few patients and with more."""
    for kind in dict.fromkeys(design.kind for design in DESIGNS.values()):
        names = [name for name, design in DESIGNS.items() if design.kind == kind]
        for few, which in ((True, "fewer than 10"), (False, "10 to 100")):
            found = [table[name][n]["medseg"] for name in names for n in PATIENTS if (n < 10) == few]
            if found:
                measured = f"{min(found)} to {max(found)} of 100"
                yield Claim(f"95 % intervals, {kind}, {which} patients", "the true mean", "-", measured)


if __name__ == "__main__":
    main()
