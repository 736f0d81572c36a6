"""Two runs on the same cases: by how much they differ, how sure that is, and what it would take to show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64

from medseg_pl.core.errors import count_noun
from medseg_pl.io.scores import LENGTHS, count_cases, knows_patients, name_group
from medseg_pl.metrics.statistics.intervals import (
    Totals,
    Values,
    bootstrap_means,
    compute_mean_and_error,
    estimate_rounding,
    format_p,
    note_few_groups,
    sum_groups,
)
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Matched, PairedScores, Table, pair_scores

RESAMPLES = 10_000
ALPHA, POWER = 0.05, 0.80
_HELD_AT_ONCE = 2**17


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs by the paired scores of one label.

    It may also be that of the means over labels.

    Args:
        cases: The number of cases with a score in both runs.
        groups: The number of their patients.
        mean_a: The mean over cases of the first run.
        mean_b: The mean of the second run.
        difference: Mean of the second minus the first.
        interval: 95 % of the difference, drawn over groups; `None` where so few have none.
        p: Of the sign-flip test over groups; `None` with fewer than two.
        p_holm: Corrected for the number of labels; `None` for the mean over labels, which is no member of the family.
        wins: Cases in which the second run is better; `None` for the mean over labels, like the two that follow.
        ties: Cases without a difference.
        losses: Cases in which the first run is better.
        cases_needed: See `estimate_cases_needed`.
    """

    cases: int
    groups: int
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    cases_needed: int | None = None


def compare_labels(
    labels: Mapping[str, PairedScores], *, higher_is_better: bool, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Comparison]:
    """Compare each label for itself, with p-values corrected by Holm's method.

    Args:
        labels: The paired scores of each label.
        higher_is_better: Whether a higher score wins.
        resamples: How many sets of groups are drawn, or signs flipped.
        seed: Makes the result a function of the data alone.

    Returns:
        By label.
    """
    compared = {name: _compare([scores], resamples, seed) for name, scores in labels.items()}
    corrected = holm([comparison.p for comparison in compared.values()])
    for (name, comparison), p in zip(compared.items(), corrected, strict=True):
        wins, ties, losses = _count_wins(labels[name], higher_is_better)
        compared[name] = replace(comparison, p_holm=p, wins=wins, ties=ties, losses=losses)
    return compared


