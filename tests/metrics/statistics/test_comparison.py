"""Paired tests: on paper, against scipy, and against the power that they promise."""

from __future__ import annotations

import math
from dataclasses import asdict

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from medseg_pl.metrics.statistics.comparison import (
    Comparison,
    compare_labels,
    compare_means,
    estimate_cases_needed,
    holm,
    note_empty_masks,
    note_narrow_intervals,
    note_too_few,
    sign_flip_p,
    subtract_scores,
)
from medseg_pl.metrics.statistics.intervals import Values, bootstrap_interval, sum_groups
from medseg_pl.metrics.statistics.paired_scores import PairedScores

A = [0.80, 0.70, 0.90, 0.60, 0.75, 0.85]
B = [0.85, 0.72, 0.90, 0.70, 0.74, 0.91]
GROUPS = ["p", "p", "q", "r", "s", "s"]


def paired(a: list[float], b: list[float], groups: list[str], first: int = 0) -> PairedScores:
    return PairedScores([f"c{first + i}" for i in range(len(a))], groups, a, b, 0, 0, 0)


@pytest.mark.parametrize(
    ("sums", "p"),
    [
        ([0.1, 0.2, 0.3], 2 / 8),  # all up and all down
        ([0.1, 0.2, -0.3], 8 / 8),  # the sum is 0: nothing is less extreme
        ([0.1, 0.3, -0.1], 6 / 8),  # 0.3, as 0.3 ± 0.1 ± 0.1, is reached by three of the four with 0.3 up
        ([0.0, 0.1, 0.2, 0.0, 0.3], 2 / 8),  # who has no difference decides nothing
        ([0.0, 0.0], 1.0),
        ([1.0] * 10, 2 / 1024),
    ],
)
def test_p_on_paper(sums: list[float], p: float) -> None:
    assert sign_flip_p(np.array(sums)) == p


def test_p_is_that_of_scipy_where_each_patient_has_one_case() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.random((2, 9))
        theirs = scipy.stats.permutation_test(
            (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10_000
        )
        assert sign_flip_p(b - a) == pytest.approx(theirs.pvalue)


def test_drawn_flips_agree_with_all_of_them() -> None:
    sums = np.random.default_rng(1).normal(0.4, 1, size=14)
    exact = sign_flip_p(sums, resamples=2**14)
    drawn = sign_flip_p(sums, resamples=2**14 - 1)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**14))


def test_p_is_never_zero() -> None:
    assert sign_flip_p(np.ones(40), resamples=999) == 1 / 1000
    assert sign_flip_p(np.ones(100), resamples=999, seed=1) == 1 / 1000


def test_drawing_goes_on_after_the_first_block() -> None:
    # 3,000 patients fill a block within 43 flips.
    p = sign_flip_p(np.random.default_rng(0).normal(size=3000), resamples=5000)
    normal = 2 * scipy.stats.norm.sf(abs(np.random.default_rng(0).normal(size=3000).sum()) / math.sqrt(3000))
    assert p == pytest.approx(normal, abs=0.05)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.randoms())
def test_p_depends_neither_on_order_nor_on_which_run_comes_first(sums: list[float], random: object) -> None:
    p = sign_flip_p(np.array(sums), resamples=200)
    random.shuffle(sums)  # type: ignore[attr-defined]
    assert 0 < p <= 1
    assert sign_flip_p(np.array(sums), resamples=200) == pytest.approx(p)
    assert sign_flip_p(-np.array(sums), resamples=200) == pytest.approx(p)


def test_holm_on_paper() -> None:
    # Sorted .01 .02 .03 .04 times 4, 3, 2, 1 is .04 .06 .06 .04, and none may be below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([None, 0.03]) == [None, 0.03]
    assert holm([]) == []


def test_cases_needed_on_paper() -> None:
    # Differences .1 .3 .1 .3 of four patients: mean .2, standard error .2 / sqrt(12), so (2.80 * SE / mean)^2 is
    # 7.85 / 12; times four, and 1.92 on top, is 4.54.
    assert estimate_cases_needed(sum_groups([Values([0.1, 0.3, 0.1, 0.3], list("abcd"))]), 4) == 5
    # Each case twice tells nothing new: as many patients, twice the cases.
    twice = sum_groups([Values([0.1, 0.3, 0.1, 0.3] * 2, list("abcd") * 2)])
    assert estimate_cases_needed(twice, 8) == 10


