"""Dice, IoU, precision and recall of whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, apply_empty_mask_rule
from medseg_pl.metrics.functional import overlap
from medseg_pl.metrics.functional.overlap import count, dice
from medseg_pl.metrics.functional.surface import hausdorff, measure_diagonal, surface_distances

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
        """Compute counts and the scores that follow from them."""
        counts = pair.counts
        scores = apply_empty_mask_rule(
            pair, _WORST, lambda: {name: formula(counts) for name, formula in FORMULAS.items()}
        )
        return {**counts._asdict(), **scores}


class VolumeMetric(CaseMetric):
    """How large a label is in both masks, in millilitres.

    NaN where the spacing is unknown; 0 where the label is absent, which is its volume and no failure to measure.

    Columns: `volume_reference_ml`, `volume_prediction_ml`, and `volume_difference_ml`, prediction less reference.
    """

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the volumes of a label."""
        voxel_ml = math.nan if pair.case.geometry.voxel_ml is None else pair.case.geometry.voxel_ml
        reference_ml, prediction_ml = pair.counts.reference * voxel_ml, pair.counts.prediction * voxel_ml
        return {
            "volume_reference_ml": reference_ml,
            "volume_prediction_ml": prediction_ml,
            "volume_difference_ml": prediction_ml - reference_ml,
        }


# The competition counts in pixels, and sets the depth of a slice to one of them.
_PIXELS = (1.0, 1.0, 1.0)


class UWMadisonScore(CaseMetric):
    r"""What the UW-Madison GI Tract Image Segmentation competition asked for, as one column `uw_madison`.

    $$0.4\,\overline{\mathrm{Dice}} + 0.6\,\Big(1 - \frac{\mathrm{HD}}{\mathrm{diagonal}}\Big)$$

    The organizers describe it and did not publish their code. They say: Dice of each image; the Hausdorff distance of
    volumes that are built from the slices with a slice depth of 1; pixel locations normalized by the image size, which
    bounds it to 0 … 1; weights of 0.4 and 0.6. For each case and label we read it as:

    - the mean Dice over the case's slices, without those in which both masks are empty. By the competition's page these
      have a Dice of 0, and no prediction of an organ that some slice lacks could be perfect;
    - the Hausdorff distance in pixels between border voxels, as `SurfaceMetric` has it, over the diagonal of the
      volume in pixels (of the slice, in 2D). Others divide along each axis by its own length.

    So its digits need not be those of the leaderboard. Both masks empty: NaN. Exactly one empty: 0, a Dice of 0 at a
    distance of 1. Voxels that the reference leaves open (255) are in neither mask. The spacing plays no part.

    References:
        "UW-Madison GI Tract Image Segmentation", Kaggle, 2022,
        https://www.kaggle.com/competitions/uw-madison-gi-tract-image-segmentation/overview/evaluation
    """

    in_training = False

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the score of a label."""
        return apply_empty_mask_rule(pair, {"uw_madison": 0.0}, lambda: {"uw_madison": _compute_score(pair)})


def _compute_score(pair: LabelPair) -> float:
    return 0.4 * _average_slice_dice(pair) + 0.6 * (1 - _compute_hausdorff(pair))


def _average_slice_dice(pair: LabelPair) -> float:
    slices = zip(pair.prediction, pair.reference, strict=True)
    return float(np.nanmean([dice(count(prediction, reference)) for prediction, reference in slices]))


def _compute_hausdorff(pair: LabelPair) -> float:
    distances = surface_distances(pair.prediction, pair.reference, _PIXELS)
    return hausdorff(distances) / measure_diagonal(pair.case.geometry.shape, _PIXELS)