def compare_means(labels: Mapping[str, PairedScores], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare the means over the labels that have a score.

    A group is drawn, or flipped, with all its labels.

    Args:
        labels: The paired scores of each label.
        resamples: How many sets of groups are drawn, or signs flipped.
        seed: Makes the result a function of the data alone.
    """
    return _compare([scores for scores in labels.values() if scores.a], resamples, seed)


def sign_flip_p(sums: Float64[np.ndarray, " g"], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Compute the two-sided p of a sign-flip test over groups.

    The hypothesis is that the runs could change places, group by group. If neither run is better, a group's difference
    could as well have had the other sign; all cases of a group change sign together. Every combination of signs is
    counted where there are no more of them than `resamples`, otherwise that many are drawn and the observed one is
    counted with them, so that p is never 0.

    Args:
        sums: The sum of the differences of each group: the mean over cases is their sum over a constant.
        resamples: The most combinations to try.
        seed: Makes p a function of the data alone.

    References:
        Winkler, Ridgway, Webster, Smith and Nichols, "Permutation inference for the general linear model", NeuroImage
        92:381, 2014; Phipson and Smyth, "Permutation p-values should never be zero", Statistical Applications in
        Genetics and Molecular Biology 9:39, 2010.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.3]))  # of eight combinations two are as extreme: all up and all down
    0.25
    """
    # Not scipy.stats.permutation_test: its draws depend on the order of the groups, while the same cases in another
    # order must give the same p to the last digit.
    sizes = np.sort(np.abs(sums))
    sizes = sizes[sizes > 0]  # a group without a difference has no sign to flip
    observed = abs(float(sums.sum())) - 1e-12 * float(sizes.sum())  # equal sums differ in their last digits
    exact = len(sizes) < 64 and 2 ** len(sizes) <= resamples
    total = 2 ** len(sizes) if exact else resamples
    rng = np.random.default_rng(seed)
    rows = max(1, _HELD_AT_ONCE // max(1, len(sizes)))
    extreme = 0
    for start in range(0, total, rows):
        numbers = np.arange(start, min(start + rows, total))[:, None]
        up = numbers >> np.arange(len(sizes)) & 1 if exact else rng.integers(2, size=(len(numbers), len(sizes)))
        extreme += int((np.abs(((2 * up - 1) * sizes).sum(axis=1)) >= observed).sum())
    return extreme / total if exact else (1 + extreme) / (1 + total)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for the number of comparisons.

    The chance of any false finding among them stays what it was for one.

    Args:
        p_values: One for each hypothesis; `None` is not tested, and not counted.

    References:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6:65, 1979.

    >>> holm([0.25, None, 0.5, 0.125])
    [0.5, None, 0.5, 0.375]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        corrected[i] = least
    return corrected


def estimate_cases_needed(totals: Totals, cases: int) -> int | None:
    r"""Estimate the cases that a study needs to show such a difference.

    It is to show the same mean difference in 80 of 100 studies, with as many cases to a patient as here. With $\delta$
    the mean difference, $\mathrm{SE}$ its cluster-robust standard error and $G$ groups, the groups needed by a paired
    two-sided test at 5 % are

    $$G' = G\,\Big(\frac{(z_{0.975} + z_{0.80})\,\mathrm{SE}}{\delta}\Big)^2 + \frac{z_{0.975}^2}{2},$$

    where $G\,\mathrm{SE}^2$ is the variance of one group's share, so that cases of one patient count for as little as
    they tell; the last term makes up for the variance being estimated. It takes the observed difference for the true
    one: a plan for the next study, and no finding of this one.

    Args:
        totals: Sums and counts of the differences by group.
        cases: The number of these cases.

    Returns:
        `None` where the difference is 0, or with fewer than two groups.

    References:
        Donner, Birkett and Buck, "Randomization by cluster: sample size requirements and analysis", American Journal of
        Epidemiology 114:906, 1981; Guenther, "Sample size formulas for normal theory t tests", The American
        Statistician 35:243, 1981.
    """
    groups = len(totals.sums)
    if groups < 2:
        return None
    difference, error = compute_mean_and_error(totals)
    if abs(difference) <= estimate_rounding(totals):
        return None
    two_sided, power = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(POWER)
    needed = groups * ((two_sided + power) * error / difference) ** 2 + two_sided**2 / 2
    return math.ceil(needed * cases / groups)


def subtract_scores(scores: PairedScores) -> list[float]:
    """Subtract the first run's scores; a difference within rounding is 0."""
    return [
        0.0 if math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) else b - a
        for a, b in zip(scores.a, scores.b, strict=True)
    ]


def _compare(labels: Sequence[PairedScores], resamples: int, seed: int) -> Comparison:
    """Compare the means over labels, of which there may be one."""
    columns = [Values(subtract_scores(scores), scores.groups) for scores in labels]
    cases = len({case for scores in labels for case in scores.cases})
    if not cases:
        return Comparison(cases=0, groups=0)
    totals = sum_groups(columns)
    low, high = bootstrap_means(columns, resamples=resamples, seed=seed)
    shares = (totals.sums / totals.counts.sum(axis=0)).sum(axis=1)
    # What rounding alone made has no sign to flip: ten such signs that agree would show a difference.
    shares = np.where(np.abs(shares) <= estimate_rounding(totals), 0.0, shares)
    return Comparison(
        cases=cases,
        groups=len(shares),
        mean_a=float(np.mean([np.mean(scores.a) for scores in labels])),
        mean_b=float(np.mean([np.mean(scores.b) for scores in labels])),
        difference=compute_mean_and_error(totals)[0],
        interval=None if math.isnan(low) else (low, high),
        p=sign_flip_p(shares, resamples=resamples, seed=seed) if len(shares) > 1 else None,
        cases_needed=estimate_cases_needed(totals, cases),
    )


def _count_wins(scores: PairedScores, higher_is_better: bool) -> tuple[int, int, int]:
    """Count cases in which the second run is better, equal and worse."""
    gains = np.sign(subtract_scores(scores)) * (1 if higher_is_better else -1)
    return int((gains > 0).sum()), int((gains == 0).sum()), int((gains < 0).sum())


def compare_metric(
    matched: Matched, metric: str, tables: Sequence[Table], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Compare two runs by one metric, as plain values.

    Labels are compared one by one, and by the mean over them.

    Args:
        matched: The paired rows.
        metric: A column that says which run is better.
        tables: Both tables, for their names in errors.
        resamples: See `medseg_pl.metrics.statistics.comparison`.
        seed: Likewise.

    Returns:
        `higher_is_better`; `unit` (`mm`, `px`, or `None` for a score without one); `labels.<label>` with the fields of
        `Comparison`, `undefined`, `false_alarms_a`, `false_alarms_b` and `better` (`a`, `b` or `None`); `mean` with
        the fields of `Comparison`.
    """
    higher_is_better = HIGHER_IS_BETTER[metric]
    scores = pair_scores(matched, metric, *(table.name for table in tables))
    compared = compare_labels(scores, higher_is_better=higher_is_better, resamples=resamples, seed=seed)
    return {
        "higher_is_better": higher_is_better,
        "unit": matched.pairs[0][0].get("unit") if metric in LENGTHS and matched.pairs else None,
        "labels": {name: _describe_label(scores[name], compared[name], higher_is_better) for name in scores},
        "mean": asdict(compare_means(scores, resamples=resamples, seed=seed)),
        "patients_known": knows_patients((str(row["case_id"]), str(row["group"])) for row, _ in matched.pairs),
    }


def conclude(metric: str, labels: Mapping[str, Mapping[str, Any]]) -> str:
    """Name in words which run is better for which labels.

    >>> conclude("dice", {"liver": {"better": "b"}, "spleen": {"better": None}})
    'dice: B is better for liver; no difference is shown for spleen.'
    """
    parts = []
    for side, said in (("b", "B is better for"), ("a", "A is better for"), (None, "no difference is shown for")):
        if names := [name for name, fields in labels.items() if fields["better"] == side]:
            parts.append(f"{said} {', '.join(names)}")
    return f"{metric}: {'; '.join(parts)}."


def choose_digits(metric: str) -> int:
    """Choose the digits after the point for a compared metric.

    >>> choose_digits("hd95"), choose_digits("dice")
    (2, 3)
    """
    return 2 if metric in LENGTHS else 3


def count_compared(compared: Mapping[str, Any]) -> str:
    """Count the cases that one metric was compared on, and their patients where they are known.

    Args:
        compared: As `compare_metric` gives it.
    """
    mean = compared["mean"]
    return count_cases({**compared, "n_cases": mean["cases"], "n_groups": mean["groups"]})


def list_notes(compared: Mapping[str, Any]) -> list[str]:
    """List what a reader should know of one compared metric.

    Args:
        compared: As `compare_metric` gives it.
    """
    labels, noun = compared["labels"], name_group(compared)
    notes = (note_too_few(labels, noun), note_narrow_intervals(labels, noun), note_empty_masks(labels))
    return [note for note in notes if note]


def note_too_few(labels: Mapping[str, Mapping[str, Any]], noun: str = "patient") -> str:
    """Note that too few patients can show no difference; empty otherwise.

    Of 2^G combinations of signs two are as extreme as any.

    Args:
        labels: What `compare_metric` gives of each.
        noun: What groups are called: `name_group` knows.

    >>> note_too_few({"liver": {"groups": 5}})
    'With 5 patients p is at least 0.062: no difference can be shown, however large.'
    """
    tested = [fields["groups"] for fields in labels.values() if fields["groups"] > 1]
    groups = max(tested, default=0)
    if not tested:
        return f"With fewer than two {noun}s there is neither an interval nor a p."
    least = min(1.0, 2 * len(tested) / 2**groups)
    if least < ALPHA:
        return ""
    p = "the corrected p" if len(tested) > 1 else "p"
    return (
        f"With {count_noun(groups, noun)} {p} is at least {format_p(least)}: no difference can be shown, however large."
    )


def note_narrow_intervals(labels: Mapping[str, Mapping[str, Any]], noun: str = "patient") -> str:
    """Note what few patients do to intervals; empty otherwise.

    Args:
        labels: What `compare_metric` gives of each.
        noun: What groups are called: `name_group` knows.

    >>> note_narrow_intervals({"liver": {"groups": 10}})
    ''
    """
    groups = max((fields["groups"] for fields in labels.values()), default=0)
    return note_few_groups(groups, noun) if groups > 1 else ""


def note_empty_masks(labels: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe the cases with an empty reference, if there are any."""
    undefined, alarms_a, alarms_b = (
        sum(fields[name] for fields in labels.values()) for name in ("undefined", "false_alarms_a", "false_alarms_b")
    )
    rows = count_noun(undefined, "row without a score in either run is", "rows without a score in either run are")
    said = [f"{rows} left out"] if undefined else []
    if alarms_a or alarms_b:
        said.append(
            f"where one run alone found what the reference has not, the other got the best score (false alarms: "
            f"{alarms_a} of A, {alarms_b} of B)"
        )
    return f"Empty references: {'; '.join(said)}." if said else ""


def _describe_label(scores: PairedScores, comparison: Comparison, higher_is_better: bool) -> dict[str, Any]:
    """Describe one label."""
    better = None
    if comparison.p_holm is not None and comparison.p_holm < ALPHA:
        assert comparison.difference, "without a difference p is 1"
        better = "b" if (comparison.difference > 0) == higher_is_better else "a"
    return {
        **asdict(comparison),
        "undefined": scores.undefined,
        "false_alarms_a": scores.false_alarms_a,
        "false_alarms_b": scores.false_alarms_b,
        "better": better,
    }
