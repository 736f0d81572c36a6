"""Brier score, calibration error and entropy of whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.case_metric import UNDEFINED, CaseMetric, LabelPair, gather_from_ranks
from medseg_pl.metrics.functional.calibration import (
    CalibrationSums,
    brier_score,
    entropy,
    expected_calibration_error,
    sum_calibration,
)
from medseg_pl.metrics.functional.overlap import ratio

# How far a probability may be beyond 0 or 1: averaging and scaling round.
_ROUNDING = 1e-3


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
        if pair.status == UNDEFINED:
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
        """Sum the bins of each label over the cases of all processes; every one of them has to call it."""
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
    """Over the voxels that were predicted as the label, slice by slice to hold few of them in memory."""
    assert pair.case.probabilities is not None, "they have been checked"
    total = 0.0
    for z, predicted in enumerate(pair.prediction):
        competing = pair.labels.distribution(pair.case.probabilities[:, z, predicted], pair.index)
        total += float(entropy(competing).sum(dtype=np.float64))
    return ratio(total, pair.counts.prediction)
