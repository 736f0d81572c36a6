"""State keyed by case, the rule for empty masks, and a metric of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction
from medseg_pl.functional.overlap import OverlapCounts
from medseg_pl.metrics import CaseMetric, Score
from medseg_pl.metrics.case_metric import status_of, with_empty_rule
from medseg_pl.metrics.overlap import count
from tests.contracts.metric_contract import CaseMetricContract


class Agreement(CaseMetric):
    """A plug-in: Jaccard's index of the sets of voxels, and how far the volumes are apart."""

    def score(self, case: CasePrediction) -> list[Score]:
        assert case.reference is not None
        scores = []
        for i, (name, counts) in enumerate(zip(self.labels.names, count(case, self.labels), strict=True)):
            masks = case.prediction, np.where(case.reference == 255, 0, case.reference)
            p, r = (
                {*map(tuple, np.argwhere(mask[i] == 1 if self.labels.overlapping else mask[0] == i + 1))}
                for mask in masks
            )
            open_voxels = {*map(tuple, np.argwhere(case.reference[i if self.labels.overlapping else 0] == 255))}
            p -= open_voxels
            jaccard = with_empty_rule(len(p & r) / max(1, len(p | r)), counts)
            apart = math.nan if not p and not r else float(len(p ^ r))
            scores.append(
                Score(case.case_id, case.group, name, {"jaccard": jaccard, "apart": apart}, status_of(counts))
            )
        return scores


class TestAPlugIn(CaseMetricContract):
    best_is_one = ("jaccard",)

    def make(self, labels: LabelMap) -> CaseMetric:
        return Agreement(labels)


@pytest.mark.parametrize(
    ("counts", "status", "value"),
    [
        (OverlapCounts(tp=2, fp=1, fn=1), "ok", 0.7),
        (OverlapCounts(tp=0, fp=3, fn=4), "ok", 0.7),
        (OverlapCounts(tp=0, fp=0, fn=4), "missed", 0.0),
        (OverlapCounts(tp=0, fp=3, fn=0), "false_alarm", 0.0),
    ],
)
def test_the_rule_for_empty_masks(counts: OverlapCounts, status: str, value: float) -> None:
    assert status_of(counts) == status
    assert with_empty_rule(0.7, counts) == value


def test_both_empty_is_not_a_number() -> None:
    assert status_of(OverlapCounts(0, 0, 0)) == "undefined"
    assert math.isnan(with_empty_rule(0.7, OverlapCounts(0, 0, 0)))


def case(name: str, prediction: list[int], reference: list[int]) -> CasePrediction:
    masks = [np.array(mask, np.uint8).reshape(1, 1, 1, -1) for mask in (prediction, reference)]
    return CasePrediction(name, name, Geometry((1, 1, len(reference))), *masks)


def test_undefined_cases_are_left_out_of_the_mean() -> None:
    metric = Agreement(LabelMap(["a", "b"], "multiclass"))
    metric.update(case("x", [1, 1, 0, 0], [1, 0, 0, 0]))
    metric.update(case("y", [0, 0, 0, 1], [0, 0, 0, 1]))
    metric.update(case("z", [0, 0, 0, 0], [0, 0, 0, 0]))
    means = metric.compute()
    assert float(means["jaccard/a"]) == (0.5 + 1.0) / 2
    assert math.isnan(means["jaccard/b"])


def test_a_case_after_the_mean_is_in_the_next_mean() -> None:
    metric = Agreement(LabelMap(["a"], "binary"))
    metric.update(case("x", [1, 1], [1, 0]))
    assert float(metric.compute()["jaccard/a"]) == 0.5
    metric.update(case("y", [1, 0], [1, 0]))
    assert float(metric.compute()["jaccard/a"]) == 0.75


def test_cases_are_sorted_by_name_and_not_by_arrival() -> None:
    metric = Agreement(LabelMap(["a"], "binary"))
    for name in ("case10", "case9", "case1"):
        metric.update(case(name, [1], [1]))
    assert [score.case_id for score in metric.table()] == ["case1", "case10", "case9"]
