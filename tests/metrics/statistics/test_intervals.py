"""Intervals of few patients: against every possible draw, counted out, and against scipy where there are many."""

from __future__ import annotations

import math
import tracemalloc
from itertools import product
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from medseg_pl.metrics.statistics import intervals
from medseg_pl.metrics.statistics.comparison import sign_flip_p
from medseg_pl.metrics.statistics.intervals import (
    Values,
    bootstrap_interval,
    bootstrap_means,
    compute_mean_and_error,
    compute_selection_p,
    describe,
    sum_groups,
)

VALUES = [0.9, 0.7, 0.8, 0.2, 0.95, 0.6, 0.75]
GROUPS = ["a", "b", "b", "c", "d", "d", "e"]


def mean_and_error_by_hand(members: list[list[float]]) -> tuple[float, float]:
    """Group by group, as the formula is written down."""
    n = sum(len(values) for values in members)
    mean = sum(sum(values) for values in members) / n
    shares = [sum(value - mean for value in values) / n for values in members]
    return mean, math.sqrt(len(members) / (len(members) - 1) * sum(share**2 for share in shares))


def exact_interval(values: list[float], groups: list[str]) -> tuple[float, float]:
    """The bootstrap-t over all equally likely draws of groups, without drawing any."""
    members = [[v for v, g in zip(values, groups, strict=True) if g == name] for name in sorted(set(groups))]
    mean, error = mean_and_error_by_hand(members)
    deviations = []
    for draw in product(members, repeat=len(members)):
        drawn, spread = mean_and_error_by_hand(list(draw))
        far = drawn - mean if abs(drawn - mean) > 1e-12 else 0.0
        deviations.append(far / spread if spread > 1e-12 else math.copysign(math.inf, far) if far else 0.0)
    deviations.sort()
    rank = 0.025 * len(deviations)
    assert rank % 1 > 0.05, "an end that lies between two outcomes would be a matter of luck"
    low, high = (mean - deviations[place] * error for place in (-1 - math.floor(rank), math.floor(rank)))
    return max(low, min(values)), min(high, max(values))


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([0.61, 0.7, 0.74, 0.9, 0.77, 0.66, 0.81, 0.69], list("aabbccde")),
        ([0.0, 1.0, 0.1, 0.3, 0.35, 0.5, 0.55, 0.6, 0.65, 0.9], list("aaabbcddef")),
    ],
)
def test_the_interval_is_that_of_all_possible_draws(values: list[float], groups: list[str]) -> None:
    drawn = bootstrap_interval(values, groups, resamples=100_000)
    np.testing.assert_allclose(drawn, exact_interval(values, groups), rtol=1e-2)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_with_many_patients_it_is_the_interval_of_scipy(method: str) -> None:
    values = np.random.default_rng(0).beta(6, 1.5, 500)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method=method, random_state=np.random.default_rng(0)
    ).confidence_interval
    ours = bootstrap_interval(values.tolist(), [str(i) for i in range(500)], resamples=20_000)
    np.testing.assert_allclose(ours, theirs, atol=0.05 * (theirs.high - theirs.low))


def test_five_patients_say_little_however_many_images_they_have() -> None:
    assert bootstrap_interval([0.0] * 60 + [1.0] * 40, [name for name in "abcde" for _ in range(20)]) == (0.0, 1.0)
    low, high = bootstrap_interval([0.0] * 50 + [1.0] * 50, [str(i) for i in range(100)])
    # The standard error of a share of one half among a hundred is 0.05.
    assert (low, high) == (pytest.approx(0.5 - 1.98 * 0.05, abs=0.02), pytest.approx(0.5 + 1.98 * 0.05, abs=0.02))


def test_a_standard_error_worked_out_on_paper() -> None:
    # Mean 3; the groups' shares are (2 - 3 + 4 - 3) / 4 = 0, (1 - 3) / 4 and (5 - 3) / 4: 3 / 2 of 1 / 2.
    totals = sum_groups([Values([2.0, 4.0, 1.0, 5.0], ["a", "a", "b", "c"])])
    assert compute_mean_and_error(totals) == (3.0, pytest.approx(math.sqrt(3) / 2))


def test_with_one_case_a_patient_it_is_the_usual_standard_error() -> None:
    totals = sum_groups([Values(VALUES, list("abcdefg"))])
    assert compute_mean_and_error(totals)[1] == pytest.approx(scipy.stats.sem(VALUES))


def test_columns_of_one_patient_are_drawn_together() -> None:
    up, groups = [0.1, 0.5, 0.4, 0.9, 0.3, 0.8] * 2, list("abcdefghijkl")
    down = [1 - value for value in up]
    # What one label gains the other loses: the mean of both is known without error. Drawn apart, it would not be.
    assert bootstrap_means([Values(up, groups), Values(down, groups)], resamples=500, seed=0) == (0.5, 0.5)
    twice = bootstrap_means([Values(up, groups), Values(up, groups)], resamples=500, seed=0)
    assert twice == pytest.approx(bootstrap_interval(up, groups, resamples=500))


def test_a_label_of_one_patient_leaves_the_mean_over_labels_without_an_interval() -> None:
    columns = [Values(VALUES, GROUPS), Values([0.5, 0.6], ["a", "a"])]
    assert all(math.isnan(end) for end in bootstrap_means(columns, resamples=500, seed=0))


