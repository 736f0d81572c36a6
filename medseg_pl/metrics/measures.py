"""Case metrics: overlap, volume, surface distances, calibration, clDice and boundary IoU of whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.case_metric import (
    NOT_ANNOTATED,
    UNDEFINED,
    CaseMetric,
    LabelPair,
    apply_empty_mask_rule,
    gather_from_ranks,
)
from medseg_pl.metrics.functional import overlap
from medseg_pl.metrics.functional.calibration import (
    CalibrationSums,
    brier_score,
    entropy,
    expected_calibration_error,
    sum_calibration,
)
from medseg_pl.metrics.functional.overlap import count, dice, ratio
from medseg_pl.metrics.functional.shape import (
    boundary_iou,
    cl_dice,
    count_centerlines,
    topology_precision,
    topology_sensitivity,
)
from medseg_pl.metrics.functional.surface import (
    assd,
    hausdorff,
    hd95,
    measure_diagonal,
    nsd,
    surface_distances,
)

FORMULAS = {
    "dice": overlap.dice,
    "iou": overlap.iou,
    "precision": overlap.precision,
    "recall": overlap.recall,
}

# What a case scores where exactly one of its masks is empty.
_WORST_OVERLAP = dict.fromkeys(FORMULAS, 0.0)

# How far a probability may be beyond 0 or 1: averaging and scaling round.
_ROUNDING = 1e-3


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
            pair, _WORST_OVERLAP, lambda: {name: formula(counts) for name, formula in FORMULAS.items()}
        )
        return {**counts._asdict(), **scores}


class VolumeMetric(CaseMetric):
    """Volume of a label in both masks, in millilitres.

    It is NaN where the spacing is unknown, and 0 where the label is absent, which is its volume and no failure to
    measure.

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
    r"""The score of the UW-Madison competition, as column `uw_madison`.

    The competition is Kaggle's UW-Madison GI Tract Image Segmentation.

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


class SurfaceMetric(CaseMetric):
    r"""Distances between the borders of two masks, on the native grid.

    With $d(a, B)$ the distance from a border voxel $a$ of the one mask to the nearest border voxel of the other:

    - `hd` $= \max(\max_{p} d(p, R), \max_{r} d(r, P))$, the Hausdorff distance;
    - `hd95`, the same with 95th percentiles (linear interpolation) in place of the inner maxima;
    - `assd`, the mean of $d$ over all border voxels of both masks;
    - `nsd`, the share of them with $d \le$ tolerance.

    Both masks empty: NaN. Exactly one empty: NSD 0, and distances as long as the image's diagonal. Distances are in
    mm, or, where the spacing is unknown, in pixels; the column `unit` says which. Voxels that the reference leaves
    open (255) are in neither mask.

    Args:
        labels: The labels that are scored.
        tolerance: How far apart borders may be that count as the same for NSD: one number, or one for each label, in
            the unit of the distances. Two annotators differ by as much.

    Raises:
        SettingError: A tolerance is negative or infinite, or not given for each label.

    References:
        Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024.
        Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", JMIR 23(7), 2021.
    """

    in_training = False

    def __init__(self, labels: LabelMap, tolerance: float | Mapping[str, float] = 1.0) -> None:
        super().__init__(labels)
        self.tolerance = _expand_tolerance(labels, tolerance)

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the four scores of a label."""
        geometry = pair.case.geometry
        far = measure_diagonal(geometry.shape, geometry.spacing_in_unit)
        worst = {"hd": far, "hd95": far, "assd": far, "nsd": 0.0}
        return apply_empty_mask_rule(pair, worst, lambda: self._measure(pair))

    def _measure(self, pair: LabelPair) -> dict[str, float]:
        distances = surface_distances(pair.prediction, pair.reference, pair.case.geometry.spacing_in_unit)
        return {
            "hd": hausdorff(distances),
            "hd95": hd95(distances),
            "assd": assd(distances),
            "nsd": nsd(distances, self.tolerance[pair.label]),
        }


def _expand_tolerance(labels: LabelMap, tolerance: float | Mapping[str, float]) -> dict[str, float]:
    given = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(labels.names, tolerance)
    if set(given) != set(labels.names):
        raise SettingError(
            f"The tolerance of NSD names {', '.join(given) or 'no label'}; expected one number, or one for each of the "
            f"labels {', '.join(labels.names)}."
        )
    wrong = [name for name, value in given.items() if not 0 <= value < math.inf]
    if wrong:
        raise SettingError(
            f"The tolerance of NSD must be finite and not negative; got {given[wrong[0]]} for {wrong[0]}."
        )
    return {name: float(given[name]) for name in labels.names}


