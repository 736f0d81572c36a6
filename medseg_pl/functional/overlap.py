"""Overlap of two masks: integer counts first, then every score as a reader of them.

References:
    Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29, 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


class OverlapCounts(NamedTuple):
    """Voxels of one label in one case: in both masks, in the prediction alone, in the reference alone.

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
        if not isinstance(other, OverlapCounts):
            return NotImplemented
        return OverlapCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, or NaN where there is nothing to divide by."""
    return numerator / denominator if denominator else float("nan")


def dice(counts: OverlapCounts) -> float:
    """`2 TP / (2 TP + FP + FN)`, NaN where both masks are empty.

    >>> dice(OverlapCounts(tp=2, fp=1, fn=1))
    0.6666666666666666
    """
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: OverlapCounts) -> float:
    """`TP / (TP + FP + FN)`, NaN where both masks are empty.

    >>> iou(OverlapCounts(tp=2, fp=1, fn=1))
    0.5
    """
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: OverlapCounts) -> float:
    """`TP / (TP + FP)`, NaN where the prediction is empty."""
    return ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: OverlapCounts) -> float:
    """`TP / (TP + FN)`, NaN where the reference is empty."""
    return ratio(counts.tp, counts.tp + counts.fn)


def count_exclusive(
    prediction: UInt8[np.ndarray, "..."], reference: UInt8[np.ndarray, "..."], labels: int
) -> list[OverlapCounts]:
    """Counts of labels `1 … labels` in two index masks; voxels whose reference is 255 are left out.

    One joint histogram holds all the counts, in exact integers.

    >>> count_exclusive(np.array([1, 1, 2, 0], np.uint8), np.array([1, 2, 2, 255], np.uint8), labels=2)
    [OverlapCounts(tp=1, fp=1, fn=0), OverlapCounts(tp=1, fp=0, fn=1)]
    """
    size = labels + 2  # background, labels, and one place for whatever is ignored
    annotation, decision = (np.minimum(mask, size - 1).ravel() for mask in (reference, prediction))
    joint = np.bincount(decision + annotation * np.uint16(size), minlength=size * size)
    table = joint.reshape(size, size)[:-1]
    predicted, annotated, both = table.sum(axis=0), table.sum(axis=1), np.diagonal(table)
    return [
        OverlapCounts(int(both[i]), int(predicted[i] - both[i]), int(annotated[i] - both[i]))
        for i in range(1, labels + 1)
    ]


def count_overlapping(
    prediction: UInt8[np.ndarray, "n ..."], reference: UInt8[np.ndarray, "n ..."]
) -> list[OverlapCounts]:
    """Counts of each channel of two stacks of 0/1 masks; voxels whose reference is 255 are left out.

    >>> count_overlapping(np.array([[1, 1, 0]], np.uint8), np.array([[1, 0, 1]], np.uint8))
    [OverlapCounts(tp=1, fp=1, fn=1)]
    """
    return [count_exclusive(p, r, labels=1)[0] for p, r in zip(prediction, reference, strict=True)]
