"""Overlap of two masks: integer counts first, then every score as a reader of them.

References:
    Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29, 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class OverlapCounts(NamedTuple):
    """Voxels of one label in one case.

    They are in both masks, in the prediction alone, and in the reference alone.

    >>> counts = OverlapCounts(tp=2, fp=1, fn=1)
    >>> counts.prediction, counts.reference
    (3, 3)
    """

    tp: int
    fp: int
    fn: int

    @property
    def prediction(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    def __add__(self, other: object) -> OverlapCounts:
        """Pool the voxels of two cases."""
        # A tuple's `+` would join the two to six numbers.
        if not isinstance(other, OverlapCounts):
            return NotImplemented
        return OverlapCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def ratio(numerator: float, denominator: float) -> float:
    """Divide, with NaN for a denominator of 0.

    >>> ratio(1, 4), ratio(1, 0)
    (0.25, nan)
    """
    return numerator / denominator if denominator else float("nan")


def dice(counts: OverlapCounts) -> float:
    """Compute Dice, `2 TP / (2 TP + FP + FN)`.

    It is NaN where both masks are empty.

    >>> dice(OverlapCounts(tp=2, fp=1, fn=1))
    0.6666666666666666
    """
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: OverlapCounts) -> float:
    """Compute IoU, `TP / (TP + FP + FN)`.

    It is NaN where both masks are empty.

    >>> iou(OverlapCounts(tp=2, fp=1, fn=1))
    0.5
    """
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: OverlapCounts) -> float:
    """Compute `TP / (TP + FP)`, NaN where the prediction is empty."""
    return ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: OverlapCounts) -> float:
    """Compute `TP / (TP + FN)`, NaN where the reference is empty."""
    return ratio(counts.tp, counts.tp + counts.fn)


def count(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> OverlapCounts:
    """Count the voxels of one label in exact integers.

    >>> count(np.array([True, True, False]), np.array([True, False, True]))
    OverlapCounts(tp=1, fp=1, fn=1)
    """
    # Counted, not summed: a float32 sum is exact up to 2**24 voxels only, which one CT exceeds.
    both = int(np.count_nonzero(prediction & reference))
    return OverlapCounts(both, int(np.count_nonzero(prediction)) - both, int(np.count_nonzero(reference)) - both)