class CalibrationMetric(CaseMetric):
    r"""Whether the probabilities mean what they say, on the native grid.

    With $p$ the probability of a label at a voxel, and $r$ 1 where the reference has the label and 0 elsewhere:

    - `brier`, the mean of $(p - r)^2$: 0 is the best, 1 the worst;
    - `ece`, the expected calibration error: voxels are sorted into bins of equal width by $p$, and the distance of
      the mean $p$ of a bin from its share of $r = 1$ is averaged over all voxels: 0 where probabilities are
      frequencies;
    - `entropy`, the mean over the voxels that were predicted as the label of $-\sum p \ln p$ in nats: over all classes
      with the background where labels exclude each other, over the label and its absence elsewhere. It says how unsure
      the network is where it found the label, not whether it is right. NaN where nothing was predicted.

    Unlike overlap and distances these judge the probabilities and not the mask: to empty a mask changes neither `brier`
    nor `ece`, and leaves `entropy` undefined. Over a whole image `brier` and `ece` are dominated by easy background:
    they are small for every small label, and are to be compared between networks on one data set, not between labels.

    Both masks empty: NaN, so that the cases without a label do not flatter its mean; wherever one of them is not,
    `brier` and `ece` are computed as they stand. Voxels that the reference leaves open (255) do not count.

    It needs cases with probabilities, which the masks of others do not come with.

    Args:
        labels: The labels that are scored.
        bins: Bins of `ece`.

    Raises:
        SettingError: There is not even one bin.

    References:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78:1, 1950.
        Guo et al., "On calibration of modern neural networks", ICML 2017.
        Mehrtash et al., "Confidence calibration and predictive uncertainty estimation for deep medical image
        segmentation", IEEE Transactions on Medical Imaging 39:3868, 2020.
    """

    in_training = False
    needs_probabilities = True

    def __init__(self, labels: LabelMap, bins: int = 15) -> None:
        super().__init__(labels)
        if bins < 1:
            raise SettingError(f"CalibrationMetric needs bins of at least 1; got {bins}.")
        self.bins = bins
        self._sums: list[tuple[str, str, CalibrationSums]] = []

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the three scores of a label.

        Raises:
            DataError: The case has no probabilities, or numbers that are none.
        """
        probability = _check_probability(pair)
        if pair.status in (UNDEFINED, NOT_ANNOTATED):
            return dict.fromkeys(("brier", "ece", "entropy"), math.nan)
        sums = sum_calibration(probability, pair.reference, pair.annotated, self.bins)
        self._sums.append((pair.case.case_id, pair.label, sums))
        return {
            "brier": brier_score(sums),
            "ece": expected_calibration_error(sums),
            "entropy": _average_entropy(pair),
        }

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self._sums = []

    def sum_bins(self) -> dict[str, CalibrationSums]:
        """Sum the bins of each label over the cases of all processes.

        Each process must call it.
        """
        totals: dict[str, CalibrationSums] = {}
        # By case, so that sums have the same last digit on any number of processes.
        for _, label, sums in sorted(gather_from_ranks(self._sums), key=lambda entry: entry[0]):
            before = totals.get(label)
            totals[label] = sums if before is None else before.add(sums)
        return totals


def _check_probability(pair: LabelPair) -> Float[np.ndarray, "d h w"]:
    probability = pair.probability
    low, high = float(probability.min()), float(probability.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # so that NaN is refused too
        raise DataError(
            f"Case {pair.case.case_id}: the probabilities of {pair.label} lie between {low:g} and {high:g}; expected 0 "
            "to 1. Give probabilities and not logits; where the numbers are NaN, the network has diverged."
        )
    return probability


def _average_entropy(pair: LabelPair) -> float:
    """Average the entropy over the predicted voxels of a label."""
    # Slice by slice, to hold few voxels in memory.
    assert pair.case.probabilities is not None, "they have been checked"
    total = 0.0
    for z, predicted in enumerate(pair.prediction):
        competing = pair.labels.distribution(pair.case.probabilities[:, z, predicted], pair.index)
        total += float(entropy(competing).sum(dtype=np.float64))
    return ratio(total, pair.counts.prediction)


class CenterlineMetric(CaseMetric):
    r"""Agreement of the centerlines of tubes, such as vessels.

    A thin tube counts as much as a thick one. With $S_P$ and $S_R$ the centerlines of prediction $P$ and reference $R$:

    - `topology_precision` $= |S_P \cap R| / |S_P|$ and `topology_sensitivity` $= |S_R \cap P| / |S_R|$;
    - `cl_dice`, their harmonic mean.

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) are in neither mask.

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure segmentation", CVPR 2021.
    """

    in_training = False

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute clDice and its two parts."""
        worst = dict.fromkeys(("cl_dice", "topology_precision", "topology_sensitivity"), 0.0)
        return apply_empty_mask_rule(pair, worst, lambda: _score_centerlines(pair))


class BoundaryMetric(CaseMetric):
    r"""Agreement of the masks near their borders: `boundary_iou`.

    The inside of large objects does not raise it. With $P_d$ and $R_d$ the voxels of prediction and reference within
    $d$ of their own border, it is $|P_d \cap R_d| / |P_d \cup R_d|$, where $d$ is a share of the image's diagonal.

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) are in neither mask.

    Args:
        labels: The labels that are scored.
        width: $d$ as a share of the diagonal of the image, or of one slice.

    Raises:
        SettingError: The width is not between 0 and 1.

    References:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021.
    """

    in_training = False

    def __init__(self, labels: LabelMap, width: float = 0.02) -> None:
        super().__init__(labels)
        if not 0 < width < 1:
            raise SettingError(f"BoundaryMetric needs a width between 0 and 1; got {width}. Set such as 0.02.")
        self.width = width

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute boundary IoU."""
        geometry = pair.case.geometry
        _, height, columns = geometry.shape
        # Of a volume a slice's diagonal: the number of slices says nothing about how wide a border is.
        width = self.width * measure_diagonal((1, height, columns), geometry.spacing_in_unit)
        masks = pair.prediction, pair.reference
        return apply_empty_mask_rule(
            pair,
            {"boundary_iou": 0.0},
            lambda: {"boundary_iou": boundary_iou(*masks, width=width, spacing=geometry.spacing_in_unit)},
        )


def _score_centerlines(pair: LabelPair) -> dict[str, float]:
    counts = count_centerlines(pair.prediction, pair.reference)
    return {
        "cl_dice": cl_dice(counts),
        "topology_precision": topology_precision(counts),
        "topology_sensitivity": topology_sensitivity(counts),
    }