@pytest.mark.parametrize("values", [[0.2, -0.2], [0.0, 0.0], [0.1 + 0.2, -0.3], [0.5]])
def test_without_a_difference_or_a_second_patient_no_number_is_enough(values: list[float]) -> None:
    assert estimate_cases_needed(sum_groups([Values(values, list("ab")[: len(values)])]), len(values)) is None


@pytest.mark.parametrize("effect", [0.2, 0.3, 0.5, 0.8, 1.2])
def test_the_number_has_the_power_of_the_t_test(effect: float) -> None:
    deviations = np.array([-1.0, 1.0] * 10) * math.sqrt(19 / 20)  # standard deviation 1
    n = estimate_cases_needed(sum_groups([Values((effect + deviations).tolist(), [str(i) for i in range(20)])]), 20)
    assert n is not None
    critical = scipy.stats.t.ppf(0.975, n - 1)
    power = scipy.stats.nct.sf(critical, n - 1, effect * math.sqrt(n))
    assert 0.79 < power < 0.86


def test_a_comparison_worked_out_on_paper() -> None:
    (compared,) = compare_labels({"liver": paired(A, B, GROUPS)}, higher_is_better=True).values()
    # Sums of p, q, r, s: .07, 0, .10, .05: of eight combinations of signs two reach .22.
    assert asdict(compared) == {
        "cases": 6,
        "groups": 4,
        "mean_a": pytest.approx(4.60 / 6),
        "mean_b": pytest.approx(4.82 / 6),
        "difference": pytest.approx(0.22 / 6),
        "interval": pytest.approx(bootstrap_interval(subtract_scores(paired(A, B, GROUPS)), GROUPS, resamples=10_000)),
        "p": 2 / 8,
        "p_holm": 2 / 8,
        "wins": 4,
        "ties": 1,
        "losses": 1,
        "cases_needed": compared.cases_needed,
    }
    # Shares minus the mean: p .07 - 2m, q -m, r .10 - m, s .05 - 2m with m = .22 / 6.
    shares = np.array([0.07, 0, 0.10, 0.05]) - np.array([2, 1, 1, 2]) * 0.22 / 6
    error = math.sqrt(4 / 3 * (shares**2).sum()) / 6
    assert compared.cases_needed == math.ceil(6 / 4 * (4 * (2.801585 * error / (0.22 / 6)) ** 2 + 1.920729))


def test_where_less_is_better_wins_and_losses_change_places() -> None:
    labels = {"liver": paired(A, B, GROUPS)}
    higher, lower = (compare_labels(labels, higher_is_better=better)["liver"] for better in (True, False))
    assert (lower.wins, lower.ties, lower.losses) == (higher.losses, higher.ties, higher.wins) == (1, 1, 4)
    assert lower.difference == higher.difference


def test_the_last_digit_is_no_difference() -> None:
    a, b = [0.1 + 0.2, 1 / 3, 12.5], [0.3, 1 - 2 / 3, 12.5 * (1 + 1e-15)]
    assert a != b
    (compared,) = compare_labels({"liver": paired(a, b, list("pqr"))}, higher_is_better=True).values()
    assert (compared.wins, compared.ties, compared.losses) == (0, 3, 0)
    assert (compared.difference, compared.interval, compared.p) == (0.0, None, 1.0)
    assert compared.cases_needed is None


def test_patients_are_flipped_and_not_their_images() -> None:
    # Two patients of five images each: all images agree, which two patients could do by chance.
    a, b = [0.5] * 10, [0.6] * 10
    (patients,) = compare_labels({"x": paired(a, b, ["p"] * 5 + ["q"] * 5)}, higher_is_better=True).values()
    (images,) = compare_labels({"x": paired(a, b, list("abcdefghij"))}, higher_is_better=True).values()
    assert (patients.p, images.p) == (2 / 4, 2 / 1024)


