"""Agreement of centerlines, for tubes such as vessels, and of contours, for large objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # its parts load at their first use
import skimage
from jaxtyping import Bool
from numpy.typing import NDArray

from medseg_pl.metrics.functional.overlap import count, iou, ratio
from medseg_pl.metrics.functional.surface import Spacing, find_bounding_box

# Its parts load at their first use, and of two threads the second would get one that is half loaded.
_LOADING = threading.Lock()


class CenterlineCounts(NamedTuple):
    """Voxels of both centerlines, and those that the other mask covers.

    Args:
        prediction: Voxels of the prediction's centerline.
        prediction_covered: Those in the reference's mask.
        reference: Voxels of the reference's centerline.
        reference_covered: Those in the prediction's mask.
    """

    prediction: int
    prediction_covered: int
    reference: int
    reference_covered: int


def count_centerlines(prediction: Bool[np.ndarray, "d h w"], reference: Bool[np.ndarray, "d h w"]) -> CenterlineCounts:
    """Count centerline voxels of both masks, and what the other covers.

    A single slice is thinned as by Zhang and Suen, a volume as by Lee, Kashyap and Chu.

    Args:
        prediction: One label of a volume; `D = 1` is a 2D image.
        reference: The same label, annotated.

    References:
        Zhang and Suen, "A fast parallel algorithm for thinning digital patterns", Communications of the ACM 27:236,
        1984.
        Lee, Kashyap and Chu, "Building skeleton models via 3-D medial surface/axis thinning algorithms", CVGIP 56:462,
        1994.

    >>> bar = np.array([[[0] * 9, *[[0] + [1] * 7 + [0]] * 3, [0] * 9]], bool)
    >>> count_centerlines(bar & (np.arange(9) < 5), bar)
    CenterlineCounts(prediction=3, prediction_covered=3, reference=6, reference_covered=4)
    """
    ours, theirs = _thin(prediction), _thin(reference)
    return CenterlineCounts(
        prediction=int(np.count_nonzero(ours)),
        prediction_covered=int(np.count_nonzero(ours & reference)),
        reference=int(np.count_nonzero(theirs)),
        reference_covered=int(np.count_nonzero(theirs & prediction)),
    )


def topology_precision(counts: CenterlineCounts) -> float:
    """Compute the share of the prediction's centerline that lies in the reference.

    >>> topology_precision(CenterlineCounts(4, 3, 10, 5))
    0.75
    """
    return ratio(counts.prediction_covered, counts.prediction)


def topology_sensitivity(counts: CenterlineCounts) -> float:
    """Compute the share of the reference's centerline that lies in the prediction.

    >>> topology_sensitivity(CenterlineCounts(4, 3, 10, 5))
    0.5
    """
    return ratio(counts.reference_covered, counts.reference)


def cl_dice(counts: CenterlineCounts) -> float:
    """Compute clDice, the harmonic mean of both shares.

    It is 0 where both are 0.

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure segmentation", CVPR 2021.

    >>> cl_dice(CenterlineCounts(4, 3, 10, 5))
    0.6
    """
    precision, sensitivity = topology_precision(counts), topology_sensitivity(counts)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def boundary_iou(
    prediction: Bool[np.ndarray, "d h w"], reference: Bool[np.ndarray, "d h w"], width: float, spacing: Spacing
) -> float:
    """Compute the IoU of both masks' voxels near their own border.

    Near are the voxels that an erosion removes, by a box that reaches the width in each direction and at least one
    voxel; outside the image is outside the mask. NaN where both masks are empty.

    Args:
        prediction: One label of a volume; `D = 1` is a 2D image.
        reference: The same label, annotated.
        width: How far from the border, in the unit of the spacing.
        spacing: Distance between voxel centers along `(z, y, x)`.

    References:
        Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: improving object-centric image segmentation
        evaluation", CVPR 2021; the box is that of the published code.

    >>> square = np.ones((1, 5, 5), bool)
    >>> boundary_iou(square, square & (np.arange(5) < 4), width=1.0, spacing=(1.0, 1.0, 1.0))  # 11 of 19 pixels
    0.5789473684210527
    """
    box = find_bounding_box(prediction | reference)
    reach = [max(1, int(np.floor(width / step + 0.5))) for step in spacing]
    if len(prediction) == 1:
        reach[0] = 0
    ours, theirs = (mask[box] & ~_erode(mask[box], reach) for mask in (prediction, reference))
    return iou(count(ours, theirs))


def _thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask to its centerline.

    A few pixels would vanish, and stay as they are.
    """
    box = find_bounding_box(mask)
    part = mask[box]
    thin = np.zeros_like(mask)
    if part.size:
        with _LOADING:
            skeletonize: Callable[[NDArray[np.bool_]], NDArray[np.bool_]] = skimage.morphology.skeletonize
        line = skeletonize(part[0])[None] if len(mask) == 1 else skeletonize(part)
        thin[box] = line if line.any() else part
    return thin


def _erode(mask: NDArray[np.bool_], reach: list[int]) -> NDArray[np.bool_]:
    """Keep the voxels whose box of neighbors lies in the mask."""
    values = mask.astype(np.uint8)
    for axis, steps in enumerate(reach):
        if steps and values.size:
            values = scipy.ndimage.minimum_filter1d(values, 2 * steps + 1, axis=axis, mode="constant", cval=0)
    return values > 0
