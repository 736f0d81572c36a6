"""Cases to look at: some that are always the same, and those that went worst."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch.distributed
from jaxtyping import Bool, UInt8

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseScore, OverlapMetric
from medseg_pl.metrics.case_metric import LabelPair


@dataclass(frozen=True)
class Picture:
    """A slice of a case with its masks, one for each label.

    Args:
        case_id: The case; not for showing.
        rgb: The image.
        reference: What was annotated.
        prediction: What was predicted.
    """

    case_id: str
    rgb: UInt8[np.ndarray, "h w 3"]
    reference: Bool[np.ndarray, "n h w"]
    prediction: Bool[np.ndarray, "n h w"]


class ImageBuffer:
    """Keeps the pictures that may be shown at the end of an evaluation, and no more, while its cases come.

    Args:
        labels: What is drawn and scored.
        size: How many of the worst cases are kept, on each process.
        fixed: The cases that are kept whatever their score.
    """

    def __init__(self, labels: LabelMap, size: int, fixed: Collection[str]) -> None:
        self.labels = labels
        self.size = size
        self.fixed = set(fixed)
        self.pictures: dict[str, Picture] = {}
        self._overlap = OverlapMetric(labels)
        self._scores: dict[str, float] = {}

    def wants(self, case: Prediction) -> bool:
        """Whether to draw this case, which is then no longer the score of another."""
        pairs = [LabelPair(case, self.labels, index) for index in range(len(self.labels.names))]
        score = _mean([float(self._overlap.score(pair)["dice"]) for pair in pairs])
        self._scores[case.case_id] = score
        worst = sorted((score, name) for name, score in self._scores.items())[: self.size]
        kept = {*self.fixed, *(name for _, name in worst)}
        self.pictures = {name: picture for name, picture in self.pictures.items() if name in kept}
        return case.case_id in kept

    def add(self, picture: Picture) -> None:
        """Keep a picture."""
        self.pictures[picture.case_id] = picture

    def gathered(self, wanted: Sequence[str]) -> dict[str, Picture]:
        """The pictures of these cases from all processes, in the given order; every process takes part."""
        own = [self.pictures[name] for name in wanted if name in self.pictures]
        everyones = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyones = [[] for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(everyones, own)
        found = {picture.case_id: picture for pictures in everyones for picture in pictures}
        return {name: found[name] for name in wanted if name in found}


def case_means(table: Sequence[CaseScore]) -> dict[str, float]:
    """The mean Dice over labels of each case; infinite where no label is defined, which is nobody's fault."""
    values: dict[str, list[float]] = {}
    for score in table:
        values.setdefault(score.case_id, []).append(float(score.values["dice"]))
    return {name: _mean(dice) for name, dice in values.items()}


def worst_cases(table: Sequence[CaseScore], size: int) -> list[str]:
    """The cases with the lowest mean Dice, the worst first.

    >>> rows = [CaseScore(name, "p", "a", {"dice": dice}, "ok", "px") for name, dice in {"x": 0.9, "y": 0.1}.items()]
    >>> worst_cases(rows, 1)
    ['y']
    """
    return [name for _, name in sorted((mean, name) for name, mean in case_means(table).items())[:size]]


def picture_of(case: Prediction, rgb: UInt8[np.ndarray, "h w 3"], labels: LabelMap, depth: int) -> Picture:
    """One slice of a case beside its image."""
    assert case.reference is not None, "only what has a reference is shown"
    reference, prediction = (labels.planes(mask)[:, depth] for mask in (case.reference, case.mask))
    return Picture(case.case_id, rgb, reference, prediction)


def telling_slice(case: Prediction, labels: LabelMap) -> int:
    """The slice with most of the reference, or of the prediction where the reference is empty."""
    assert case.reference is not None, "only what has a reference is shown"
    for mask in (case.reference, case.mask):
        area = labels.planes(mask).sum(axis=(0, 2, 3))
        if area.any():
            return int(area.argmax())
    return int(case.reference.shape[1]) // 2


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.inf
