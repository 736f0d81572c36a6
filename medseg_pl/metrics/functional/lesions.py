"""Lesion-wise Dice and HD95, as the BraTS challenges have defined them since 2023.

References:
    Moawad et al., "The brain tumor segmentation (BraTS-METS) challenge 2023", arXiv:2306.00838, 2023; the rules are in
    the challenges' published scoring script, https://github.com/rachitsaluja/BraTS-2023-Metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy  # its parts load at their first use
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from medseg_pl.metrics.functional import objects
from medseg_pl.metrics.functional.objects import Objects, count_overlaps
from medseg_pl.metrics.functional.surface import Spacing, hd95, surface_distances

# Faces and edges, as in the challenges' script; in a slice this is corners, too.
_BALL = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0) <= 2


class Lesions(NamedTuple):
    """Measurements of each lesion against the predicted objects that touch it.

    Attributes:
        volumes: Of each lesion of the reference, in the cubed unit of the spacing.
        dice: Of each with the union of the predicted objects that touch it when it is dilated; 0 where none does.
        hd95: HD95 of the same, infinite where none does.
        invented: The number of predicted objects that touch none.
    """

    volumes: Float64[np.ndarray, "n"]
    dice: Float64[np.ndarray, "n"]
    hd95: Float64[np.ndarray, "n"]
    invented: int


def measure_lesions(
    prediction: Bool[np.ndarray, "d h w"],
    reference: Bool[np.ndarray, "d h w"],
    spacing: Spacing,
    dilation: int = 0,
) -> Lesions:
    """Measure each lesion against the predicted objects that touch it.

    Components of the reference are one lesion where they touch after dilation: the parts of one tumor may be apart by
    a few voxels. A predicted object that touches two lesions counts whole for both.

    Args:
        prediction: One label of a volume; `D = 1` is a 2D image.
        reference: The same label, annotated.
        spacing: Distance between voxel centers along `(z, y, x)`.
        dilation: By how many voxels lesions are dilated; BraTS 2023 has 3 for gliomas.

    >>> masks = [np.array([[[1, 1, 0, 0, 1]]], bool), np.array([[[1, 0, 0, 1, 0]]], bool)]
    >>> lesions = measure_lesions(*masks, spacing=(1.0, 1.0, 1.0))
    >>> lesions.dice.round(3), lesions.invented
    (array([0.667, 0.   ]), 1)
    """
    found = objects.find_objects(prediction)
    wide = objects.find_objects(_dilate(reference, dilation))
    lesions = wide.paint() * reference
    overlaps = count_overlaps(wide, found)
    touching = [overlaps.prediction[overlaps.reference == number] for number in range(wide.total)]
    scored = list(_score_lesions(lesions, found, touching, spacing))
    return Lesions(
        volumes=np.array([size for size, _, _ in scored]) * float(np.prod(spacing)),
        dice=np.array([dice for _, dice, _ in scored]),
        hd95=np.array([distance for _, _, distance in scored]),
        invented=found.total - len(np.unique(overlaps.prediction)),
    )


def average_lesions(lesions: Lesions, farthest: float, minimum_volume: float = 0.0) -> tuple[float, float]:
    r"""Average Dice and HD95 over lesions and invented objects.

    $$\frac{\sum_l \mathrm{Dice}_l}{n + \mathrm{FP}}, \qquad
      \frac{\sum_l \mathrm{HD95}_l + \mathrm{FP} \cdot \mathrm{farthest}}{n + \mathrm{FP}},$$

    over the $n$ lesions above the volume, a missed one having Dice 0 and the farthest distance.

    Args:
        lesions: What was measured.
        farthest: The distance of what was missed or invented: here the image's diagonal, in BraTS 374 mm.
        minimum_volume: Lesions of this volume or less do not count; BraTS 2023 has 50 mm³.

    Returns:
        Lesion-wise Dice and HD95, NaN where nothing counts.

    >>> average_lesions(Lesions(np.array([8.0, 1.0]), np.array([0.9, 0.0]), np.array([2.0, np.inf]), 1), farthest=10.0)
    (0.3, 7.333333333333333)
    """
    counted = lesions.volumes > minimum_volume
    total = int(counted.sum()) + lesions.invented
    if not total:
        return float("nan"), float("nan")
    distances = np.minimum(lesions.hd95[counted], farthest)
    return (
        float(lesions.dice[counted].sum()) / total,
        (float(distances.sum()) + lesions.invented * farthest) / total,
    )


def _dilate(mask: NDArray[np.bool_], dilation: int) -> NDArray[np.bool_]:
    # Zero iterations would dilate until nothing changes.
    return np.asarray(scipy.ndimage.binary_dilation(mask, _BALL, iterations=dilation)) if dilation else mask


def _score_lesions(
    lesions: Int64[np.ndarray, "d h w"], found: Objects, touching: list[NDArray[np.int64]], spacing: Spacing
) -> Iterator[tuple[int, float, float]]:
    """Yield size, Dice and HD95 of each lesion, measured in a box."""
    painted = found.paint()
    boxes = scipy.ndimage.find_objects(painted)
    for number, own_box in enumerate(scipy.ndimage.find_objects(lesions), start=1):
        numbers = touching[number - 1] + 1
        box = _unite_boxes([own_box, *(boxes[index - 1] for index in numbers)])
        lesion = lesions[box] == number
        if not len(numbers):
            yield int(lesion.sum()), 0.0, float("inf")
            continue
        predicted = np.isin(painted[box], numbers)
        shared, both = int((lesion & predicted).sum()), int(lesion.sum()) + int(predicted.sum())
        # A slice of a volume must not be taken for a 2D image, whose borders lie within the slice.
        outside = ((0, int(len(lesions) > 1)), (0, 0), (0, 0))
        distances = surface_distances(np.pad(predicted, outside), np.pad(lesion, outside), spacing)
        yield int(lesion.sum()), 2 * shared / both, hd95(distances)


def _unite_boxes(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3)
    )
