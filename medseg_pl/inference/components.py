"""Connected components and holes of `(D, H, W)` masks.

An exported model ships this file: it imports NumPy and SciPy alone.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

_TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels of a component touch at a face, an edge or a corner."""


def keep_largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the component with most voxels, the first of equals.

    >>> keep_largest_component(np.array([[[1, 0, 1, 1, 0, 1]]], bool)).astype(int)
    array([[[0, 0, 1, 1, 0, 0]]])
    """
    components, number = scipy.ndimage.label(mask, _TOUCHING)
    if number < 2:
        return mask
    largest: NDArray[np.bool_] = components == 1 + np.bincount(components.ravel())[1:].argmax()
    return largest


def measure_components(mask: NDArray[np.bool_]) -> list[int]:
    """Count the voxels of each component, in the order of the array.

    >>> measure_components(np.array([[[1, 0, 1, 1, 0, 1]]], bool))
    [1, 2, 1]
    """
    components, _ = scipy.ndimage.label(mask, _TOUCHING)
    return [int(size) for size in np.bincount(components.ravel())[1:]]


def remove_small_components(mask: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    """Remove components of fewer voxels.

    Args:
        mask: `(D, H, W)`.
        least: The smallest number of voxels to keep.

    >>> remove_small_components(np.array([[[1, 0, 1, 1, 0, 1]]], bool), least=2).astype(int)
    array([[[0, 0, 1, 1, 0, 0]]])
    """
    components, _ = scipy.ndimage.label(mask, _TOUCHING)
    is_large = np.bincount(components.ravel()) >= least
    is_large[0] = False  # the background
    large: NDArray[np.bool_] = is_large[components]
    return large


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes: in space, or in the plane of a single slice.

    >>> fill_holes(np.array([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]], bool)).astype(int)
    array([[[1, 1, 1],
            [1, 1, 1],
            [1, 1, 1]]])
    """
    # A single slice is open on both sides in space, and would have no holes.
    filled = scipy.ndimage.binary_fill_holes(mask[0])[None] if len(mask) == 1 else scipy.ndimage.binary_fill_holes(mask)
    return np.asarray(filled)
