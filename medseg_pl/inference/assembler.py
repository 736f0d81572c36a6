"""CaseAssembler: the probabilities of slices become the mask of a whole case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing, Prediction, SliceReference
from medseg_pl.inference.postprocess import apply_postprocess
from medseg_pl.inference.sliding_window import RowBlock


@dataclass
class _PartialCase:
    """A case of which some slices are missing."""

    mask: UInt8[np.ndarray, "m d h w"]
    reference: UInt8[np.ndarray, "m d h w"] | None
    probabilities: Float32[np.ndarray, "k d h w"] | None
    added: set[int] = field(default_factory=set)


class CaseAssembler:
    """Decides between labels, collects slices and post-processes whole cases.

    Args:
        labels: Decide what the probabilities mean.
        postprocess: What is done to each label of a whole case; probabilities stay as they are.
        keep_probabilities: Whether predictions carry their probabilities, which take `4 K` bytes for each voxel.
    """

    def __init__(
        self,
        labels: LabelMap,
        postprocess: Mapping[str, PostProcessing] | None = None,
        keep_probabilities: bool = False,
    ) -> None:
        self.labels = labels
        self.postprocess = postprocess or {}
        self.keep_probabilities = keep_probabilities
        self._partial: dict[str, _PartialCase] = {}

    def add(
        self,
        probabilities: Sequence[Iterable[RowBlock]],
        slices: Sequence[SliceReference],
        references: Sequence[UInt8[np.ndarray, "m _ _"]] = (),
    ) -> list[Prediction]:
        """Take slices in any order, and return the cases that they complete.

        Args:
            probabilities: The rows of each slice on its native grid, `(1, K, rows, W)`.
            slices: The case and the index of each.
            references: The annotated mask of each, or none at all.

        Raises:
            DataError: A slice came twice.
        """
        predictions = []
        for index, (slice_, blocks) in enumerate(zip(slices, probabilities, strict=True)):
            reference = references[index] if references else None
            case = self._partial.get(slice_.case_id) or self._start_case(slice_, reference)
            # A slice that came twice would stand for one that never came.
            if slice_.index in case.added:
                raise DataError(f"Slice {slice_.index} of case {slice_.case_id} came twice. Case ids must be unique.")
            case.added.add(slice_.index)
            # Decided block by block: the probabilities of a huge image never exist as a whole.
            for block in blocks:
                case.mask[:, slice_.index, block.rows] = self.labels.decide(block.probabilities)[0].cpu().numpy()
                if case.probabilities is not None:
                    case.probabilities[:, slice_.index, block.rows] = block.probabilities[0].float().cpu().numpy()
            if case.reference is not None and reference is not None:
                case.reference[:, slice_.index] = reference
            if len(case.added) == slice_.geometry.shape[0]:
                predictions.append(self._finish_case(slice_))
        return predictions

    def assemble(self, probabilities: Float32[np.ndarray, "k d h w"], geometry: Geometry) -> Prediction:
        """Predict a whole case from its probabilities on the native grid.

        Args:
            probabilities: `(K, D, H, W)`.
            geometry: The native grid.
        """
        rows = slice(0, geometry.shape[1])
        slices = [SliceReference("", "", index, geometry) for index in range(geometry.shape[0])]
        blocks = [[RowBlock(rows, torch.from_numpy(probabilities[None, :, index]))] for index in range(len(slices))]
        (prediction,) = self.add(blocks, slices)
        return prediction

    def list_incomplete(self) -> list[str]:
        """List the cases of which slices are missing."""
        return sorted(self._partial)

    def reset(self) -> None:
        """Forget incomplete cases."""
        self._partial.clear()

    def _start_case(self, slice_: SliceReference, reference: UInt8[np.ndarray, "m _ _"] | None) -> _PartialCase:
        # Left uninitialized: a case is finished when each of its slices has been written.
        shape = slice_.geometry.shape
        case = _PartialCase(
            np.empty((self.labels.mask_channels, *shape), np.uint8),
            None if reference is None else np.empty((len(reference), *shape), reference.dtype),
            np.empty((self.labels.classes, *shape), np.float32) if self.keep_probabilities else None,
        )
        self._partial[slice_.case_id] = case
        return case

    def _finish_case(self, slice_: SliceReference) -> Prediction:
        case = self._partial.pop(slice_.case_id)
        mask = case.mask
        # Not earlier: components and holes reach across slices.
        if self.postprocess:
            mask = apply_postprocess(mask, slice_.geometry, self.labels, self.postprocess)
        return Prediction(
            slice_.case_id,
            slice_.group,
            slice_.geometry,
            mask,
            case.reference,
            case.probabilities,
            self.labels,
            slice_.annotated_labels,
        )
