"""Cleaning up a predicted case by what is known of its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.inference.components import filled, largest_component, without_small


@dataclass(frozen=True)
class Cleaning:
    """What is done to one label of a predicted case, in this order. Choose it on validation cases, never on test cases.

    Args:
        fill_holes: What the label encloses becomes part of it, as far as no other label is there.
        minimum_size: Smaller components go: in mm³, in mm² for an image of one slice, or in voxels where the spacing
            is unknown.
        largest_only: All components but the largest go.
    """

    fill_holes: bool = False
    minimum_size: float = 0.0
    largest_only: bool = False

    def __post_init__(self) -> None:
        """Reject sizes that mean nothing."""
        if not 0 <= self.minimum_size < math.inf:
            raise SettingError(f"postprocess: minimum_size must be at least 0; got {self.minimum_size}.")

    def __call__(self, plane: Bool[np.ndarray, "d h w"], geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        """The mask of one label, cleaned."""
        if self.fill_holes:
            plane = filled(plane)
        if self.minimum_size:
            plane = without_small(plane, self.minimum_size / voxel_size(geometry))
        return largest_component(plane) if self.largest_only else plane


def check_cleaning(cleaning: Mapping[str, Cleaning], labels: LabelMap) -> None:
    """Raise `SettingError` where a label is named that does not exist."""
    unknown = sorted(set(cleaning) - set(labels.names))
    if unknown:
        raise SettingError(
            f"model.postprocess names the label {unknown[0]!r}, which is none of {', '.join(labels.names)}. Correct it."
        )


def clean(
    mask: UInt8[np.ndarray, "m d h w"], geometry: Geometry, labels: LabelMap, cleaning: Mapping[str, Cleaning]
) -> UInt8[np.ndarray, "m d h w"]:
    """A predicted mask with each label cleaned, in the order of the labels; `mask` itself is left as it was.

    Where labels exclude each other, what a label loses becomes background, and it gains background alone.
    """
    cleaned = mask.copy()
    for index, name in enumerate(labels.names):
        if name in cleaning:
            _clean_label(cleaned, index, geometry, labels, cleaning[name])
    return cleaned


def _clean_label(
    mask: UInt8[np.ndarray, "m d h w"], index: int, geometry: Geometry, labels: LabelMap, cleaning: Cleaning
) -> None:
    before = labels.plane(mask, index)
    after = cleaning(before, geometry)
    plane = mask[index] if labels.overlapping else mask[0]
    plane[before & ~after] = 0
    plane[after & (plane == 0)] = 1 if labels.overlapping else index + 1


def voxel_size(geometry: Geometry) -> float:
    """What a voxel counts in `minimum_size`: its area in a case of one slice, else its volume; 1 without a spacing."""
    z, y, x = geometry.spacing_in_unit
    return y * x if geometry.shape[0] == 1 else z * y * x
