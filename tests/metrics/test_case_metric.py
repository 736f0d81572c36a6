"""State keyed by case, the rule for empty masks, and a metric of one's own."""

from __future__ import annotations

import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torchmetrics.functional.classification import multiclass_stat_scores

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, LabelPair
from medseg_pl.metrics.case_metric import apply_empty_mask_rule
from medseg_pl.metrics.functional.overlap import OverlapCounts
from tests.contracts.metric_contract import MULTICLASS, MULTILABEL, TASKS, CaseMetricContract, random_case


class Agreement(CaseMetric):
    """A plug-in: Jaccard's index of the sets of voxels, and how many are in one of them only."""

    def score(self, pair: LabelPair) -> dict[str, float]:
        p, r = ({*map(tuple, np.argwhere(mask))} for mask in (pair.prediction, pair.reference))
        scores = apply_empty_mask_rule(pair, {"jaccard": 0.0}, lambda: {"jaccard": len(p & r) / len(p | r)})
        return {**scores, "apart": float(len(p ^ r)) if p or r else math.nan}


class TestAPlugIn(CaseMetricContract):
    best_is_one = ("jaccard",)
    others = ("apart",)

    def make(self, labels: LabelMap) -> CaseMetric:
        return Agreement(labels)


def case(name: str, prediction: list[int], reference: list[int]) -> Prediction:
    masks = [np.array(mask, np.uint8).reshape(1, 1, 1, -1) for mask in (prediction, reference)]
    return Prediction(name, name, Geometry((1, 1, len(reference))), *masks)


def pairs(labels: LabelMap, given: Prediction) -> list[LabelPair]:
    return [LabelPair(given, labels, index) for index in range(len(labels.names))]


LESION = LabelMap(["lesion"], "binary")


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "value"),
    [
        ([1, 1, 1, 0], [0, 1, 1, 1], "ok", 0.7),
        ([1, 1, 0, 0], [0, 0, 1, 1], "ok", 0.7),  # disjoint, but neither is empty
        ([0, 0, 0, 0], [0, 0, 1, 1], "missed", 0.1),
        ([1, 1, 0, 0], [0, 0, 0, 0], "false_alarm", 0.1),
        ([1, 1, 0, 0], [0, 0, 0, IGNORE], "false_alarm", 0.1),
        ([1, 1, 0, 0], [IGNORE, IGNORE, 0, 1], "missed", 0.1),
    ],
)
def test_the_rule_for_empty_masks(prediction: list[int], reference: list[int], status: str, value: float) -> None:
    (pair,) = pairs(LESION, case("x", prediction, reference))
    assert pair.status == status
    assert apply_empty_mask_rule(pair, {"score": 0.1}, lambda: {"score": 0.7}) == {"score": value}


@pytest.mark.parametrize("reference", [[0, 0], [IGNORE, 0]])
def test_both_empty_is_not_a_number(reference: list[int]) -> None:
    (pair,) = pairs(LESION, case("x", [1 if value == IGNORE else 0 for value in reference], reference))
    assert pair.status == "undefined"
    scores = apply_empty_mask_rule(pair, {"score": 0.1, "other": 9.0}, lambda: {"score": 0.7, "other": 0.0})
    assert list(scores) == ["score", "other"]
    assert all(math.isnan(value) for value in scores.values())


@pytest.mark.parametrize("prediction", [[0, 0], [1, 0]])
def test_nothing_is_computed_where_a_mask_is_empty(prediction: list[int]) -> None:
    (pair,) = pairs(LESION, case("x", prediction, [0, 0]))
    assert list(apply_empty_mask_rule(pair, {"score": 0.1}, lambda: pytest.fail("computed"))) == ["score"]


