"""From one row for each case and label to the few numbers that a paper reports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from medseg_pl.functional.overlap import OverlapCounts, dice
from medseg_pl.functional.statistics import describe
from medseg_pl.metrics.case_metric import FALSE_ALARM, MISSED, UNDEFINED, Score
from medseg_pl.metrics.overlap import FORMULAS


def summarise(scores: Sequence[Score], names: Sequence[str], *, intervals: bool = True) -> dict[str, Any]:
    """The content of `summary_<stage>.json`.

    Per label the mean over cases with its interval, drawn over groups; `foreground_mean` is the mean of the labels'
    means. Pooled Dice comes from the summed counts, and has a name of its own.

    Args:
        scores: One for each case and label.
        names: The labels, in their order.
        intervals: Whether the bootstrap intervals are wanted, which take most of the time.
    """
    labels = {name: _label([score for score in scores if score.label == name], intervals) for name in names}
    averaged = [metric for metric in _metrics(scores) if not metric.startswith("volume_")]
    return {
        "foreground_mean": {metric: foreground_mean(labels, metric) for metric in averaged},
        "labels": labels,
        "pooled": {name: {"dice": _pooled_dice([s for s in scores if s.label == name])} for name in names},
        "n_cases": len({score.case_id for score in scores}),
        "n_groups": len({score.group for score in scores}),
    }


def foreground_mean(labels: dict[str, dict[str, Any]], metric: str) -> float | None:
    """The mean of the labels' means; labels that no case has are left out, `None` where that is all of them."""
    means = [label[metric]["mean"] for label in labels.values() if metric in label]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known else None


def _label(scores: Sequence[Score], intervals: bool) -> dict[str, Any]:
    groups = [score.group for score in scores]
    described = {
        metric: describe([float(score.values.get(metric, math.nan)) for score in scores], groups, interval=intervals)
        for metric in _metrics(scores)
    }
    statuses = Counter(score.status for score in scores)
    counts = {"n_undefined": statuses[UNDEFINED], "n_missed": statuses[MISSED], "n_false_alarm": statuses[FALSE_ALARM]}
    return {**described, "counts": counts}


def _metrics(scores: Sequence[Score]) -> list[str]:
    """The columns that are scores, in the table's order: those that a formula names, and any own metric's."""
    counted = set(OverlapCounts._fields)
    # Some cases may have columns that others lack: volumes, where the spacing is known.
    columns = dict.fromkeys(name for score in scores for name in score.values) if scores else FORMULAS
    return [name for name in columns if name not in counted]


def _pooled_dice(scores: Sequence[Score]) -> float | None:
    zero = OverlapCounts(0, 0, 0)
    total = sum((OverlapCounts(*(int(s.values[key]) for key in OverlapCounts._fields)) for s in scores), zero)
    value = dice(total)
    return None if math.isnan(value) else value
