"""Dice, IoU, precision and recall of whole cases."""

from __future__ import annotations

from collections.abc import Mapping

from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, apply_empty_mask_rule
from medseg_pl.metrics.functional import overlap

FORMULAS = {
    "dice": overlap.dice,
    "iou": overlap.iou,
    "precision": overlap.precision,
    "recall": overlap.recall,
}
_WORST = dict.fromkeys(FORMULAS, 0.0)


class OverlapMetric(CaseMetric):
    r"""Overlap on the native grid, from integer counts.

    With $TP$, $FP$, $FN$ the voxels of a label in both masks, in the prediction alone and in the reference alone:

    $$\mathrm{Dice} = \frac{2TP}{2TP + FP + FN},\quad \mathrm{IoU} = \frac{TP}{TP + FP + FN},\quad
      \mathrm{precision} = \frac{TP}{TP + FP},\quad \mathrm{recall} = \frac{TP}{TP + FN}.$$

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) do not count.

    Columns: `tp`, `fp`, `fn`, `dice`, `iou`, `precision`, `recall`.

    References:
        Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29, 2015.
    """

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Counts and the scores that are read from them."""
        counts = pair.counts
        scores = apply_empty_mask_rule(
            pair, _WORST, lambda: {name: formula(counts) for name, formula in FORMULAS.items()}
        )
        return {**counts._asdict(), **scores}
