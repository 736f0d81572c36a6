"""From one row for each object to recall by size, false positives per case and a FROC curve."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg_pl.metrics.case_metric import NOT_ANNOTATED, CaseScore
from medseg_pl.metrics.objects import INVENTED, MATCHED, MISSED, ObjectRow, ObjectTable
from medseg_pl.metrics.statistics.intervals import describe

# More points of a FROC curve than a page can show say nothing more.
_MOST_POINTS = 100


def summarize_objects(objects: ObjectTable, scores: Sequence[CaseScore], names: Sequence[str]) -> dict[str, Any]:
    """Compute the part `objects` of a summary, pooled over cases.

    Intervals are drawn over patients. `recall` and `precision` are shares of objects, so cases with many objects weigh
    more than in the means over cases.

    Args:
        objects: The objects of all cases.
        scores: One for each case and label, from `ObjectMetric`.
        names: The labels, in their order.
    """
    return {name: _summarize_label(objects, scores, name) for name in names}


def _summarize_label(objects: ObjectTable, scores: Sequence[CaseScore], name: str) -> dict[str, Any]:
    rows = [row for row in objects.rows if row["label"] == name]
    cases = [score for score in scores if score.label == name and score.status != NOT_ANNOTATED]
    groups = [score.group for score in cases]
    reference = [row for row in rows if row["mask"] == "reference"]
    prediction = [row for row in rows if row["mask"] == "prediction"]
    totals = Counter((row["case_id"], row["mask"]) for row in rows)
    alarms = Counter(row["case_id"] for row in prediction if row["status"] == INVENTED)
    invented = [alarms[score.case_id] for score in cases]
    errors = [abs(totals[score.case_id, "reference"] - totals[score.case_id, "prediction"]) for score in cases]
    summary = {
        "n_reference": len(reference),
        "n_prediction": len(prediction),
        "n_missed": sum(row["status"] == MISSED for row in reference),
        "n_invented": sum(invented),
        "recall": _describe_share(reference),
        "precision": _describe_share(prediction),
        "recall_by_size": bin_recall(reference, objects.size_bins_ml),
        "false_positives_per_case": describe(list(map(float, invented)), groups),
        "absolute_count_error": describe(list(map(float, errors)), groups),
    }
    if any("confidence" in row for row in rows):
        summary["froc"] = list_froc_points(reference, prediction, len(cases))
    return summary


def bin_recall(reference: Sequence[ObjectRow], limits_ml: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Compute the share of the reference's objects found, by their size.

    Sizes are in ml, or in voxels where a spacing is unknown.

    Args:
        reference: Rows of the reference's objects.
        limits_ml: Between the bins; quartiles of the sizes by default, or where sizes are voxels.

    Returns:
        For each bin `from`, `to` (beyond it but for the last), `unit`, and mean, interval and number of its objects.
    """
    if not reference:
        return []
    volumes = [float(row["volume_ml"]) for row in reference]
    known = not any(map(math.isnan, volumes))
    sizes = np.array(volumes if known else [float(row["voxels"]) for row in reference])
    inner = np.array(limits_ml) if limits_ml and known else np.quantile(sizes, [0.25, 0.5, 0.75])
    edges = np.unique([min(sizes.min(), inner.min()), *inner, max(sizes.max(), inner.max())])
    # Beyond the last edge there is nothing: the largest object belongs into the last bin.
    index = np.searchsorted(edges[1:-1], sizes, side="right")
    bins = []
    for number in range(max(1, len(edges) - 1)):
        part = [row for row, place in zip(reference, index, strict=True) if place == number]
        ends = {"from": float(edges[number]), "to": float(edges[min(number + 1, len(edges) - 1)])}
        bins.append({**ends, "unit": "ml" if known else "voxels", **_describe_share(part)})
    return bins


def list_froc_points(
    reference: Sequence[ObjectRow], prediction: Sequence[ObjectRow], cases: int
) -> list[dict[str, float]]:
    """List sensitivity over false positives per case, by falling confidence.

    Each point lowers the least confidence of a predicted object. Objects and their matches stay those of the decided
    mask; an object of the reference counts as found as soon as one that stands for it does.

    Args:
        reference: Rows of the reference's objects.
        prediction: Rows of the prediction's, with `confidence`.
        cases: The number of cases.

    References:
        Bunch, Hamilton, Sanderson and Simmons, "A free response approach to the measurement and characterization of
        radiographic observer performance", Proceedings of SPIE 127:124, 1977.
    """
    ranked = sorted(prediction, key=lambda row: -float(row["confidence"]))
    found: set[tuple[str, str]] = set()
    invented, points = 0, []
    for place, row in enumerate(ranked):
        if row["status"] == MATCHED:
            found.add((str(row["case_id"]), str(row["partner"])))
        else:
            invented += 1
        last = place + 1 == len(ranked) or ranked[place + 1]["confidence"] != row["confidence"]
        if last and reference and cases:
            points.append(
                {
                    "confidence": float(row["confidence"]),
                    "sensitivity": len(found) / len(reference),
                    "false_positives_per_case": invented / cases,
                }
            )
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).astype(int))
    return [points[index] for index in chosen.tolist()]


def _describe_share(rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Describe the share of matched objects, with an interval over patients."""
    matched = [float(row["status"] == MATCHED) for row in rows]
    return describe(matched, [str(row["group"]) for row in rows])
