"""clDice and boundary IoU of whole cases."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import BoundaryMetric, CaseMetric, CenterlineMetric
from tests.contracts.metric_contract import BINARY, CaseMetricContract


class TestCenterlineMetric(CaseMetricContract):
    best_is_one = ("cl_dice", "topology_precision", "topology_sensitivity")

    def make(self, labels: LabelMap) -> CaseMetric:
        return CenterlineMetric(labels)


class TestBoundaryMetric(CaseMetricContract):
    best_is_one = ("boundary_iou",)

    def make(self, labels: LabelMap) -> CaseMetric:
        return BoundaryMetric(labels)


@pytest.mark.parametrize(("spacing", "expected"), [(None, 16 / 48), ((5.0, 1.0, 1.0), 16 / 48), ((5.0, 4.0, 1.0), 0.0)])
def test_the_width_is_a_share_of_the_diagonal(spacing: tuple[float, float, float] | None, expected: float) -> None:
    large, small = np.zeros((2, 9, 9))
    large[1:8, 1:8] = small[2:7, 2:7] = 1
    metric = BoundaryMetric(BINARY, width=0.16)  # of 12.7 pixels: two; of 37 mm: one row of 4 mm and six columns
    metric.update(Prediction.from_masks("c", small, large, spacing_mm=spacing))
    (row,) = metric.table()
    if spacing == (5.0, 4.0, 1.0):
        # Six columns from either side are all columns: both masks are boundary altogether.
        expected = 25 / 49
    assert row.values["boundary_iou"] == pytest.approx(expected)


@pytest.mark.parametrize("width", [0.0, 1.0, -0.1])
def test_a_width_that_is_no_share_is_refused(width: float) -> None:
    with pytest.raises(SettingError, match=f"between 0 and 1; got {width}"):
        BoundaryMetric(BINARY, width)
