"""One metric of two runs as `medseg compare` writes it, and what that says in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medseg_pl.metrics.statistics.comparison import ALPHA, Comparison, compare_labels, compare_means
from medseg_pl.metrics.statistics.intervals import FEW_GROUPS, HELD_WITH_FEW
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Matched, PairedScores, Table, scores_by_label


def compare_metric(
    matched: Matched, metric: str, tables: Sequence[Table], *, resamples: int, seed: int
) -> dict[str, Any]:
    """One metric of paired rows, by label and for the mean over labels: plain values.

    Args:
        matched: The paired rows.
        metric: A column that says which run is better.
        tables: Both tables, for their names in errors.
        resamples: See `medseg_pl.metrics.statistics.comparison`.
        seed: The same.

    Returns:
        `higher_is_better`; `labels.<label>` with the fields of `Comparison`, `undefined`, `false_alarms_a`,
        `false_alarms_b` and `better` (`a`, `b` or `None`); `mean` with the fields of `Comparison`.
    """
    higher_is_better = HIGHER_IS_BETTER[metric]
    scores = scores_by_label(matched, metric, *(table.name for table in tables))
    compared = compare_labels(scores, higher_is_better=higher_is_better, resamples=resamples, seed=seed)
    return {
        "higher_is_better": higher_is_better,
        "labels": {name: _label(scores[name], compared[name], higher_is_better) for name in scores},
        "mean": asdict(compare_means(scores, resamples=resamples, seed=seed)),
    }


def verdict(metric: str, labels: Mapping[str, Mapping[str, Any]]) -> str:
    """Which run is better for which labels, in words.

    >>> verdict("dice", {"liver": {"better": "b"}, "spleen": {"better": None}})
    'dice: B is better for liver; no difference is shown for spleen.'
    """
    parts = []
    for side, said in (("b", "B is better for"), ("a", "A is better for"), (None, "no difference is shown for")):
        if names := [name for name, fields in labels.items() if fields["better"] == side]:
            parts.append(f"{said} {', '.join(names)}")
    return f"{metric}: {'; '.join(parts)}."


def too_few(labels: Mapping[str, Mapping[str, Any]]) -> str:
    """What cannot be shown, whatever the scores: of 2^G combinations of signs two are as extreme as any.

    >>> too_few({"liver": {"groups": 5}})
    'With 5 groups p is at least 0.0625: no difference can be shown, however large.'
    """
    tested = [fields["groups"] for fields in labels.values() if fields["groups"] > 1]
    groups = max(tested, default=0)
    if not tested:
        return "With fewer than two groups there is neither an interval nor a p."
    least = min(1.0, 2 * len(tested) / 2**groups)
    if least < ALPHA:
        return ""
    p = "the corrected p" if len(tested) > 1 else "p"
    return f"With {groups} groups {p} is at least {least:.3g}: no difference can be shown, however large."


def narrow_intervals(labels: Mapping[str, Mapping[str, Any]]) -> str:
    """Say that intervals over few groups are too narrow; nothing where there are enough.

    >>> narrow_intervals({"liver": {"groups": 10}})
    ''
    """
    groups = max((fields["groups"] for fields in labels.values()), default=0)
    if not 2 <= groups < FEW_GROUPS:
        return ""
    low, high = HELD_WITH_FEW
    return f"{groups} groups make a 95 % interval too narrow; with 5 it holds the mean {low} to {high} times in 100."


def empty_masks(labels: Mapping[str, Mapping[str, Any]]) -> str:
    """What became of the cases in which the reference is empty; nothing where there are none."""
    undefined, alarms_a, alarms_b = (
        sum(fields[name] for fields in labels.values()) for name in ("undefined", "false_alarms_a", "false_alarms_b")
    )
    said = [f"{undefined} rows without a score in either run are left out"] if undefined else []
    if alarms_a or alarms_b:
        said.append(
            f"where one run alone found what the reference has not, the other got the best score (false alarms: "
            f"{alarms_a} of A, {alarms_b} of B)"
        )
    return f"Empty references: {'; '.join(said)}." if said else ""


def _label(scores: PairedScores, comparison: Comparison, higher_is_better: bool) -> dict[str, Any]:
    """The fields of one label."""
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
