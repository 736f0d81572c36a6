"""Dice, IoU, precision and recall of whole cases."""

from __future__ import annotations

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction
from medseg_pl.functional import overlap
from medseg_pl.functional.overlap import OverlapCounts
from medseg_pl.metrics.case_metric import CaseMetric, Score, status_of, with_empty_rule

FORMULAS = {
    "dice": overlap.dice,
    "iou": overlap.iou,
    "precision": overlap.precision,
    "recall": overlap.recall,
}


class OverlapMetric(CaseMetric):
    r"""Overlap on the native grid, from integer counts.

    With $TP$, $FP$, $FN$ the voxels of a label in both masks, in the prediction alone and in the reference alone:

    $$\mathrm{Dice} = \frac{2TP}{2TP + FP + FN},\quad \mathrm{IoU} = \frac{TP}{TP + FP + FN},\quad
      \mathrm{precision} = \frac{TP}{TP + FP},\quad \mathrm{recall} = \frac{TP}{TP + FN}.$$

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) do not count.
    """

    def score(self, case: CasePrediction) -> list[Score]:
        """One entry for each label."""
        assert case.reference is not None, "update has checked it"
        counts = count(case, self.labels)
        return [
            Score(case.case_id, case.group, name, _values(counts[i], case), status_of(counts[i]))
            for i, name in enumerate(self.labels.names)
        ]


def count(case: CasePrediction, labels: LabelMap) -> list[OverlapCounts]:
    """The counts of each label in one case."""
    assert case.reference is not None, "cases without a reference are not counted"
    if labels.overlapping:
        return overlap.count_overlapping(case.prediction, case.reference)
    return overlap.count_exclusive(case.prediction[0], case.reference[0], len(labels.names))


def _values(counts: OverlapCounts, case: CasePrediction) -> dict[str, float | int]:
    scores = {name: with_empty_rule(formula(counts), counts) for name, formula in FORMULAS.items()}
    voxel_ml = case.geometry.voxel_ml
    volumes = (
        {}
        if voxel_ml is None
        else {
            "volume_reference_ml": counts.reference * voxel_ml,
            "volume_prediction_ml": counts.prediction * voxel_ml,
        }
    )
    return {**counts._asdict(), **scores, **volumes}
