"""Scores of probabilities: on paper, against torchmetrics, and what they do where masks are empty."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CalibrationMetric, CaseMetric, LabelPair
from tests.contracts.metric_contract import BINARY, MULTICLASS, MULTILABEL, TASKS, CaseMetricContract, random_case

AB = LabelMap(["a", "b"], "multiclass")
H = math.log(2)


def with_probabilities(case: Prediction, labels: LabelMap) -> Prediction:
    """The case with probabilities that follow from its name, whatever its masks say."""
    rng = np.random.default_rng(list(case.case_id.encode()))
    logits = torch.from_numpy(rng.normal(0, 2, (1, labels.classes, *case.geometry.shape)).astype(np.float32))
    return replace(case, probabilities=labels.activate(logits)[0].numpy())


class OfMasks(CalibrationMetric):
    """Scores the contract's cases, which are masks alone."""

    def update(self, case: Prediction) -> None:
        super().update(with_probabilities(case, self.labels))


class TestCalibrationMetric(CaseMetricContract):
    others = ("brier", "ece", "entropy")

    def make(self, labels: LabelMap) -> CaseMetric:
        return OfMasks(labels)


def scored(
    labels: LabelMap, probabilities: Any, prediction: Any, reference: Any, **settings: Any
) -> list[dict[str, float | int]]:
    """The scores of each label of a case of one row: probabilities `(K, W)`, stored masks `(M, W)`."""
    masks = [np.asarray(mask, np.uint8)[:, None, None] for mask in (prediction, reference)]
    case = Prediction.from_masks("c", *masks)
    case = replace(case, probabilities=np.asarray(probabilities, np.float32)[:, None, None])
    metric = CalibrationMetric(labels, **settings)
    metric.update(case)
    return [dict(score.values) for score in metric.table()]


def test_a_single_label_on_paper() -> None:
    (values,) = scored(BINARY, [[0.5, 0.75, 1.0, 0.25]], [[0, 1, 1, 0]], [[1, 1, 1, 0]], bins=2)
    bernoulli = 2 * H - 0.75 * math.log(3)  # of 1/4 and 3/4
    assert values == {
        "brier": (1 / 4 + 1 / 16 + 0 + 1 / 16) / 4,
        "ece": 1 / 4 * 1 / 4 + 3 / 4 * (1 - 0.75),  # 0.25 in one bin; 0.5, 0.75 and 1 in the other, all of them right
        "entropy": pytest.approx((bernoulli + 0) / 2, rel=1e-6),
    }


def test_exclusive_labels_on_paper() -> None:
    probabilities = [[0.5, 0.25, 0.0], [0.25, 0.5, 0.0], [0.25, 0.25, 1.0]]
    a, b = scored(AB, probabilities, [[0, 1, 2]], [[0, 1, 1]], bins=1)
    assert a == {
        "brier": (1 / 16 + 1 / 4 + 1) / 3,
        "ece": pytest.approx(abs(0.75 - 2) / 3),
        "entropy": pytest.approx(1.5 * H, rel=1e-6),  # of 1/4, 1/2 and 1/4: the background counts as a class
    }
    assert b == {"brier": (1 / 16 + 1 / 16 + 1) / 3, "ece": pytest.approx(1.5 / 3), "entropy": 0.0}


def test_labels_that_may_overlap_are_judged_one_by_one() -> None:
    probabilities = [[1.0, 0.0], [0.5, 1.0]]
    stomach, bowel = scored(MULTILABEL, probabilities, [[1, 0], [1, 1]], [[1, 0], [1, 1]], bins=2)
    assert stomach == {"brier": 0.0, "ece": 0.0, "entropy": 0.0}
    assert bowel == {"brier": 1 / 8, "ece": 1 / 4, "entropy": pytest.approx(H / 2, rel=1e-6)}


def test_a_label_that_nobody_saw_or_drew_is_undefined() -> None:
    a, b = scored(AB, [[1.0, 0.5], [0.0, 0.5], [0.0, 0.0]], [[0, 1]], [[0, 1]])
    assert a["brier"] == 1 / 8
    assert all(math.isnan(value) for value in b.values())


def test_an_empty_mask_changes_no_probability() -> None:
    probabilities = [[0.75, 0.625, 0.0]]
    (full,) = scored(BINARY, probabilities, [[1, 1, 0]], [[1, 0, 0]])
    (missed,) = scored(BINARY, probabilities, [[0, 0, 0]], [[1, 0, 0]])
    assert (missed["brier"], missed["ece"]) == (full["brier"], full["ece"])
    assert full["entropy"] > 0.5
    assert math.isnan(missed["entropy"])


def test_a_false_alarm_is_computed_as_it_stands() -> None:
    (values,) = scored(BINARY, [[1.0, 0.0]], [[1, 0]], [[0, 0]])
    assert values == {"brier": 0.5, "ece": 0.5, "entropy": 0.0}


