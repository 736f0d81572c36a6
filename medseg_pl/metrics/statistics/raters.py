"""Agreement of a prediction with several raters, beside the agreement of these raters with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg_pl.io.scores import LENGTHS
from medseg_pl.metrics.case_metric import NOT_ANNOTATED, CaseScore
from medseg_pl.metrics.statistics.intervals import describe, format_interval, format_number
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Row

PREDICTION = "prediction"
"""What the prediction is called among raters."""

SYMMETRIC = ("dice", "iou", "hd95", "assd", "nsd")
"""Scores that are the same whichever of two masks is the reference."""

Pair = tuple[str, str]

_SHOWN = ("dice", "hd95")
"""Scores that are printed; the summary has all of them."""

_VERDICTS = {verdict: f"{verdict} inter-rater agreement" for verdict in ("below", "above", "within")}


class Agreement(NamedTuple):
    """Scores of one label and metric in each case.

    Attributes:
        groups: The patient of each case.
        pairs: For each two that were compared, their score in each case; NaN where both masks are empty.
        prediction: The mean over the raters of the prediction's scores.
        raters: The mean over the pairs of raters.
        unit: Of the scores; `None` where they have none.
    """

    groups: list[str]
    pairs: dict[Pair, list[float]]
    prediction: list[float]
    raters: list[float]
    unit: str | None


def summarize_agreement(tables: Mapping[Pair, Sequence[CaseScore]], names: Sequence[str]) -> dict[str, Any]:
    r"""Compute the part `raters` of a summary.

    In each case the prediction $P$ is compared with every rater $R_i$, and each two raters with each other:

    $$m = \operatorname{mean}_i s(P, R_i), \qquad h = \operatorname{mean}_{i<j} s(R_i, R_j), \qquad d = m - h.$$

    The interval of the mean of $d$ is drawn over patients. The prediction is `below` where the interval is on the worse
    side of 0 as a whole, `above` where it is on the better side, and `within` inter-rater agreement else; without
    an interval there is no verdict. Where two masks are both empty they agree, with the best score; where all are, the
    case is left out.

    Args:
        tables: The scores of each two masks; `PREDICTION` is one of the two, or both are raters.
        names: The labels, in their order.
    """
    return {
        name: {
            metric: _describe(agreement, HIGHER_IS_BETTER[metric])
            for metric in SYMMETRIC
            if (agreement := _collect(tables, name, metric)) is not None
        }
        for name in names
    }


def list_agreement_rows(tables: Mapping[Pair, Sequence[CaseScore]]) -> list[Row]:
    """List the symmetric scores by pair of masks, case and label."""
    return [
        {
            **{"first": pair[0], "second": pair[1], "case_id": score.case_id, "group": score.group},
            **{"label": score.label, "status": score.status, "unit": score.unit},
            **{metric: score.values[metric] for metric in SYMMETRIC if metric in score.values},
        }
        for pair, table in tables.items()
        for score in table
    ]


def describe_agreement(summary: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Describe how prediction and raters agree with each other, in lines.

    Args:
        summary: As `summarize_agreement` gives it.
    """
    for label, metrics in summary.items():
        for metric, described in metrics.items():
            if metric not in _SHOWN:
                continue
            yield f"{label}, {metric}{f' in {unit}' if (unit := described['unit']) else ''}:"
            for pair, fields in described["pairs"].items():
                interval = format_interval(fields["ci95"])
                yield f"  {pair:40} {format_number(fields['mean'], 4)}  ({interval})"
            difference = described["difference"]
            if described["verdict"] is not None:
                mean = f"{difference['mean']:+.4f} (95 % interval {format_interval(difference['ci95'])})"
                yield f"  {_VERDICTS[described['verdict']]}: {mean}"


def _collect(tables: Mapping[Pair, Sequence[CaseScore]], label: str, metric: str) -> Agreement | None:
    """Collect a label's metric; `None` if unmeasured or in different units."""
    rows = {
        pair: {row.case_id: row for row in table if row.label == label and row.status != NOT_ANNOTATED}
        for pair, table in tables.items()
    }
    known = sorted(set.intersection(*(set(each) for each in rows.values())))
    every = [row for each in rows.values() for row in each.values()]
    if any(metric not in row.values for row in every) or len({row.unit for row in every}) > 1:
        return None
    scores = {pair: [float(each[case_id].values[metric]) for case_id in known] for pair, each in rows.items()}
    best = float(HIGHER_IS_BETTER[metric])
    filled = {pair: np.where(np.isnan(values), best, values) for pair, values in scores.items()}
    is_defined = ~np.isnan(np.array(list(scores.values()))).all(axis=0) if known else np.zeros(0, bool)
    sides = ([pair for pair in scores if PREDICTION in pair], [pair for pair in scores if PREDICTION not in pair])
    means = [np.mean([filled[pair] for pair in side], axis=0)[is_defined].tolist() for side in sides]
    first = next(iter(rows.values()))
    groups = [first[case_id].group for case_id, kept in zip(known, is_defined, strict=True) if kept]
    pairs = {pair: np.array(values)[is_defined].tolist() for pair, values in scores.items()}
    unit = every[0].unit if metric in LENGTHS and every else None
    return Agreement(groups, pairs, means[0], means[1], unit)


def _describe(agreement: Agreement, higher_is_better: bool) -> dict[str, Any]:
    differences = [a - b for a, b in zip(agreement.prediction, agreement.raters, strict=True)]
    difference = describe(differences, agreement.groups)
    return {
        "pairs": {" – ".join(pair): describe(values, agreement.groups) for pair, values in agreement.pairs.items()},
        "prediction": describe(agreement.prediction, agreement.groups),
        "raters": describe(agreement.raters, agreement.groups),
        "difference": difference,
        "verdict": _judge(difference["ci95"], higher_is_better),
        "unit": agreement.unit,
    }


def _judge(interval: Any, higher_is_better: bool) -> str | None:
    """Judge by the interval of the difference, prediction less raters.

    >>> _judge([-0.2, -0.1], True), _judge([-0.2, -0.1], False), _judge([-0.1, 0.1], True)
    ('below', 'above', 'within')
    """
    if interval is None or any(math.isnan(end) for end in interval):
        return None
    low, high = interval if higher_is_better else (-interval[1], -interval[0])
    return "below" if high < 0 else "above" if low > 0 else "within"
