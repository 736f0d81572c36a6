"""Volumes of whole cases, on paper."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, CaseScore, VolumeMetric
from tests.contracts.metric_contract import BINARY, MULTILABEL, TASKS, CaseMetricContract, random_case, with_masks

AB = LabelMap(["a", "b"], "multiclass")


class TestVolumeMetric(CaseMetricContract):
    others = ("volume_reference_ml", "volume_prediction_ml", "volume_difference_ml")

    def make(self, labels: LabelMap) -> CaseMetric:
        return VolumeMetric(labels)

    @TASKS
    def test_both_empty_is_undefined(self, labels: LabelMap) -> None:
        # Unlike a score, a volume is: zero.
        case = random_case(labels, 0)
        nothing = np.zeros_like(case.mask)
        for score in self.table(labels, with_masks(case, nothing, nothing)):
            assert score.status == "undefined"
            assert [score.values[name] for name in self.columns] == [0.0] * 3


def scores(labels: LabelMap, case: Prediction) -> list[CaseScore]:
    metric = VolumeMetric(labels)
    metric.update(case)
    return metric.table()


def test_voxels_times_the_size_of_one() -> None:
    prediction, reference = np.zeros((2, 4, 10, 10), np.uint8)
    prediction[:, :5] = 1  # 4 slices of 50
    reference[:3, :, :8] = 1  # 3 slices of 80
    reference[3] = 2
    # 5 mm x 2 mm x 2 mm: 50 voxels make a millilitre.
    first, second = scores(AB, Prediction.from_masks("c", prediction, reference, spacing_mm=(5.0, 2.0, 2.0)))
    assert first.values == pytest.approx(
        {"volume_reference_ml": 4.8, "volume_prediction_ml": 4.0, "volume_difference_ml": -0.8}, rel=1e-12
    )
    assert second.values == pytest.approx(
        {"volume_reference_ml": 2.0, "volume_prediction_ml": 0.0, "volume_difference_ml": -2.0}, rel=1e-12
    )
    assert (first.status, second.status) == ("ok", "missed")


def test_a_slice_is_as_thick_as_its_spacing_says() -> None:
    mask = np.ones((10, 10), np.uint8)
    (score,) = scores(BINARY, Prediction.from_masks("c", mask, mask, spacing_mm=(5.0, 2.0, 2.0)))
    assert score.values["volume_reference_ml"] == pytest.approx(2.0, rel=1e-12)


def test_open_voxels_are_in_no_volume() -> None:
    prediction, reference = np.ones((1, 100), np.uint8), np.ones((1, 100), np.uint8)
    reference[:, 10:] = IGNORE
    (score,) = scores(BINARY, Prediction.from_masks("c", prediction, reference, spacing_mm=(10.0, 10.0, 10.0)))
    assert [score.values[name] for name in ("volume_reference_ml", "volume_prediction_ml")] == [10.0, 10.0]


def test_without_a_spacing_no_volume_is_known() -> None:
    case = random_case(MULTILABEL, 0)
    for score in scores(MULTILABEL, replace(case, geometry=Geometry(case.geometry.shape))):
        assert len(score.values) == 3
        assert all(math.isnan(value) for value in score.values.values())
