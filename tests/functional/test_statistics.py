"""Intervals of few patients: against every possible draw, counted out."""

from __future__ import annotations

import math
import tracemalloc
from itertools import chain, product

import numpy as np
import pytest

from medseg_pl.functional import statistics
from medseg_pl.functional.statistics import bootstrap_interval, describe

VALUES = [0.9, 0.7, 0.8, 0.2, 0.95, 0.6]
GROUPS = ["a", "b", "b", "c", "d", "d"]


def exact_interval(values: list[float], groups: list[str]) -> tuple[float, float]:
    """The percentiles of the mean over all equally likely draws of groups, without drawing any."""
    members = [[v for v, g in zip(values, groups, strict=True) if g == name] for name in sorted(set(groups))]
    means = sorted(float(np.mean([*chain(*draw)])) for draw in product(members, repeat=len(members)))
    rank = 0.025 * len(means)
    assert rank % 1 > 0.05, "an end that lies between two outcomes would be a matter of luck"
    return means[math.floor(rank)], means[-1 - math.floor(rank)]


def test_the_interval_is_that_of_all_possible_draws() -> None:
    drawn = bootstrap_interval(VALUES, GROUPS, resamples=100_000)
    np.testing.assert_allclose(drawn, exact_interval(VALUES, GROUPS), rtol=1e-12)


def test_two_patients_say_little_however_many_images_they_have() -> None:
    # Each of them is drawn twice in one of four sets: the ends are their own means.
    assert bootstrap_interval([0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50) == (0.0, 1.0)
    low, high = bootstrap_interval([0.0] * 50 + [1.0] * 50, [str(i) for i in range(100)])
    # The standard error of a share of one half among a hundred is 0.05.
    assert (low, high) == (pytest.approx(0.5 - 1.96 * 0.05, abs=0.02), pytest.approx(0.5 + 1.96 * 0.05, abs=0.02))


def test_equal_scores_have_no_uncertainty() -> None:
    assert bootstrap_interval([0.5, 0.5, 0.5], ["a", "b", "c"]) == (0.5, 0.5)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_patients_have_no_interval(groups: list[str]) -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([0.5] * len(groups), groups))


def test_the_order_of_the_cases_does_not_matter() -> None:
    order = [4, 0, 5, 3, 1, 2]
    shuffled = bootstrap_interval([VALUES[i] for i in order], [GROUPS[i] for i in order])
    assert shuffled == pytest.approx(bootstrap_interval(VALUES, GROUPS), rel=1e-12)


def test_the_seed_makes_the_interval() -> None:
    values = np.random.default_rng(0).random(20).tolist()
    groups = [str(i) for i in range(20)]
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=1)


def test_a_description_worked_out_on_paper() -> None:
    described = describe([1.0, math.nan, 3.0, 8.0], ["a", "b", "c", "c"])
    assert described == {
        "mean": 4.0,
        "median": 3.0,
        "std": pytest.approx(math.sqrt((9 + 1 + 16) / 2)),
        # Patient b has no value; a and c alone are drawn, each twice in one of four sets.
        "ci95": [1.0, 5.5],
        "n": 3,
    }


def test_without_the_interval_all_else_is_the_same() -> None:
    described = describe(VALUES, GROUPS)
    assert described["ci95"] == list(bootstrap_interval(VALUES, GROUPS))
    assert describe(VALUES, GROUPS, interval=False) == {**described, "ci95": None}


def test_an_interval_that_is_not_wanted_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*arguments: object) -> None:
        raise AssertionError("an interval was drawn")

    monkeypatch.setattr(statistics, "bootstrap_interval", drawn)
    assert describe(VALUES, GROUPS, interval=False)["n"] == 6


def test_many_patients_need_no_more_memory_than_one_draw() -> None:
    groups = [str(number) for number in range(20_000)]
    tracemalloc.start()
    try:
        bootstrap_interval([0.5] * len(groups), groups, resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 20_000 * 8 / 4  # all draws at once are 32 MB of indices, and as much again of values


def test_one_value_has_neither_deviation_nor_interval() -> None:
    assert describe([0.5], ["a"]) == {"mean": 0.5, "median": 0.5, "std": None, "ci95": None, "n": 1}


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_value_at_all_is_said_so(values: list[float]) -> None:
    described = describe(values, ["a", "b"][: len(values)])
    assert described == {"mean": None, "median": None, "std": None, "ci95": None, "n": 0}


def test_values_and_groups_must_belong_together() -> None:
    with pytest.raises(ValueError, match="shorter"):
        describe([0.5, 0.6], ["a"])
