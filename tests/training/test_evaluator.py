"""Two cases of four pixels: what is logged, in what an evaluation ends, and what makes it an error."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from medseg_pl.core.errors import DataError, DivergedError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import EvaluationBatch, Prediction, SliceReference
from medseg_pl.metrics import OverlapMetric, SurfaceMetric
from medseg_pl.models.normalization import MeanStd
from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.training.evaluator import Evaluator, Stage

LABELS = LabelMap(["liver", "spleen"], "multiclass")
REFERENCE = np.array([[1, 1], [2, 0]], np.uint8)
RIGHT, HALF = REFERENCE, np.array([[1, 0], [2, 0]], np.uint8)  # half of the liver is missed: Dice 2 / 3, IoU 1 / 2


class Copy(torch.nn.Module):
    """A network that is sure of the labels that the image holds."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 50.0 * torch.nn.functional.one_hot(image[:, 0].long(), 3).permute(0, 3, 1, 2)


@pytest.fixture
def evaluator() -> Evaluator:
    model = SegmentationModel(Copy(), LABELS, MeanStd([0.0], [1.0], 1.0), input_size=(2, 2), size_divisor=1)
    evaluator = Evaluator(model, [OverlapMetric(LABELS), SurfaceMetric(LABELS)], {})
    evaluator.reset(training=True)
    evaluator.loss.update(torch.tensor(0.5))
    return evaluator


def trainer(**limits: Any) -> Any:
    """As much of a trainer as is asked."""
    whole = {"limit_val_batches": 1.0, "limit_test_batches": 1.0, "val_dataloaders": None, "test_dataloaders": None}
    state = {"sanity_checking": False, "fast_dev_run": False, "global_step": 7}
    return Mock(spec=Trainer, **{**state, **whole, **limits})


def batch(case: str, depth: int = 1, predicted: np.ndarray = RIGHT) -> EvaluationBatch:
    """The first slice of a case."""
    slices = [SliceReference(case, case, 0, Geometry((depth, 2, 2)))]
    image = torch.from_numpy(predicted)[None, None].float()
    return EvaluationBatch(image, torch.zeros(1, 1, 4), slices, [REFERENCE[None]])


def add(evaluator: Evaluator, mask: np.ndarray, case: str, depth: int = 1) -> list[Prediction]:
    """Score the first slice of a case, for which this mask is predicted."""
    return evaluator.add(batch(case, depth, mask), lambda *_: None)


def test_the_means_of_two_cases(evaluator: Evaluator) -> None:
    for case, mask in (("a", RIGHT), ("b", HALF)):
        (done,) = add(evaluator, mask, case)
        assert done.case_id == case
    evaluator.finish(trainer(), "val")
    assert dict(evaluator.compute_means(LABELS.names)) == {
        "dice": pytest.approx((1 + 1 + 1 + 2 / 3) / 4),
        "dice/liver": pytest.approx((1 + 2 / 3) / 2),
        "dice/spleen": 1.0,
        "iou": pytest.approx((1 + 1 + 1 + 1 / 2) / 4),
        "iou/liver": pytest.approx(3 / 4),
        "iou/spleen": 1.0,
    }
    assert [(row.case_id, row.label) for row in evaluator.table] == [
        (case, label) for case in "ab" for label in ("liver", "spleen")
    ]
    assert evaluator.facts == {"complete": True}


@pytest.mark.parametrize(("training", "measured"), [(True, False), (False, True)])
def test_distances_are_left_out_within_a_training(evaluator: Evaluator, training: bool, measured: bool) -> None:
    evaluator.reset(training=training)
    evaluator.loss.update(torch.tensor(0.5))
    add(evaluator, RIGHT, "a")
    evaluator.finish(trainer(), "val")
    assert all(("nsd" in row.values) is measured for row in evaluator.table)


def test_nothing_is_left_of_the_evaluation_before(evaluator: Evaluator) -> None:
    add(evaluator, HALF, "a")
    add(evaluator, RIGHT, "b", depth=2)
    evaluator.reset(training=True)
    evaluator.loss.update(torch.tensor(0.25))
    add(evaluator, RIGHT, "a")
    evaluator.finish(trainer(), "test")
    assert dict(evaluator.compute_means(LABELS.names))["dice"] == 1.0
    assert float(evaluator.loss.compute()) == 0.25


@pytest.mark.parametrize(
    ("stage", "limits", "message"),
    [
        ("val", {"limit_val_batches": 1}, r"within trainer\.limit_val_batches=1, .*data\.eval_batch_size"),
        ("test", {"limit_test_batches": 0.25}, r"within trainer\.limit_test_batches=0\.25,"),
        ("val", {}, "The val loader gave no complete case"),
    ],
)
def test_an_evaluation_without_a_whole_case_is_an_error(
    stage: Stage, limits: dict[str, Any], message: str, evaluator: Evaluator
) -> None:
    if limits:
        add(evaluator, RIGHT, "a", depth=2)
    with pytest.raises(DataError, match=message):
        evaluator.finish(trainer(**limits), stage)


def test_cases_that_a_limit_cuts_are_named_once(evaluator: Evaluator, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        evaluator.reset(training=True)
        evaluator.loss.update(torch.tensor(0.5))
        add(evaluator, RIGHT, "a")
        add(evaluator, RIGHT, "b", depth=2)
        evaluator.finish(trainer(limit_val_batches=2), "val")
    assert caplog.messages == ["trainer.limit_val_batches cuts 1 case, b among them: they are left out of the scores."]


@pytest.mark.parametrize("trial", [{"sanity_checking": True}, {"fast_dev_run": 1, "limit_val_batches": 1}])
def test_in_a_trial_of_the_code_a_mean_may_be_no_number(trial: dict[str, Any], evaluator: Evaluator) -> None:
    add(evaluator, RIGHT, "a", depth=2)
    evaluator.finish(trainer(**trial), "val")
    assert {name: np.isnan(mean) for name, mean in evaluator.compute_means(LABELS.names)} == {"dice": True, "iou": True}


def test_a_case_of_which_slices_are_missing_is_an_error(evaluator: Evaluator) -> None:
    assert not add(evaluator, RIGHT, "a", depth=2)
    with pytest.raises(DataError, match="Slices of 1 case never came, a among them"):
        evaluator.finish(trainer(), "val")


@pytest.mark.parametrize("limits", [{"limit_val_batches": 1}, {"limit_val_batches": 0.5}, {"sanity_checking": True}])
def test_a_case_of_which_slices_were_not_asked_for_is_left_out(evaluator: Evaluator, limits: dict[str, Any]) -> None:
    add(evaluator, RIGHT, "a")
    add(evaluator, RIGHT, "b", depth=2)
    evaluator.finish(trainer(**limits), "val")
    assert {row.case_id for row in evaluator.table} == {"a"}
    assert evaluator.facts == {"complete": False}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error(evaluator: Evaluator, loss: float) -> None:
    add(evaluator, RIGHT, "a")
    evaluator.loss.update(torch.tensor(loss))
    with pytest.raises(DivergedError, match="The test loss is not finite at step 7"):
        evaluator.finish(trainer(), "test")


def test_a_case_without_a_reference_is_named(evaluator: Evaluator) -> None:
    given = batch("a")
    without = EvaluationBatch(given.image, given.statistics, given.slices, [])
    with pytest.raises(DataError, match="Case a has no reference"):
        evaluator.resize_references(without)
    np.testing.assert_array_equal(evaluator.resize_references(given), REFERENCE[None, None])
