"""Post-processing: which parts of a predicted mask belong to a label, and what they enclose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.components import fill_holes, keep_largest_component, remove_small_components


def apply_postprocess(
    mask: UInt8[np.ndarray, "m d h w"], geometry: Geometry, labels: LabelMap, cleaning: Mapping[str, PostProcessing]
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
    mask: UInt8[np.ndarray, "m d h w"], index: int, geometry: Geometry, labels: LabelMap, cleaning: PostProcessing
) -> None:
    before = labels.plane(mask, index)
    after = _clean_plane(before, geometry, cleaning)
    plane = mask[index] if labels.overlapping else mask[0]
    plane[before & ~after] = 0
    plane[after & (plane == 0)] = 1 if labels.overlapping else index + 1


def _clean_plane(
    plane: Bool[np.ndarray, "d h w"], geometry: Geometry, cleaning: PostProcessing
) -> Bool[np.ndarray, "d h w"]:
    if cleaning.fill_holes:
        plane = fill_holes(plane)
    if cleaning.minimum_size:
        plane = remove_small_components(plane, cleaning.minimum_size / voxel_size_in_unit(geometry))
    return keep_largest_component(plane) if cleaning.largest_only else plane


def voxel_size_in_unit(geometry: Geometry) -> float:
    """What a voxel counts in `minimum_size`: its area in a case of one slice, else its volume; 1 without a spacing."""
    z, y, x = geometry.spacing_in_unit
    return y * x if geometry.shape[0] == 1 else z * y * x
