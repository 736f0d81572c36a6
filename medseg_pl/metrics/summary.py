"""From one row for each case and label to the few numbers that a paper reports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medseg_pl.metrics.case_metric import DISTANCES, FALSE_ALARM, MISSED, UNDEFINED, CaseScore
from medseg_pl.metrics.cautions import interval_cautions
from medseg_pl.metrics.functional.overlap import OverlapCounts, dice
from medseg_pl.metrics.overlap import FORMULAS
from medseg_pl.metrics.statistics.intervals import describe

Strata = Mapping[str, Mapping[str, str]]
"""What is known of each case, by its id: `{"case_1": {"site": "A"}}`."""


def summarize(
    scores: Sequence[CaseScore], names: Sequence[str], *, intervals: bool = True, strata: Strata | None = None
) -> dict[str, Any]:
    """The content of `summary_<stage>.json`.

    Per label the mean over cases with its interval, drawn over groups; `foreground_mean` is the mean of the labels'
    means. Pooled Dice comes from the summed counts and has a name of its own: large cases outweigh small ones in it,
    and leaving a bad case out can improve it.

    Args:
        scores: One for each case and label.
        names: The labels, in their order.
        intervals: Whether the bootstrap intervals are wanted, which take most of the time; `cautions` come with them.
        strata: Where given, `strata.<name>.<value>` summarizes the cases of each value, such as those of each site.
    """
    summary = _summary(scores, names, intervals)
    for stratum in dict.fromkeys(name for known in (strata or {}).values() for name in known):
        values = {case_id: known[stratum] for case_id, known in (strata or {}).items() if stratum in known}
        summary.setdefault("strata", {})[stratum] = {
            value: _summary([score for score in scores if values.get(score.case_id) == value], names, intervals)
            for value in sorted({values[score.case_id] for score in scores if score.case_id in values})
        }
    return summary


def foreground_mean(labels: dict[str, dict[str, Any]], metric: str) -> float | None:
    """The mean of the labels' means; labels that no case has are left out, `None` where that is all of them."""
    means = [label[metric]["mean"] for label in labels.values() if metric in label]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known else None


def _summary(scores: Sequence[CaseScore], names: Sequence[str], intervals: bool) -> dict[str, Any]:
    of_label = {name: [score for score in scores if score.label == name] for name in names}
    metrics = _metrics(scores)
    labels = {name: _label(rows, metrics, intervals) for name, rows in of_label.items()}
    averaged = [metric for metric in metrics if not metric.startswith("volume_")]
    return {
        "foreground_mean": {metric: foreground_mean(labels, metric) for metric in averaged},
        "labels": labels,
        "pooled": {name: {"dice": _pooled_dice(rows)} for name, rows in of_label.items()},
        "units": sorted({score.unit for score in scores}),
        "n_cases": len({score.case_id for score in scores}),
        "n_groups": len({score.group for score in scores}),
        **({"cautions": interval_cautions(scores, names)} if intervals else {}),
    }


def _label(scores: Sequence[CaseScore], metrics: Sequence[str], intervals: bool) -> dict[str, Any]:
    groups = [score.group for score in scores]
    described = {
        metric: describe([float(score.values.get(metric, math.nan)) for score in scores], groups, interval=intervals)
        for metric in metrics
    }
    statuses = Counter(score.status for score in scores)
    counts = {"n_undefined": statuses[UNDEFINED], "n_missed": statuses[MISSED], "n_false_alarm": statuses[FALSE_ALARM]}
    return {**described, "counts": counts}


def _metrics(scores: Sequence[CaseScore]) -> list[str]:
    """The columns that are scores, in the table's order: all but the counts.

    Distances are left out where some cases have them in mm and others in pixels: their mean would mean nothing.
    """
    columns = dict.fromkeys(name for score in scores for name in score.values) if scores else FORMULAS
    left_out = {*OverlapCounts._fields}
    if len({score.unit for score in scores}) > 1:
        left_out |= {*DISTANCES}
    return [name for name in columns if name not in left_out]


def _pooled_dice(scores: Sequence[CaseScore]) -> float | None:
    zero = OverlapCounts(0, 0, 0)
    total = sum((OverlapCounts(*(int(s.values[key]) for key in OverlapCounts._fields)) for s in scores), zero)
    value = dice(total)
    return None if math.isnan(value) else value
