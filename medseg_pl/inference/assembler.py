"""Slices in, whole cases out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from medseg_pl.core.errors import DataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction, EvaluationBatch, PostProcessing, SliceReference
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.inference.postprocess import apply_postprocess


@dataclass
class _Unfinished:
    """A case of which some slices have come."""

    prediction: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None
    probabilities: NDArray[np.float32] | None
    seen: set[int] = field(default_factory=set)


class CaseAssembler:
    """Undo the resizing, decides, collects slices until their case is complete, and cleans it.

    Args:
        labels: Decide what the probabilities mean.
        resize: How slices were brought to the network.
        keep_probabilities: Whether cases carry their probabilities, which take `4 K` bytes for each voxel.
        cleaning: What is done to each label of a whole case; the probabilities stay as they are.
    """

    def __init__(
        self,
        labels: LabelMap,
        resize: Resize,
        keep_probabilities: bool = False,
        cleaning: Mapping[str, PostProcessing] | None = None,
    ) -> None:
        self.labels = labels
        self.resize = resize
        self.cleaning = cleaning or {}
        self.keep_probabilities = keep_probabilities
        self._unfinished: dict[str, _Unfinished] = {}

    def add(self, probabilities: Float[Tensor, "b k h w"], batch: EvaluationBatch) -> list[CasePrediction]:
        """Take the probabilities of a batch on the fitted grid, and give the cases that it completes.

        Raises:
            DataError: A slice came twice.
        """
        finished = []
        for i, slice_ in enumerate(batch.slices):
            height, width = slice_.geometry.shape[1:]
            native = self.resize.on(slice_.geometry).undo(probabilities[i : i + 1], (height, width))
            mask = self.labels.decide(native)[0].cpu().numpy()
            kept = native[0].float().cpu().numpy() if self.keep_probabilities else None
            finished += self._place(slice_, mask, batch.masks[i] if batch.masks else None, kept)
        return finished

    def incomplete(self) -> list[str]:
        """The cases of which slices are missing."""
        return sorted(self._unfinished)

    def reset(self) -> None:
        """Forget what is unfinished."""
        self._unfinished.clear()

    def _place(
        self,
        slice_: SliceReference,
        mask: UInt8[np.ndarray, "m h w"],
        reference: UInt8[np.ndarray, "m h w"] | None,
        probabilities: Float32[np.ndarray, "k h w"] | None,
    ) -> list[CasePrediction]:
        case = self._unfinished.get(slice_.case_id)
        if case is None:
            case = _Unfinished(*(_stack_of(part, slice_) for part in (mask, reference, probabilities)))
            self._unfinished[slice_.case_id] = case
        if slice_.index in case.seen:
            raise DataError(f"Slice {slice_.index} of case {slice_.case_id} came twice. Case ids must be unique.")
        case.seen.add(slice_.index)
        case.prediction[:, slice_.index] = mask
        if case.reference is not None and reference is not None:
            case.reference[:, slice_.index] = reference
        if case.probabilities is not None and probabilities is not None:
            case.probabilities[:, slice_.index] = probabilities
        if len(case.seen) < slice_.geometry.shape[0]:
            return []
        del self._unfinished[slice_.case_id]
        prediction = case.prediction
        if self.cleaning:
            prediction = apply_postprocess(prediction, slice_.geometry, self.labels, self.cleaning)
        whole = (prediction, case.reference, case.probabilities)
        return [CasePrediction(slice_.case_id, slice_.group, slice_.geometry, *whole)]


def _stack_of(part: NDArray[Any] | None, slice_: SliceReference) -> Any:
    """Room for all slices of a case, given one of them."""
    return None if part is None else np.empty((len(part), *slice_.geometry.shape), part.dtype)