@pytest.mark.parametrize("labels", [BINARY, MULTICLASS], ids=lambda labels: labels.task)
def test_open_voxels_are_as_if_cut_away(labels: LabelMap) -> None:
    given = with_probabilities(random_case(labels, 2, ignore=True), labels)
    assert given.reference is not None and given.probabilities is not None
    cut = Prediction.from_masks(given.case_id, given.mask[:, :, 2:], given.reference[:, :, 2:])
    cut = replace(cut, probabilities=given.probabilities[:, :, 2:])
    for index in range(len(labels.names)):
        ours, expected = (CalibrationMetric(labels).score(LabelPair(case, labels, index)) for case in (given, cut))
        assert ours == pytest.approx(expected, rel=1e-12)


def test_overlapping_labels_may_be_open_in_different_places() -> None:
    reference = [[IGNORE, 1], [1, IGNORE]]
    stomach, bowel = scored(MULTILABEL, [[0.0, 1.0], [1.0, 0.0]], [[0, 1], [1, 0]], reference)
    assert stomach == bowel == {"brier": 0.0, "ece": 0.0, "entropy": 0.0}


@pytest.mark.parametrize("labels", [BINARY, MULTILABEL], ids=lambda labels: labels.task)
def test_the_entropy_of_a_label_alone_is_that_of_torch(labels: LabelMap) -> None:
    given = with_probabilities(random_case(labels, 2), labels)
    for index in range(len(labels.names)):
        pair = LabelPair(given, labels, index)
        expected = torch.distributions.Bernoulli(torch.from_numpy(pair.probability[pair.prediction])).entropy().mean()
        assert CalibrationMetric(labels).score(pair)["entropy"] == pytest.approx(float(expected), rel=1e-5)


def test_the_entropy_of_exclusive_labels_is_that_of_torch() -> None:
    given = with_probabilities(random_case(MULTICLASS, 2), MULTICLASS)
    assert given.probabilities is not None
    for index in range(len(MULTICLASS.names)):
        pair = LabelPair(given, MULTICLASS, index)
        classes = torch.from_numpy(given.probabilities[:, pair.prediction].T)
        expected = torch.distributions.Categorical(classes).entropy().mean()
        assert CalibrationMetric(MULTICLASS).score(pair)["entropy"] == pytest.approx(float(expected), rel=1e-5)


@TASKS
@pytest.mark.parametrize("number", range(3))
def test_the_calibration_error_is_that_of_torchmetrics(labels: LabelMap, number: int) -> None:
    given = with_probabilities(random_case(labels, number), labels)
    assert given.reference is not None and given.probabilities is not None
    for index in range(len(labels.names)):
        found = CalibrationMetric(labels, bins=10).score(LabelPair(given, labels, index))
        probability = torch.from_numpy(given.probabilities)[index + labels.classes - len(labels.names)].flatten()
        reference = given.reference[index] == 1 if labels.overlapping else given.reference[0] == index + 1
        target = torch.from_numpy(reference).int().flatten()
        assert found["ece"] == pytest.approx(float(binary_calibration_error(probability, target, n_bins=10)), abs=1e-5)
        assert found["brier"] == pytest.approx(float(((probability - target) ** 2).mean()), rel=1e-5)


def test_a_case_of_masks_alone_is_refused() -> None:
    with pytest.raises(DataError) as error:
        CalibrationMetric(BINARY).update(random_case(BINARY, 0))
    assert str(error.value) == "Case case0 has no probabilities; only its decided mask is known."


@pytest.mark.parametrize(("wrong", "range_"), [(-3.5, "-3.5 and 0.5"), (7, "0.5 and 7"), (math.nan, "nan and nan")])
def test_what_is_no_probability_is_refused(wrong: float, range_: str) -> None:
    with pytest.raises(DataError) as error:
        scored(BINARY, [[0.5, wrong]], [[1, 1]], [[1, 0]])
    assert str(error.value) == (
        f"Case c: the probabilities of lesion lie between {range_}; expected 0 to 1. Give probabilities and not "
        "logits; where the numbers are NaN, the network has diverged."
    )


def test_what_rounding_does_is_no_fault() -> None:
    (values,) = scored(BINARY, [[1 + 1e-6, -1e-6]], [[1, 0]], [[1, 0]])
    assert values == {"brier": 0.0, "ece": 0.0, "entropy": 0.0}


def test_there_is_at_least_one_bin() -> None:
    with pytest.raises(SettingError, match=r"CalibrationMetric needs bins of at least 1; got 0\."):
        CalibrationMetric(BINARY, bins=0)


def test_it_asks_for_probabilities_and_not_in_training() -> None:
    assert (CalibrationMetric.needs_probabilities, CalibrationMetric.in_training) == (True, False)
