"""How often intervals and tests are right, on simulated patients whose true mean is known.

Each patient has 1 to 8 slices that are alike: four fifths of the variance lie between patients. In how many of 100 data
sets the 95 % interval holds the true mean, measured on 4,000 each (standard error 0.4; percentiles of the drawn means,
which this interval replaced, in brackets, on 1,000):

    patients                                          3           5           10          20          50    100
    normal                                            92 (75)     93 (82)     94 (88)     94 (93)     94    95
    skewed, as Dice is: Beta(6, 1.5)                  92 (73)     93 (80)     94 (88)     95 (92)     95    95
    very skewed: Beta(3, 0.5)                         88 (69)     91 (78)     94 (86)     95 (90)     95    95
    exponential, as distances are                     89 (71)     92 (80)     93 (86)     94 (91)     94    95
    Beta(12, 2), but 0 for every tenth                78 (57)     83 (66)     89 (80)     94 (88)     96    96

So it does not reach 93 with fewer than 10 patients, nor where one in ten fails with fewer than 20: among 10 patients a
third of the data sets show no failure, and no interval knows of what was not seen.

Two equal runs are told apart at 5 % in 5.0 of 100 data sets by flipping the signs of 10, 20 or 50 patients, in 3.5 with
6 and never with 5 or fewer, whose least p is 2 / 32; flipping slices finds a difference in 36 to 42. (4,000 data sets.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from medseg_pl.metrics.statistics.comparison import estimate_cases_needed, sign_flip_p
from medseg_pl.metrics.statistics.intervals import Values, bootstrap_interval, bootstrap_means, sum_groups

pytestmark = pytest.mark.slow

RUNS = 2000
ALIKE = 0.8
Draw = Callable[[NDArray[np.float64]], NDArray[np.float64]]
DESIGNS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda z: z, 0.0),
    "skewed": (lambda z: betaincinv(6, 1.5, ndtr(z)), 6 / 7.5),
    "very_skewed": (lambda z: betaincinv(3, 0.5, ndtr(z)), 3 / 3.5),
}


def failing(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Good scores, but 0 for the tenth of the slices that is worst."""
    return np.where(ndtr(z) < 0.1, 0.0, betaincinv(12, 2, np.maximum(0, (ndtr(z) - 0.1) / 0.9)))


DESIGNS["failing"] = (failing, 0.9 * 12 / 14)


def patients(rng: np.random.Generator, groups: int) -> NDArray[np.int64]:
    """The patient of each slice."""
    return np.repeat(np.arange(groups), rng.integers(1, 9, size=groups))


def alike(rng: np.random.Generator, patient: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard normal numbers that are correlated within a patient."""
    between = rng.standard_normal(patient.max() + 1)[patient]
    return np.sqrt(ALIKE) * between + np.sqrt(1 - ALIKE) * rng.standard_normal(len(patient))


def coverage(design: str, groups: int, *, by_patient: bool = True, runs: int = RUNS) -> float:
    """In which share of data sets the interval holds the true mean."""
    draw, truth = DESIGNS[design]
    rng = np.random.default_rng(groups)
    held = 0
    for _ in range(runs):
        patient = patients(rng, groups)
        values = draw(alike(rng, patient)).tolist()
        names = [str(name) for name in (patient if by_patient else range(len(patient)))]
        low, high = bootstrap_interval(values, names)
        held += low <= truth <= high
    return held / runs


@pytest.mark.parametrize("groups", [10, 20, 50])
@pytest.mark.parametrize("design", ["normal", "skewed", "very_skewed"])
def test_the_interval_holds_the_true_mean_in_95_of_100_data_sets(design: str, groups: int) -> None:
    assert 0.93 <= coverage(design, groups) <= 0.97


def test_and_with_a_hundred_patients() -> None:
    assert 0.93 <= coverage("very_skewed", 100) <= 0.97


@pytest.mark.parametrize("groups", [10, 50])
def test_an_interval_over_slices_is_wrong_in_every_third_data_set(groups: int) -> None:
    assert coverage("skewed", groups, by_patient=False, runs=500) < 0.75


@pytest.mark.parametrize(
    ("design", "groups", "low", "high"),
    [("very_skewed", 5, 0.89, 0.93), ("very_skewed", 3, 0.86, 0.90), ("failing", 10, 0.86, 0.91)],
)
def test_where_it_does_not_reach(design: str, groups: int, low: float, high: float) -> None:
    assert low < coverage(design, groups) < high


def test_the_interval_of_a_mean_over_labels_holds_too() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(RUNS):
        patient = patients(rng, 20)
        names = [str(name) for name in patient]
        common = alike(rng, patient)
        columns = []
        for design in ("skewed", "very_skewed"):
            kept = rng.random(len(patient)) < 0.8  # not every case has every label
            values = DESIGNS[design][0]((common + alike(rng, patient)) / np.sqrt(2))
            columns.append(Values(values[kept].tolist(), [name for name, k in zip(names, kept, strict=True) if k]))
        low, high = bootstrap_means(columns, resamples=1000, seed=0)
        held += low <= (DESIGNS["skewed"][1] + DESIGNS["very_skewed"][1]) / 2 <= high
    assert 0.93 <= held / RUNS <= 0.97


def differences(rng: np.random.Generator, patient: NDArray[np.int64]) -> NDArray[np.float64]:
    """Skewed scores of two runs of one quality; each has its own luck with a patient."""
    draw, _ = DESIGNS["very_skewed"]
    return draw(alike(rng, patient)) - draw(alike(rng, patient))


def rejected(groups: int, *, by_patient: bool) -> float:
    """In which share of data sets two runs of one quality are told apart at 5 %."""
    rng = np.random.default_rng(groups)
    found = 0
    for _ in range(RUNS):
        patient = patients(rng, groups)
        values = differences(rng, patient)
        sums = np.bincount(patient, weights=values) if by_patient else values
        found += sign_flip_p(sums, resamples=1024) <= 0.05
    return found / RUNS


@pytest.mark.parametrize("groups", [6, 10, 20, 50])
def test_equal_runs_are_told_apart_in_5_of_100_data_sets(groups: int) -> None:
    assert 0.02 <= rejected(groups, by_patient=True) <= 0.055


@pytest.mark.parametrize("groups", [10, 50])
def test_over_slices_equal_runs_are_told_apart_far_too_often(groups: int) -> None:
    assert rejected(groups, by_patient=False) > 0.25


def test_a_study_of_the_size_needed_shows_the_difference_in_80_of_100() -> None:
    rng = np.random.default_rng(0)
    pilot = patients(rng, 20_000)
    values = 0.4 + alike(rng, pilot)
    totals = sum_groups([Values(values.tolist(), [str(name) for name in pilot])])
    needed = estimate_cases_needed(totals, len(values))
    assert needed is not None
    groups = round(needed * 20_000 / len(values))
    found = 0
    for _ in range(RUNS):
        patient = patients(rng, groups)
        found += sign_flip_p(np.bincount(patient, weights=0.4 + alike(rng, patient)), resamples=1000) <= 0.05
    assert 0.77 < found / RUNS < 0.84
