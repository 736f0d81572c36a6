"""How far probabilities can be believed: sums over voxels first, then every score as a reader of them.

References:
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78:1, 1950.
    Guo et al., "On calibration of modern neural networks", ICML 2017.
    Mehrtash et al., "Confidence calibration and predictive uncertainty estimation for deep medical image segmentation",
    IEEE Transactions on Medical Imaging 39:3868, 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray

from medseg_pl.metrics.functional.overlap import ratio

# Voxels in double precision at once: half a megabyte, whatever the size of the volume.
_BLOCK = 2**16


class CalibrationSums(NamedTuple):
    """Sums over one label's voxels, in equal bins of their probability.

    A bin holds its lower end, and the last one its upper end too.

    Args:
        voxels: The number in each bin.
        positives: How many of them the reference gives the label.
        probability: The sum of their probabilities.
        squared_error: The sum of `(p - r)²` over the voxels of all bins.
    """

    voxels: Int64[np.ndarray, "b"]
    positives: Int64[np.ndarray, "b"]
    probability: Float64[np.ndarray, "b"]
    squared_error: float

    def add(self, other: CalibrationSums) -> CalibrationSums:
        """Return the sums over both."""
        return CalibrationSums(
            self.voxels + other.voxels,
            self.positives + other.positives,
            self.probability + other.probability,
            self.squared_error + other.squared_error,
        )


def sum_calibration(
    probability: Float[np.ndarray, "*shape"],
    reference: Bool[np.ndarray, "*shape"],
    annotated: Bool[np.ndarray, "*shape"],
    bins: int,
) -> CalibrationSums:
    """Sum one label's probabilities and reference by bins, in one pass.

    Args:
        probability: Between 0 and 1; what rounding puts beyond either end counts as that end.
        reference: Where the label is.
        annotated: The voxels that count.
        bins: How many bins share 0 … 1.

    >>> probability, reference = np.array([0.25, 0.0, 1.0]), np.array([True, False, True])
    >>> sums = sum_calibration(probability, reference, np.ones(3, bool), bins=2)
    >>> sums.voxels, sums.positives, sums.probability, sums.squared_error
    (array([2, 1]), array([1, 1]), array([0.25, 1.  ]), 0.5625)
    """
    voxels, positives = np.zeros((2, bins), dtype=np.int64)
    total, squared_error = np.zeros(bins), 0.0
    for p, r in _split_blocks(probability, reference, annotated):
        place = np.minimum((p * bins).astype(np.int64), bins - 1)
        voxels += np.bincount(place, minlength=bins)
        positives += np.bincount(place[r], minlength=bins)
        total += np.bincount(place, weights=p, minlength=bins)
        squared_error += float(np.square(p - r).sum())
    return CalibrationSums(voxels, positives, total, squared_error)


def brier_score(sums: CalibrationSums) -> float:
    r"""Compute the Brier score, the mean of $(p - r)^2$ over voxels.

    It is NaN without any voxel.

    >>> brier_score(CalibrationSums(np.array([2, 2]), np.array([1, 1]), np.array([0.25, 1.75]), squared_error=1.0))
    0.25
    """
    return ratio(sums.squared_error, int(sums.voxels.sum()))


def expected_calibration_error(sums: CalibrationSums) -> float:
    r"""Compute ECE: how far probabilities are from the share of the label.

    It is the distance of both in each bin, averaged over voxels:

    $$\sum_b \frac{n_b}{n}\,\Big|\,\frac{1}{n_b}\sum_{i \in b} p_i - \frac{1}{n_b}\sum_{i \in b} r_i\,\Big|
      = \frac{1}{n} \sum_b \Big|\sum_{i \in b} (p_i - r_i)\Big|.$$

    It is NaN without voxels. Like torchmetrics' `BinaryCalibrationError` it uses the label's own probability; Guo et
    al. use that of the likeliest class.

    >>> expected_calibration_error(CalibrationSums(np.array([2, 2]), np.array([1, 1]), np.array([0.25, 1.75]), 1.0))
    0.375
    """
    return ratio(float(np.abs(sums.probability - sums.positives).sum()), int(sums.voxels.sum()))


def entropy(distribution: Float[np.ndarray, "c *shape"]) -> Float[np.ndarray, "*shape"]:
    r"""Compute the entropy $-\sum_c p_c \ln p_c$ of each voxel in nats.

    It is 0 where one class is certain, and $\ln C$ where all are equally likely.

    Args:
        distribution: The probability of each class; $0 \ln 0$ is 0.

    >>> entropy(np.array([[1.0, 0.5], [0.0, 0.5]])).round(4)
    array([0.    , 0.6931])
    """
    found: NDArray[np.floating] = scipy.special.entr(distribution.clip(0, 1)).sum(axis=0)
    return found


def _split_blocks(
    probability: NDArray[np.floating], reference: NDArray[np.bool_], annotated: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield probability and reference of annotated voxels, block by block."""
    p, r, counted = probability.reshape(-1), reference.reshape(-1), annotated.reshape(-1)
    for start in range(0, len(p), _BLOCK):
        block = slice(start, start + _BLOCK)
        chosen = counted[block]
        yield p[block][chosen].astype(np.float64).clip(0, 1), r[block][chosen]
