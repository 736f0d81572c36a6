"""Sizes of the labeled objects in pixels and relative to their image, and whether images have an up and a down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from medseg_pl.core.image_facts import spread_indices
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.cache.index import CacheIndex

_MOST_CASES = 200
_SLICES_PER_CASE = 3
_BANDS = 16
"""Horizontal bands of an image whose brightness is compared with that of its mirror image."""


@dataclass(frozen=True)
class ObjectSize:
    """How large the objects of a label are on a slice.

    Numbers are medians over the slices that hold it.

    Args:
        thickness_pixels: How thick it is at a typical place: four times the mean distance to its border, which is the
            width of a tube.
        reach_share: Diameter of the largest circle inside it, as a share of the image's shorter side.
        count: Connected objects on a slice.
    """

    thickness_pixels: float
    reach_share: float
    count: int

    def describe_thickness(self, name: str) -> str:
        """Describe how thick the objects are.

        Args:
            name: That of their label.

        >>> ObjectSize(2.54, 0.1, 1).describe_thickness("hilus"), ObjectSize(90.4, 0.3, 1).describe_thickness("liver")
        ('hilus is typically 2.5 pixels thick', 'liver is typically 90 pixels thick')
        """
        decimals = 1 if self.thickness_pixels < 10 else 0
        return f"{name} is typically {self.thickness_pixels:.{decimals}f} pixels thick"


def measure_objects(index: CacheIndex, labels: LabelMap) -> dict[str, ObjectSize]:
    """Measure the objects of each label that is in any mask.

    Args:
        index: Cases with references, of which up to 200 are examined, on three slices each.
        labels: The labels of the masks.
    """
    sizes: dict[str, list[tuple[float, float, int]]] = {name: [] for name in labels.names}
    for number in spread_indices(len(index), _MOST_CASES):
        for plane in _iterate_planes(index[number], labels):
            for name, label in zip(labels.names, plane, strict=True):
                if label.any():
                    sizes[name].append(_measure_plane(label))
    return {name: _take_medians(rows) for name, rows in sizes.items() if rows}


def measure_vertical_order(index: CacheIndex) -> float:
    """Measure how much all images share an order from top to bottom.

    Brightness is averaged in horizontal bands of each case's middle slice. The part that changes sign when an image is
    turned upside down is compared with its variation between cases: 0 where cases point anywhere, as cells do; near 1
    where all have the same side up, as an ultrasound's transducer does.

    Returns:
        From 0 to 1; 0 for fewer than four cases, which cannot tell.
    """
    profiles = [_compute_profile(index[number]) for number in spread_indices(len(index), _MOST_CASES)]
    if len(profiles) < 4:
        return 0.0
    odd = np.array([(profile - profile[::-1]) / 2 for profile in profiles])
    shared = float((odd.mean(axis=0) ** 2).mean())
    varying = float(odd.var(axis=0).mean())
    # The mean of n random profiles is not zero either, but about their variance over n.
    shared = max(0.0, shared - varying / len(odd))
    return shared / (shared + varying) if shared else 0.0


def find_thickest(objects: Mapping[str, ObjectSize]) -> tuple[str, ObjectSize]:
    """Find the label whose objects reach farthest relative to the image."""
    return max(objects.items(), key=lambda pair: pair[1].reach_share)


def find_thinnest(objects: Mapping[str, ObjectSize]) -> tuple[str, ObjectSize]:
    """Find the label whose objects are thinnest in pixels."""
    return min(objects.items(), key=lambda pair: pair[1].thickness_pixels)


def _iterate_planes(case: CachedCase, labels: LabelMap) -> Iterator[Bool[np.ndarray, "n h w"]]:
    """Yield labels of the slices in which the case's sampled voxels lie."""
    if case.mask is None:
        return
    slices = sorted({int(d) for voxels in case.foreground for d in np.asarray(voxels)[:, 0]})
    for position in spread_indices(len(slices), _SLICES_PER_CASE):
        yield labels.planes(np.asarray(case.mask[:, slices[position]]))


def _measure_plane(label: Bool[np.ndarray, "h w"]) -> tuple[float, float, int]:
    # A border of background: the distance transform knows none outside the image.
    framed = np.pad(label, 1).astype(np.uint8)
    count, _ = cv2.connectedComponents(framed, connectivity=8)
    distances = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[framed > 0]
    # A distance runs from a pixel's center to that of the first one outside.
    reach = 2 * float(distances.max()) - 1
    return 4 * float((distances - 0.5).mean()), reach / min(label.shape), count - 1


def _take_medians(rows: list[tuple[float, float, int]]) -> ObjectSize:
    thickness, reach, count = np.median(np.array(rows), axis=0).tolist()
    return ObjectSize(thickness, reach, round(count))


def _compute_profile(case: CachedCase) -> Float64[np.ndarray, " n"]:
    """Compute the standardized mean brightness of horizontal bands."""
    image: NDArray[np.float64] = np.asarray(case.image[:, case.image.shape[1] // 2], np.float64)
    rows = np.where(np.isfinite(image), image, 0.0).mean(axis=(0, 2))
    bands = np.interp((np.arange(_BANDS) + 0.5) / _BANDS * len(rows) - 0.5, np.arange(len(rows)), rows)
    return np.asarray((bands - bands.mean()) / max(float(bands.std()), 1e-9))
