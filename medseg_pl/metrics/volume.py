"""Volumes of whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medseg_pl.metrics.case_metric import CaseMetric, LabelPair


class VolumeMetric(CaseMetric):
    """How large a label is in both masks, in millilitres.

    NaN where the spacing is unknown; 0 where the label is absent, which is its volume and no failure to measure.

    Columns: `volume_reference_ml`, `volume_prediction_ml`, and `volume_difference_ml`, prediction less reference.
    """

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """The volumes of a label."""
        voxel_ml = math.nan if pair.case.geometry.voxel_ml is None else pair.case.geometry.voxel_ml
        reference_ml, prediction_ml = pair.counts.reference * voxel_ml, pair.counts.prediction * voxel_ml
        return {
            "volume_reference_ml": reference_ml,
            "volume_prediction_ml": prediction_ml,
            "volume_difference_ml": prediction_ml - reference_ml,
        }