def test_holm_counts_the_labels_that_are_tested() -> None:
    labels = {
        "strong": paired([0.5] * 8, [0.6] * 8, list("abcdefgh")),
        "one_patient": paired([0.5, 0.5], [0.6, 0.7], ["a", "a"]),
        "none": paired([], [], []),
        "equal": paired([0.5] * 8, [0.5] * 8, list("abcdefgh")),
    }
    compared = compare_labels(labels, higher_is_better=True)
    assert [compared[name].p for name in labels] == [2 / 256, None, None, 1.0]
    assert [compared[name].p_holm for name in labels] == [4 / 256, None, None, 1.0]
    assert compared["one_patient"].interval is None
    assert compared["one_patient"].difference == pytest.approx(0.15)
    assert compared["none"] == Comparison(cases=0, groups=0, wins=0, ties=0, losses=0)


def test_the_mean_over_labels_weighs_labels_and_not_cases() -> None:
    labels = {
        "common": paired([0.5] * 4, [0.6] * 4, list("pqrs")),
        "rare": paired([0.5, 0.5], [0.8, 0.8], list("pq")),
        "none": paired([], [], []),
    }
    mean = compare_means(labels)
    assert (mean.cases, mean.groups) == (4, 4)
    assert (mean.mean_a, mean.mean_b) == (pytest.approx(0.5), pytest.approx(0.7))
    assert mean.difference == pytest.approx(0.2)
    assert mean.p == 2 / 16
    assert (mean.p_holm, mean.wins, mean.ties, mean.losses) == (None,) * 4


def test_a_patient_changes_sign_with_all_his_labels() -> None:
    # Patient by patient the gain of one label is the loss of the other: however flipped, the mean stays 0.
    labels = {
        "up": paired([0.5] * 10, [0.6, 0.7, 0.8, 0.6, 0.9] * 2, list("abcdefghij")),
        "down": paired([0.5] * 10, [0.4, 0.3, 0.2, 0.4, 0.1] * 2, list("abcdefghij")),
    }
    mean = compare_means(labels)
    assert mean.p == 1.0
    assert mean.difference == pytest.approx(0, abs=1e-15)
    assert mean.interval == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_of_one_label_the_mean_over_labels_is_the_label() -> None:
    scores = {"liver": paired(A, B, GROUPS)}
    label, mean = compare_labels(scores, higher_is_better=True)["liver"], compare_means(scores)
    for name in ("difference", "interval", "p", "cases_needed"):
        assert getattr(mean, name) == getattr(label, name)


def test_the_first_run_minus_the_second_is_the_same_the_other_way_round() -> None:
    (forth,) = compare_labels({"x": paired(A, B, GROUPS)}, higher_is_better=True).values()
    (back,) = compare_labels({"x": paired(B, A, GROUPS)}, higher_is_better=True).values()
    assert (back.difference, back.p, back.cases_needed) == (-forth.difference, forth.p, forth.cases_needed)  # type: ignore[operator]


def test_the_least_corrected_p() -> None:
    labels = {name: {"groups": 6} for name in ("liver", "spleen")}
    assert note_too_few(labels).startswith("With 6 patients the corrected p is at least 0.062:")
    assert not note_too_few({"liver": {"groups": 6}})


def test_what_became_of_empty_references_is_told_only_where_there_are_some() -> None:
    none = {"undefined": 0, "false_alarms_a": 0, "false_alarms_b": 0}
    assert not note_empty_masks({"liver": none})
    said = note_empty_masks({"liver": none, "spleen": {"undefined": 2, "false_alarms_a": 1, "false_alarms_b": 0}})
    assert said.startswith("Empty references: 2 rows without a score")
    assert "(false alarms: 1 of A, 0 of B)" in said


def test_intervals_over_few_groups_are_said_to_be_too_narrow() -> None:
    assert note_narrow_intervals({"a": {"groups": 1}, "b": {"groups": 9}}).startswith("With 9 patients")
    assert note_narrow_intervals({"a": {"groups": 1}}) == ""
    assert note_narrow_intervals({"a": {"groups": 4}, "b": {"groups": 10}}) == ""