def test_so_do_labels_that_are_seldom_drawn_together() -> None:
    columns = [Values([0.5, 0.6], [f"{i}", f"{i + 1}"]) for i in range(0, 20, 2)]
    # Ten labels of two patients each, among twenty: each is in seven of eight draws, all of them in every fourth.
    assert all(math.isnan(end) for end in bootstrap_means(columns, resamples=500, seed=0))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]) | st.floats(0, 1), st.sampled_from("abcdefgh")),
        min_size=2,
        max_size=30,
    )
)
def test_the_interval_holds_the_mean_and_stays_within_the_values(cases: list[tuple[float, str]]) -> None:
    values, groups = [value for value, _ in cases], [group for _, group in cases]
    low, high = bootstrap_interval(values, groups, resamples=200)
    if len(set(groups)) < 4:
        assert math.isnan(low)
    assert math.isnan(low) == math.isnan(high)
    if not math.isnan(low):
        assert low < high, "so few patients of one mean have no interval"
        assert min(values) <= low <= np.mean(values) + 1e-12
        assert np.mean(values) - 1e-12 <= high <= max(values)


def test_equal_scores_of_many_patients_have_no_uncertainty() -> None:
    assert bootstrap_interval([0.5] * 10, list("abcdefghij")) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([1.0] * 9, "abcdefghi"),
        ([1.5, 2.0, 1.75, 1.0, 2.5], "aabcc"),  # each patient has the mean 1.75, although cases differ
    ],
)
def test_few_patients_that_agree_by_chance_have_no_interval(values: list[float], groups: str) -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(values, list(groups)))
    assert describe(values, list(groups))["ci95"] is None


@pytest.mark.parametrize("groups", ["", "a", "aa", "ab", "aab", "abc", "abccc"])
def test_fewer_than_four_patients_have_no_interval(groups: str) -> None:
    values = [0.5, 0.75, 1.0, 0.25, 0.3][: len(groups)]
    assert all(math.isnan(end) for end in bootstrap_interval(values, list(groups)))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3, unique=True))
def test_three_patients_would_have_the_range_of_their_scores(values: list[float]) -> None:
    if max(values) - min(values) > 1e-6:
        with patch.object(intervals, "FEWEST_GROUPS", 3):
            assert bootstrap_interval(values, list("abc")) == (min(values), max(values))


def test_rounding_is_no_uncertainty() -> None:
    assert bootstrap_interval([0.1] * 13, list("aaabbcdefghij")) == (0.1, 0.1)
    # Every patient has the same mean, 0.2 up to the last digit, although his slices differ.
    for values, groups in ([0.1, 0.2, 0.3, 0.2], "aaab"), ([0.1, 0.2, 0.3, 0.15, 0.25, 0.2], "aaabbc"):
        many = values + [0.2] * 8
        assert bootstrap_interval(many, [*groups, *"ijklmnop"]) == (pytest.approx(0.2), pytest.approx(0.2))
    low, high = bootstrap_interval([0.0] * 9 + [1e-309], list("abcdefghij"))
    assert low == high, "the square of such a deviation is 0"


def test_neither_the_order_of_the_cases_nor_the_names_matter() -> None:
    rng = np.random.default_rng(1)
    values, groups = rng.random(40), rng.integers(8, size=40)
    expected = bootstrap_interval(values.tolist(), [str(group) for group in groups])
    for _ in range(5):
        order, names = rng.permutation(40), rng.permutation(8)
        moved = bootstrap_interval(values[order].tolist(), [f"p{names[group]}" for group in groups[order]])
        assert moved == expected, "to the last digit"


def test_the_seed_makes_the_interval() -> None:
    values = np.random.default_rng(0).random(20).tolist()
    groups = [str(i) for i in range(20)]
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=1)


def test_a_description_worked_out_on_paper() -> None:
    described = describe([1.0, math.nan, 3.0, 8.0, 4.0], ["a", "b", "c", "c", "d"])
    assert described == {
        "mean": 4.0,
        "median": 3.5,
        "std": pytest.approx(math.sqrt((9 + 1 + 16) / 3)),
        "ci95": None,  # patient b has no value, and three are too few
        "n": 4,
    }


def test_without_the_interval_all_else_is_the_same() -> None:
    described = describe(VALUES, GROUPS)
    assert described["ci95"] == list(bootstrap_interval(VALUES, GROUPS))
    assert describe(VALUES, GROUPS, interval=False) == {**described, "ci95": None}


def test_an_interval_that_is_not_wanted_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*arguments: object) -> None:
        raise AssertionError("an interval was drawn")

    monkeypatch.setattr(intervals, "bootstrap_interval", drawn)
    assert describe(VALUES, GROUPS, interval=False)["n"] == 7


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


def test_one_candidate_has_half_the_two_sided_p_of_the_sign_flip_test() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1, 9)
    assert compute_selection_p(gains[:, None])[0] == pytest.approx(sign_flip_p(gains) / 2)


def test_a_candidate_that_loses_has_no_small_p() -> None:
    assert compute_selection_p(-np.ones((8, 1)))[0] == 1.0


def test_equal_candidates_need_no_correction() -> None:
    gains = np.ones((8, 1))
    assert (compute_selection_p(np.tile(gains, 10)) == compute_selection_p(gains)[0]).all()


def test_different_candidates_correct_each_other_exactly() -> None:
    # Each of the two is best in one of eight combinations of signs, and not in the same one.
    assert compute_selection_p(np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])).tolist() == [0.25, 0.75]


def test_scale_means_nothing() -> None:
    gains = np.random.default_rng(1).normal(0.3, 1, (9, 4))
    assert compute_selection_p(gains).tolist() == compute_selection_p(gains * [1.0, 1e-6, 1e6, 3.0]).tolist()


def test_drawn_combinations_come_near_all_of_them_and_are_never_0() -> None:
    gains = np.random.default_rng(2).normal(0.5, 1, (11, 3))
    assert compute_selection_p(gains, flips=1500) == pytest.approx(compute_selection_p(gains), abs=0.03)
    assert compute_selection_p(np.ones((70, 1)), flips=100)[0] == 0.01