class TestLabelPair:
    """One label's boolean masks, against counting voxel by voxel from what a stored mask means."""

    @given(data=st.data(), labels=st.integers(1, 6), shape=array_shapes(min_dims=3, max_dims=3, max_side=5))
    def test_exclusive_labels(self, data: st.DataObject, labels: int, shape: tuple[int, int, int]) -> None:
        # A prediction made elsewhere may hold 255 too: it is then wrong wherever the reference says anything.
        values = st.sampled_from([*range(labels + 1), IGNORE])
        prediction, reference = (data.draw(arrays(np.uint8, (1, *shape), elements=values)) for _ in range(2))
        names = LabelMap([str(i) for i in range(labels)], "multiclass")
        found = pairs(names, Prediction("x", "x", Geometry(shape), prediction, reference))
        voxels = list(zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True))
        for value, pair in enumerate(found, start=1):
            assert pair.prediction.ravel().tolist() == [p == value and r != IGNORE for p, r in voxels]
            assert pair.reference.ravel().tolist() == [r == value for _, r in voxels]
            assert pair.annotated.ravel().tolist() == [r != IGNORE for _, r in voxels]
            assert pair.counts == OverlapCounts(
                tp=sum(p == value and r == value for p, r in voxels),
                fp=sum(p == value and r not in (value, IGNORE) for p, r in voxels),
                fn=sum(p != value and r == value for p, r in voxels),
            )

    def test_labels_that_may_overlap_each_have_a_channel(self) -> None:
        rng = np.random.default_rng(0)
        prediction = rng.integers(0, 2, (3, 4, 11, 9)).astype(np.uint8)
        reference = rng.choice([0, 1, IGNORE], (3, 4, 11, 9)).astype(np.uint8)
        labels = LabelMap(["a", "b", "c"], "multilabel")
        for pair in pairs(labels, Prediction("x", "x", Geometry((4, 11, 9)), prediction, reference)):
            p, r = prediction[pair.index], reference[pair.index]
            np.testing.assert_array_equal(pair.annotated, r != IGNORE)
            np.testing.assert_array_equal(pair.prediction, (p == 1) & (r != IGNORE))
            np.testing.assert_array_equal(pair.reference, r == 1)
            assert pair.counts.tp == int((p * (r == 1)).sum())
            assert pair.label == labels.names[pair.index]

    @pytest.mark.parametrize("labels", [1, 3, 7])
    def test_counts_equal_those_of_torchmetrics(self, labels: int) -> None:
        rng = np.random.default_rng(labels)
        prediction = rng.integers(0, labels + 1, (1, 5, 40, 33)).astype(np.uint8)
        reference = rng.choice([*range(labels + 1), IGNORE], (1, 5, 40, 33)).astype(np.uint8)
        scores = multiclass_stat_scores(
            torch.from_numpy(prediction).long(),
            torch.from_numpy(reference).long(),
            num_classes=labels + 1,
            average=None,
            ignore_index=IGNORE,
        )
        expected = [OverlapCounts(int(tp), int(fp), int(fn)) for tp, fp, _, fn, _ in scores.tolist()[1:]]
        names = LabelMap([str(i) for i in range(labels)], "multiclass")
        found = pairs(names, Prediction("x", "x", Geometry((5, 40, 33)), prediction, reference))
        assert [pair.counts for pair in found] == expected

    def test_the_most_labels_that_fit_into_a_byte(self) -> None:
        values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
        labels = LabelMap([str(i) for i in range(254)], "multiclass")
        same = pairs(labels, Prediction("x", "x", Geometry((1, 16, 16)), values, values))
        assert [pair.counts for pair in same] == [OverlapCounts(1, 0, 0)] * 254
        rolled = pairs(labels, Prediction("x", "x", Geometry((1, 16, 16)), np.roll(values, 1), values))
        assert [pair.counts for pair in rolled[:-1]] == [OverlapCounts(0, 1, 1)] * 253
        assert rolled[-1].counts == OverlapCounts(0, 0, 1)  # where it was predicted the reference is open

    def test_the_probability_is_that_of_the_label_and_not_of_the_background(self) -> None:
        given = random_case(MULTICLASS, 0)
        probabilities = np.random.default_rng(0).dirichlet(np.ones(4), given.geometry.shape).astype(np.float32)
        planes = np.moveaxis(probabilities, -1, 0)
        found = pairs(MULTICLASS, replace(given, probabilities=planes))
        for index, pair in enumerate(found):
            np.testing.assert_array_equal(pair.probability, probabilities[..., index + 1])

    @TASKS
    def test_a_case_without_probabilities_says_so(self, labels: LabelMap) -> None:
        with pytest.raises(DataError) as error:
            _ = pairs(labels, random_case(labels, 3))[0].probability
        assert str(error.value) == "Case case3 has no probabilities; only its decided mask is known."


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


@pytest.mark.parametrize(
    ("prediction", "reference", "said"),
    [
        ((2, 1, 3, 4), (2, 1, 3, 5), r"\(2, 1, 3, 4\) and the reference \(2, 1, 3, 5\); expected \(2, 1, 3, 4\)"),
        ((2, 1, 1, 4), (2, 1, 3, 4), r"\(2, 1, 1, 4\) and the reference \(2, 1, 3, 4\); expected \(2, 1, 1, 4\)"),
        ((1, 1, 3, 4), (1, 1, 3, 4), r"expected \(2, 1, 3, 4\) for both: the mask channels of the task multilabel"),
        ((3, 1, 3, 4), (3, 1, 3, 4), r"expected \(2, 1, 3, 4\) for both: the mask channels of the task multilabel"),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_not_stretched(
    prediction: tuple[int, ...], reference: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse some of them first
    metric = Agreement(MULTILABEL)
    with pytest.raises(DataError, match=said):
        metric.update(Prediction.from_masks("x", np.ones(prediction), np.ones(reference)))
    assert metric.table() == []


def test_masks_of_overlapping_labels_do_not_fit_exclusive_ones() -> None:
    with pytest.raises(DataError) as error:
        Agreement(MULTICLASS).update(random_case(MULTILABEL, 4))
    assert str(error.value) == (
        "Case case4: the prediction has the shape (2, 2, 9, 11) and the reference (2, 2, 9, 11); expected "
        "(1, 2, 9, 11) for both: the mask channels of the task multiclass, then the case's grid."
    )


@pytest.mark.parametrize("what", ["prediction", "reference"])
def test_a_label_that_nobody_has_named_is_refused(what: str) -> None:
    masks = {"prediction": [1, 0, 2], "reference": [1, 255, 2]}
    masks[what][0] = 3
    with pytest.raises(DataError) as error:
        Agreement(LabelMap(["a", "b"], "multiclass")).update(case("x", **masks))
    assert str(error.value) == (
        f"Case x: the {what} holds the value 3; expected 0 to 2 for the labels a, b, task multiclass."
    )
