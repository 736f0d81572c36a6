"""Overlap scores against paper, torchmetrics and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.metrics import compute_dice, compute_iou
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, CaseScore, OverlapMetric, summarize
from medseg_pl.metrics.measures import FORMULAS
from tests.contracts.metric_contract import BINARY, MULTICLASS, MULTILABEL, TASKS, CaseMetricContract, random_case
from tests.metrics.functional import surface_oracle
from tests.metrics.functional.surface_pairs import KINDS, pair

BIT = st.integers(0, 1)


class TestOverlapMetric(CaseMetricContract):
    best_is_one = ("dice", "iou", "precision", "recall")

    def make(self, labels: LabelMap) -> CaseMetric:
        return OverlapMetric(labels)


def scores(labels: LabelMap, case: Prediction) -> list[CaseScore]:
    metric = OverlapMetric(labels)
    metric.update(case)
    return metric.table()


def case(prediction: object, reference: object, spacing_mm: tuple[float, float, float] | None = None) -> Prediction:
    """Masks as `(M, H, W)`."""
    masks = [np.asarray(mask, np.uint8)[:, None] for mask in (prediction, reference)]
    return Prediction("c", "p", Geometry(masks[0].shape[1:], spacing_mm), *masks)


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
    }
    assert (first.case_id, first.group, first.label, first.unit) == ("c", "p", "a", "mm")
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


def test_without_a_spacing_the_columns_are_the_same() -> None:
    (score,) = scores(BINARY, case([[[1]]], [[[1]]]))
    assert list(score.values) == ["tp", "fp", "fn", "dice", "iou", "precision", "recall"]
    assert score.unit == "px"


def test_open_voxels_do_not_count() -> None:
    (score,) = scores(BINARY, case([[[1, 1, 1, 0]]], [[[1, IGNORE, IGNORE, IGNORE]]]))
    assert (score.values["tp"], score.values["fp"], score.values["fn"], score.status) == (1, 0, 0, "ok")
    (score,) = scores(BINARY, case([[[1, 1, 1, 0]]], [[[0, IGNORE, IGNORE, IGNORE]]]))
    assert (score.values["fp"], score.status) == (1, "false_alarm")
    (score,) = scores(BINARY, case([[[1, 1]]], [[[IGNORE, IGNORE]]]))
    assert score.status == "undefined"


def test_more_voxels_than_a_float_can_count() -> None:
    full = np.ones((1, 100, 1000, 1000), np.uint8)  # 10**8; float32 stops at 16,777,216
    prediction = full.copy()
    prediction[0, 0, 0, :3] = 0
    (score,) = scores(BINARY, Prediction("c", "p", Geometry((100, 1000, 1000)), prediction, full))
    assert (score.values["tp"], score.values["fp"], score.values["fn"]) == (99_999_997, 0, 3)
    assert score.values["dice"] == 199_999_994 / 199_999_997
    assert summarize([score], BINARY.names)["pooled"]["lesion"]["dice"] == 199_999_994 / 199_999_997


def test_equal_to_the_sets_of_voxels() -> None:
    for number in range(30 * len(KINDS)):
        drawn = pair(number)
        (score,) = scores(BINARY, Prediction.from_masks("c", drawn.prediction, drawn.reference))
        expected = surface_oracle.scores(*drawn[1:])
        for name in ("dice", "iou"):
            assert score.values[name] == pytest.approx(expected[name], rel=0, abs=1e-12, nan_ok=True), drawn


@TASKS
@pytest.mark.parametrize("number", range(4))
def test_equal_to_torchmetrics(labels: LabelMap, number: int) -> None:
    scored = random_case(labels, number)
    assert scored.reference is not None
    prediction, reference = one_hot(scored.mask, labels), one_hot(scored.reference, labels)
    peers = {
        "dice": binary_f1_score,
        "iou": binary_jaccard_index,
        "precision": binary_precision,
        "recall": binary_recall,
    }
    for i, score in enumerate(scores(labels, scored)):
        for name, peer in peers.items():
            expected = float(peer(prediction[i].flatten(), reference[i].flatten()))
            assert score.values[name] == pytest.approx(expected, rel=1e-6), (score.label, name)


@TASKS
@pytest.mark.parametrize("number", range(4))
def test_equal_to_monai(labels: LabelMap, number: int) -> None:
    scored = random_case(labels, number)
    assert scored.reference is not None
    masks = [one_hot(mask, labels)[None] for mask in (scored.mask, scored.reference)]
    for name, peer in (("dice", compute_dice), ("iou", compute_iou)):
        expected = peer(*masks, include_background=True)[0].tolist()
        assert [score.values[name] for score in scores(labels, scored)] == pytest.approx(expected, rel=1e-6)


def test_unlike_monai_a_false_alarm_costs() -> None:
    scored = case([[[1, 0]]], [[[0, 0]]])
    assert torch.isnan(compute_dice(torch.tensor([[[[1, 0]]]]), torch.tensor([[[[0, 0]]]]), ignore_empty=True)).all()
    (score,) = scores(BINARY, scored)
    assert (score.values["dice"], score.status) == (0.0, "false_alarm")


MASK_PAIRS = array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(np.uint8, shape, elements=BIT), arrays(np.uint8, shape, elements=BIT))
)


@given(masks=MASK_PAIRS)
def test_exchanging_the_masks_exchanges_precision_and_recall(masks: tuple[np.ndarray, np.ndarray]) -> None:
    (forth,) = scores(BINARY, Prediction.from_masks("c", *masks))
    (back,) = scores(BINARY, Prediction.from_masks("c", *masks[::-1]))
    for name, other in [("dice", "dice"), ("iou", "iou"), ("precision", "recall"), ("recall", "precision")]:
        assert forth.values[name] == pytest.approx(back.values[other], rel=0, abs=0, nan_ok=True)
    assert (forth.values["tp"], forth.values["fp"], forth.values["fn"]) == (
        back.values["tp"],
        back.values["fn"],
        back.values["fp"],
    )


@given(masks=MASK_PAIRS)
def test_emptying_a_prediction_never_improves_it(masks: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = masks
    reference.flat[0] = 1
    (before,) = scores(BINARY, Prediction.from_masks("c", prediction, reference))
    (after,) = scores(BINARY, Prediction.from_masks("c", np.zeros_like(prediction), reference))
    assert after.status == "missed"
    assert all(after.values[name] == 0 <= before.values[name] for name in FORMULAS)


def test_open_voxels_are_as_if_cut_away() -> None:
    scored = random_case(MULTICLASS, 2, ignore=True)
    assert scored.reference is not None
    cut = Prediction(
        scored.case_id,
        scored.group,
        Geometry((scored.geometry.shape[0], 7, 11), scored.geometry.spacing_mm),
        scored.mask[:, :, 2:],
        scored.reference[:, :, 2:],
    )
    assert scores(MULTICLASS, scored) == scores(MULTICLASS, cut)
