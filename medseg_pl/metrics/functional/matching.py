"""Which objects of a prediction stand for which of a reference, and the scores of that: F1, SQ, PQ.

References:
    Kirillov, He, Girshick, Rother and Dollár, "Panoptic segmentation", CVPR 2019.
    Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024.
    Kofler et al., "Panoptica: instance-wise evaluation of 3D semantic and instance segmentation maps",
    arXiv:2312.02608, 2023.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts load at their first use
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from medseg_pl.metrics.functional.objects import ObjectOverlaps
from medseg_pl.metrics.functional.overlap import OverlapCounts, ratio

MatchingMode = Literal["one_to_one", "many_to_one"]
"""Whether an object of the reference is found by one object of the prediction, or by several together."""

# Among matchings with the same summed IoU, that with most pairs wins; rounding is smaller, and differences are larger.
_TIE = 1e-9


class Matching(NamedTuple):
    """Pairing of predicted objects with those of the reference.

    Attributes:
        assigned: For each object of the prediction the one of the reference that it stands for, -1 for none.
        shared: For each object of the reference the voxels that it shares with those, 0 where it was missed.
        united: The voxels of both together.
    """

    assigned: Int64[np.ndarray, "p"]
    shared: Int64[np.ndarray, "r"]
    united: Int64[np.ndarray, "r"]

    @property
    def iou(self) -> Float64[np.ndarray, "r"]:
        """IoU of each reference object with its match; 0 where missed."""
        return np.asarray(self.shared / self.united, dtype=np.float64)

    @property
    def dice(self) -> Float64[np.ndarray, "r"]:
        """The same as Dice."""
        return np.asarray(2 * self.shared / (self.united + self.shared), dtype=np.float64)

    @property
    def counts(self) -> OverlapCounts:
        """Number of objects found, invented and missed.

        `dice`, `precision` and `recall` of these are F1 and its parts.
        """
        found = int(np.count_nonzero(self.shared))
        return OverlapCounts(found, int(np.count_nonzero(self.assigned < 0)), len(self.shared) - found)


def match_objects(overlaps: ObjectOverlaps, threshold: float = 0.0, mode: MatchingMode = "one_to_one") -> Matching:
    """Match the objects of a prediction to those of a reference.

    `one_to_one` takes, of all ways to pair objects with an IoU of at least the threshold, that with the largest sum of
    IoU, and among equals that with most pairs. `many_to_one` gives each object of the prediction to that of the
    reference with which it shares most voxels (the first of equals); all that is given to one stands for it together,
    if their union has an IoU of at least the threshold with it.

    Args:
        overlaps: What objects share.
        threshold: The least IoU; 0 asks for one shared voxel.
        mode: See above.

    >>> overlaps = ObjectOverlaps(*map(np.array, ([0, 0], [0, 1], [2, 4], [8], [2, 4])))
    >>> match_objects(overlaps, 0.5).counts, match_objects(overlaps, 0.6, "many_to_one").counts
    (OverlapCounts(tp=1, fp=1, fn=0), OverlapCounts(tp=1, fp=0, fn=0))
    """
    pairs = _pair_one_to_one(overlaps, threshold) if mode == "one_to_one" else _pair_many_to_one(overlaps, threshold)
    # Objects without any overlap are in no pair, and stay at -1.
    assigned = np.full(len(overlaps.prediction_sizes), -1, dtype=np.int64)
    assigned[overlaps.prediction[pairs]] = overlaps.reference[pairs]
    return Matching(assigned, *_sum_pairs(overlaps, pairs))


def segmentation_quality(matching: Matching) -> float:
    """Compute SQ, the mean IoU of the objects that were found.

    It is 0 where none was, and NaN where there is nothing to find.

    >>> segmentation_quality(Matching(np.array([0]), np.array([3, 0]), np.array([4, 5])))
    0.75
    """
    counts = matching.counts
    if counts.tp:
        return float(matching.iou.sum()) / counts.tp
    return 0.0 if counts.fp or counts.fn else float("nan")


def panoptic_quality(matching: Matching) -> float:
    r"""Compute PQ, the summed IoU over all objects.

    It is $\sum \mathrm{IoU} / (TP + (FP + FN) / 2)$, the product of SQ and F1, which is called RQ there.

    >>> panoptic_quality(Matching(np.array([0]), np.array([3, 0]), np.array([4, 5])))
    0.5
    """
    counts = matching.counts
    return ratio(2 * float(matching.iou.sum()), 2 * counts.tp + counts.fp + counts.fn)


def count_disagreement(reference: int, prediction: int) -> float:
    """Compute the relative error of the number of objects.

    It is `|P - R| / max(P, R)`, from 0 to 1: 1 where exactly one mask is empty, NaN where both are. The plain
    difference could be improved by predicting nothing.

    >>> count_disagreement(reference=4, prediction=5), count_disagreement(reference=1, prediction=0)
    (0.2, 1.0)
    """
    return ratio(abs(prediction - reference), max(prediction, reference))


def _pair_one_to_one(overlaps: ObjectOverlaps, threshold: float) -> NDArray[np.intp]:
    """Choose the pairs of the best matching in each connected group."""
    iou = overlaps.iou
    allowed = np.flatnonzero(iou >= threshold)
    reference, prediction = overlaps.reference[allowed], overlaps.prediction[allowed]
    # Most objects touch one other alone; only the rest needs the assignment, which is cubic in its size.
    alone = (np.bincount(reference)[reference] == 1) & (np.bincount(prediction)[prediction] == 1)
    disputed = allowed[~alone]
    chosen = [allowed[alone]]
    for group in _split_groups(overlaps, disputed):
        rows, row = np.unique(overlaps.reference[group], return_inverse=True)
        columns, column = np.unique(overlaps.prediction[group], return_inverse=True)
        gains = np.zeros((len(rows), len(columns)))
        # Pairs that share nothing stay at 0, and are dropped below if the assignment needs them to be complete.
        gains[row, column] = iou[group] + _TIE
        best = np.zeros(gains.shape, dtype=bool)
        best[scipy.optimize.linear_sum_assignment(gains, maximize=True)] = True
        chosen.append(group[best[row, column]])
    return np.sort(np.concatenate(chosen))


def _split_groups(overlaps: ObjectOverlaps, pairs: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split pairs into groups that share no object."""
    if not len(pairs):
        return []
    references, predictions = len(overlaps.reference_sizes), len(overlaps.prediction_sizes)
    nodes = overlaps.reference[pairs], references + overlaps.prediction[pairs]
    graph = scipy.sparse.coo_array((np.ones(len(pairs), dtype=bool), nodes), shape=(references + predictions,) * 2)
    _, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
    keys = group[nodes[0]]
    order = np.argsort(keys, kind="stable")
    return np.split(pairs[order], np.flatnonzero(np.diff(keys[order])) + 1)


def _pair_many_to_one(overlaps: ObjectOverlaps, threshold: float) -> NDArray[np.intp]:
    """Choose each prediction's largest overlap, if the union reaches the threshold."""
    # The last key sorts first; the first of equals is the smallest number, whatever the order of the pairs.
    order = np.lexsort((overlaps.reference, -overlaps.shared, overlaps.prediction))
    _, first = np.unique(overlaps.prediction[order], return_index=True)
    pairs = np.sort(order[first])
    shared, united = _sum_pairs(overlaps, pairs)
    enough = shared / united >= threshold
    return np.asarray(pairs[enough[overlaps.reference[pairs]]])


def _sum_pairs(
    overlaps: ObjectOverlaps, pairs: NDArray[np.intp]
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Sum intersections and unions over the pairs of each reference object."""
    shared = np.zeros_like(overlaps.reference_sizes)
    # `shared[index] += …` would count an index that occurs twice once.
    np.add.at(shared, overlaps.reference[pairs], overlaps.shared[pairs])
    united = overlaps.reference_sizes - shared
    np.add.at(united, overlaps.reference[pairs], overlaps.prediction_sizes[overlaps.prediction[pairs]])
    return shared, united
