"""Overlap scores against paper, torchmetrics and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import CasePrediction
from medseg_pl.metrics import CaseMetric, OverlapMetric, Score
from medseg_pl.metrics.overlap import count
from tests.contracts.metric_contract import BINARY, MULTICLASS, MULTILABEL, TASKS, CaseMetricContract, random_case


class TestOverlapMetric(CaseMetricContract):
    best_is_one = ("dice", "iou", "precision", "recall")

    def make(self, labels: LabelMap) -> CaseMetric:
        return OverlapMetric(labels)


def scores(labels: LabelMap, case: CasePrediction) -> list[Score]:
    metric = OverlapMetric(labels)
    metric.update(case)
    return metric.table()


def case(prediction: object, reference: object, spacing_mm: tuple[float, float, float] | None = None) -> CasePrediction:
    """Masks as `(M, H, W)`."""
    masks = [np.asarray(mask, np.uint8)[:, None] for mask in (prediction, reference)]
    return CasePrediction("c", "p", Geometry(masks[0].shape[1:], spacing_mm), *masks)


def one_hot(mask: np.ndarray, labels: LabelMap) -> torch.Tensor:
    planes = mask if labels.overlapping else np.concatenate([mask == i + 1 for i in range(len(labels.names))])
    return torch.from_numpy(planes.astype(np.int64))


def test_a_case_on_paper() -> None:
    first, second = scores(
        LabelMap(["a", "b"], "multiclass"),
        case([[[1, 1, 1, 0], [0, 2, 2, 0]]], [[[1, 1, 0, 0], [2, 2, 2, 2]]], spacing_mm=(3.0, 1.5, 2.0)),
    )
    assert first.values == {
        "tp": 2,
        "fp": 1,
        "fn": 0,
        "dice": 4 / 5,
        "iou": 2 / 3,
        "precision": 2 / 3,
        "recall": 1.0,
        "volume_reference_ml": pytest.approx(2 * 0.009),
        "volume_prediction_ml": pytest.approx(3 * 0.009),
    }
    assert (second.values["tp"], second.values["fp"], second.values["fn"]) == (2, 0, 2)
    assert (second.values["dice"], second.values["iou"]) == (2 / 3, 1 / 2)


def test_disjoint_masks_score_zero() -> None:
    (score,) = scores(BINARY, case([[[1, 1, 0, 0]]], [[[0, 0, 1, 1]]]))
    assert score.status == "ok"
    assert [score.values[name] for name in ("dice", "iou", "precision", "recall")] == [0.0] * 4


def test_labels_may_overlap() -> None:
    stomach, bowel = scores(MULTILABEL, case([[[1, 1, 0]], [[1, 0, 0]]], [[[1, 1, 0]], [[1, 1, 0]]]))
    assert stomach.values["dice"] == 1.0
    assert bowel.values["dice"] == 2 / 3


def test_without_a_spacing_there_is_no_volume() -> None:
    (score,) = scores(BINARY, case([[[1]]], [[[1]]]))
    assert list(score.values) == ["tp", "fp", "fn", "dice", "iou", "precision", "recall"]


def test_open_voxels_do_not_count() -> None:
    (score,) = scores(BINARY, case([[[1, 1, 1, 0]]], [[[1, IGNORE, IGNORE, IGNORE]]]))
    assert (score.values["tp"], score.values["fp"], score.values["fn"], score.status) == (1, 0, 0, "ok")
    (score,) = scores(BINARY, case([[[1, 1, 1, 0]]], [[[0, IGNORE, IGNORE, IGNORE]]]))
    assert (score.values["fp"], score.status) == (1, "false_alarm")
    (score,) = scores(BINARY, case([[[1, 1]]], [[[IGNORE, IGNORE]]]))
    assert score.status == "undefined"


def test_more_voxels_than_a_float_can_count() -> None:
    side = 4097  # 16,785,409 voxels; float32 stops at 16,777,216
    full = np.ones((1, side, side), np.uint8)
    (counts,) = count(case(full, full), BINARY)
    assert counts.tp == side * side


@TASKS
@pytest.mark.parametrize("number", range(4))
def test_equal_to_torchmetrics(labels: LabelMap, number: int) -> None:
    given = random_case(labels, number)
    assert given.reference is not None
    prediction, reference = one_hot(given.prediction, labels), one_hot(given.reference, labels)
    peers = {
        "dice": binary_f1_score,
        "iou": binary_jaccard_index,
        "precision": binary_precision,
        "recall": binary_recall,
    }
    for i, score in enumerate(scores(labels, given)):
        for name, peer in peers.items():
            expected = float(peer(prediction[i].flatten(), reference[i].flatten()))
            assert score.values[name] == pytest.approx(expected, rel=1e-6), (score.label, name)


@TASKS
@pytest.mark.parametrize("number", range(4))
def test_equal_to_monai(labels: LabelMap, number: int) -> None:
    given = random_case(labels, number)
    assert given.reference is not None
    masks = [one_hot(mask, labels)[None] for mask in (given.prediction, given.reference)]
    for name, peer in (("dice", compute_dice), ("iou", compute_iou)):
        expected = peer(*masks, include_background=True)[0].tolist()
        assert [score.values[name] for score in scores(labels, given)] == pytest.approx(expected, rel=1e-6)


def test_unlike_monai_a_false_alarm_costs() -> None:
    given = case([[[1, 0]]], [[[0, 0]]])
    assert torch.isnan(compute_dice(torch.tensor([[[[1, 0]]]]), torch.tensor([[[[0, 0]]]]), ignore_empty=True)).all()
    (score,) = scores(BINARY, given)
    assert (score.values["dice"], score.status) == (0.0, "false_alarm")


def test_open_voxels_are_as_if_cut_away() -> None:
    given = random_case(MULTICLASS, 2, ignore=True)
    assert given.reference is not None
    cut = CasePrediction(
        given.case_id,
        given.group,
        Geometry((given.geometry.shape[0], 7, 11), given.geometry.spacing_mm),
        given.prediction[:, :, 2:],
        given.reference[:, :, 2:],
    )
    assert scores(MULTICLASS, given) == scores(MULTICLASS, cut)
