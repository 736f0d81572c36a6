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
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.metrics import OverlapMetric, SurfaceMetric
from medseg_pl.models.normalization import MeanStd
from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.training.evaluator import Evaluator, Stage, fit_reference_masks

LABELS = LabelMap(["liver", "spleen"], "multiclass")
FIT = Resize("none", (2, 2))
REFERENCE = np.array([[1, 1], [2, 0]], np.uint8)
RIGHT, HALF = REFERENCE, np.array([[1, 0], [2, 0]], np.uint8)  # half of the liver is missed: Dice 2 / 3, IoU 1 / 2


class Copy(torch.nn.Module):
    """A network that is sure of the labels that the image holds."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 50.0 * torch.nn.functional.one_hot(image[:, 0].long(), 3).permute(0, 3, 1, 2)


@pytest.fixture
def scoring() -> Evaluator:
    model = SegmentationModel(Copy(), LABELS, MeanStd([0.0], [1.0], 1.0), input_size=(2, 2), size_divisor=1)
    scores = Evaluator(model, [OverlapMetric(LABELS), SurfaceMetric(LABELS)], {})
    scores.reset(training=True)
    scores.loss.update(torch.tensor(0.5))
    return scores


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


def add(scoring: Evaluator, mask: np.ndarray, case: str, depth: int = 1) -> list[Prediction]:
    """Score the first slice of a case, for which this mask is predicted."""
    return scoring.add(batch(case, depth, mask), lambda *_: None)


def test_the_means_of_two_cases(scoring: Evaluator) -> None:
    for case, mask in (("a", RIGHT), ("b", HALF)):
        (done,) = add(scoring, mask, case)
        assert done.case_id == case
    scoring.finish(trainer(), "val")
    assert dict(scoring.means(LABELS.names)) == {
        "dice": pytest.approx((1 + 1 + 1 + 2 / 3) / 4),
        "dice/liver": pytest.approx((1 + 2 / 3) / 2),
        "dice/spleen": 1.0,
        "iou": pytest.approx((1 + 1 + 1 + 1 / 2) / 4),
        "iou/liver": pytest.approx(3 / 4),
        "iou/spleen": 1.0,
    }
    assert [(row.case_id, row.label) for row in scoring.table] == [
        (case, label) for case in "ab" for label in ("liver", "spleen")
    ]
    assert scoring.facts == {"complete": True}


@pytest.mark.parametrize(("training", "measured"), [(True, False), (False, True)])
def test_distances_are_left_out_within_a_training(scoring: Evaluator, training: bool, measured: bool) -> None:
    scoring.reset(training=training)
    scoring.loss.update(torch.tensor(0.5))
    add(scoring, RIGHT, "a")
    scoring.finish(trainer(), "val")
    assert all(("nsd" in row.values) is measured for row in scoring.table)


def test_nothing_is_left_of_the_evaluation_before(scoring: Evaluator) -> None:
    add(scoring, HALF, "a")
    add(scoring, RIGHT, "b", depth=2)
    scoring.reset(training=True)
    scoring.loss.update(torch.tensor(0.25))
    add(scoring, RIGHT, "a")
    scoring.finish(trainer(), "test")
    assert dict(scoring.means(LABELS.names))["dice"] == 1.0
    assert float(scoring.loss.compute()) == 0.25


@pytest.mark.parametrize(
    ("stage", "limits", "message"),
    [
        ("val", {"limit_val_batches": 1}, r"within trainer\.limit_val_batches=1, .*data\.eval_batch_size"),
        ("test", {"limit_test_batches": 0.25}, r"within trainer\.limit_test_batches=0\.25,"),
        ("val", {}, "The val loader gave no complete case"),
    ],
)
def test_an_evaluation_without_a_whole_case_is_an_error(
    stage: Stage, limits: dict[str, Any], message: str, scoring: Evaluator
) -> None:
    if limits:
        add(scoring, RIGHT, "a", depth=2)
    with pytest.raises(DataError, match=message):
        scoring.finish(trainer(**limits), stage)


def test_cases_that_a_limit_cuts_are_named_once(scoring: Evaluator, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        scoring.reset(training=True)
        scoring.loss.update(torch.tensor(0.5))
        add(scoring, RIGHT, "a")
        add(scoring, RIGHT, "b", depth=2)
        scoring.finish(trainer(limit_val_batches=2), "val")
    assert caplog.messages == ["trainer.limit_val_batches cuts 1 cases, b among them: they are left out of the scores."]


@pytest.mark.parametrize("trial", [{"sanity_checking": True}, {"fast_dev_run": 1, "limit_val_batches": 1}])
def test_in_a_trial_of_the_code_a_mean_may_be_no_number(trial: dict[str, Any], scoring: Evaluator) -> None:
    add(scoring, RIGHT, "a", depth=2)
    scoring.finish(trainer(**trial), "val")
    assert {name: np.isnan(mean) for name, mean in scoring.means(LABELS.names)} == {"dice": True, "iou": True}


def test_a_case_of_which_slices_are_missing_is_an_error(scoring: Evaluator) -> None:
    assert not add(scoring, RIGHT, "a", depth=2)
    with pytest.raises(DataError, match="Slices of 1 cases never came, a among them"):
        scoring.finish(trainer(), "val")


@pytest.mark.parametrize("limits", [{"limit_val_batches": 1}, {"limit_val_batches": 0.5}, {"sanity_checking": True}])
def test_a_case_of_which_slices_were_not_asked_for_is_left_out(scoring: Evaluator, limits: dict[str, Any]) -> None:
    add(scoring, RIGHT, "a")
    add(scoring, RIGHT, "b", depth=2)
    scoring.finish(trainer(**limits), "val")
    assert {row.case_id for row in scoring.table} == {"a"}
    assert scoring.facts == {"complete": False}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error(scoring: Evaluator, loss: float) -> None:
    add(scoring, RIGHT, "a")
    scoring.loss.update(torch.tensor(loss))
    with pytest.raises(DivergedError, match="The test loss is not finite at step 7"):
        scoring.finish(trainer(), "test")


def test_a_case_without_a_reference_is_named() -> None:
    given = batch("a")
    without = EvaluationBatch(given.image, given.statistics, given.slices, [])
    with pytest.raises(DataError, match="Case a has no reference"):
        fit_reference_masks(without, FIT)
    np.testing.assert_array_equal(fit_reference_masks(given, FIT), REFERENCE[None, None])
