"""Slices in, whole cases out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from medseg_pl.core.errors import DataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction, EvaluationBatch, SliceReference
from medseg_pl.functional.fit import Fit


@dataclass
class _Unfinished:
    """A case of which some slices have come."""

    prediction: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None
    seen: set[int] = field(default_factory=set)


class CaseAssembler:
    """Undoes the fit, decides, and collects slices until their case is complete.

    Args:
        labels: Decide what the probabilities mean.
        fit: How slices were brought to the network.
    """

    def __init__(self, labels: LabelMap, fit: Fit) -> None:
        self.labels = labels
        self.fit = fit
        self._unfinished: dict[str, _Unfinished] = {}

    def add(self, probabilities: Float[Tensor, "b k h w"], batch: EvaluationBatch) -> list[CasePrediction]:
        """Take the probabilities of a batch on the fitted grid, and give the cases that it completes.

        Raises:
            DataError: A slice came twice.
        """
        finished = []
        for i, slice_ in enumerate(batch.slices):
            height, width = slice_.geometry.shape[1:]
            native = self.fit.undo(probabilities[i : i + 1], (height, width))
            mask = self.labels.decide(native)[0].cpu().numpy()
            finished += self._place(slice_, mask, batch.masks[i] if batch.masks else None)
        return finished

    def incomplete(self) -> list[str]:
        """The cases of which slices are missing."""
        return sorted(self._unfinished)

    def reset(self) -> None:
        """Forget what is unfinished."""
        self._unfinished.clear()

    def _place(
        self, slice_: SliceReference, mask: UInt8[np.ndarray, "m h w"], reference: UInt8[np.ndarray, "m h w"] | None
    ) -> list[CasePrediction]:
        case = self._unfinished.get(slice_.case_id)
        if case is None:
            shape = (len(mask), *slice_.geometry.shape)
            case = _Unfinished(np.empty(shape, np.uint8), None if reference is None else np.empty(shape, np.uint8))
            self._unfinished[slice_.case_id] = case
        if slice_.index in case.seen:
            raise DataError(f"Slice {slice_.index} of case {slice_.case_id} came twice. Case ids must be unique.")
        case.seen.add(slice_.index)
        case.prediction[:, slice_.index] = mask
        if case.reference is not None and reference is not None:
            case.reference[:, slice_.index] = reference
        if len(case.seen) < slice_.geometry.shape[0]:
            return []
        del self._unfinished[slice_.case_id]
        return [CasePrediction(slice_.case_id, slice_.group, slice_.geometry, case.prediction, case.reference)]
