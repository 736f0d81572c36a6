"""Even slices in place of unevenly spaced ones: positions, interpolation of images, and masks there and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8

SAME_DISTANCE = 0.2
"""Distances up to this share above the smallest one count as the same: scanners round positions to 0.1 mm."""

_TIE = 1e-3
"""Places this close to the middle between two slices, in distances of even slices, are in the middle."""


@dataclass(frozen=True, eq=False)
class SliceResampling:
    """Places of the slices of a series and of the even slices that replace them.

    Args:
        stored_mm: Heights of the slices of the series along their normal, ascending.
        even_mm: Heights of the even slices; the first and the last are those of the series.
    """

    stored_mm: Float64[np.ndarray, "d"]
    even_mm: Float64[np.ndarray, "e"]

    @property
    def distance_mm(self) -> float:
        """Distance between two even slices."""
        return float(self.even_mm[1] - self.even_mm[0])

    def interpolate(self, values: Shaped[np.ndarray, "d h w"]) -> Shaped[np.ndarray, "e h w"]:
        """Interpolate an image linearly between slices; whole numbers are rounded and keep their type.

        >>> resampling = SliceResampling(np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0]))
        >>> resampling.interpolate(np.array([0, 10, 30], dtype=np.int16).reshape(3, 1, 1)).ravel().tolist()
        [0, 10, 20, 30]
        """
        before = np.clip(np.searchsorted(self.stored_mm, self.even_mm, side="right") - 1, 0, len(self.stored_mm) - 2)
        steps_mm = np.diff(self.stored_mm)
        shares = np.clip((self.even_mm - self.stored_mm[before]) / steps_mm[before], 0.0, 1.0)
        even = np.empty((len(self.even_mm), *values.shape[1:]), dtype=values.dtype)
        for place, (index, share) in enumerate(zip(before, shares, strict=True)):
            mixed = values[index] * (1 - share) + values[index + 1] * share
            even[place] = np.rint(mixed) if values.dtype.kind in "iu" else mixed
        return even

    def spread_mask(self, mask: UInt8[np.ndarray, "m d h w"]) -> UInt8[np.ndarray, "m e h w"]:
        """Give each even slice the mask of the nearest slice of the series."""
        return mask[:, self._nearest_stored]

    def restore_mask(self, mask: UInt8[np.ndarray, "m e h w"]) -> UInt8[np.ndarray, "m d h w"]:
        """Give each slice of the series the mask of the nearest even slice; undoes `spread_mask` exactly."""
        return mask[:, self._nearest_even]

    @property
    def is_reversible(self) -> bool:
        """Whether each slice of the series gives its mask to an even slice that gives it back."""
        return bool(np.array_equal(self._nearest_stored[self._nearest_even], np.arange(len(self.stored_mm))))

    @cached_property
    def _nearest_stored(self) -> Int64[np.ndarray, "e"]:
        return _find_nearest(self.stored_mm, self.even_mm, _TIE * self.distance_mm)

    @cached_property
    def _nearest_even(self) -> Int64[np.ndarray, "d"]:
        # Ties go the other way than above, so that a slice finds the even slice that took its mask.
        return _find_nearest(self.even_mm, self.stored_mm, -_TIE * self.distance_mm)


def plan_resampling(stored_mm: Sequence[float] | Float64[np.ndarray, "d"]) -> SliceResampling:
    """Find the even slices for unevenly spaced ones.

    They reach from the first slice to the last, as far apart as the closest slices of the series are on average; a
    little closer where a slice of the series would otherwise have no even slice of its own.

    Args:
        stored_mm: Heights of at least two slices along their normal, ascending, no two the same.

    >>> plan_resampling([0, 2.5, 5, 10, 15]).even_mm.tolist()
    [0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0]
    """
    heights_mm = np.asarray(stored_mm, dtype=np.float64)
    steps_mm = np.diff(heights_mm)
    smallest_mm, length_mm = float(steps_mm.min()), float(heights_mm[-1] - heights_mm[0])
    distance_mm = float(steps_mm[steps_mm <= (1 + SAME_DISTANCE) * smallest_mm].mean())
    fewest = math.ceil(length_mm / distance_mm - SAME_DISTANCE) + 1
    most = math.ceil(length_mm / smallest_mm) + 1
    candidates = (
        SliceResampling(heights_mm, np.linspace(heights_mm[0], heights_mm[-1], count))
        for count in range(fewest, most + 1)
    )
    return next(candidate for candidate in candidates if candidate.is_reversible or len(candidate.even_mm) == most)


def _find_nearest(
    places_mm: Float64[np.ndarray, "p"], wanted_mm: Float64[np.ndarray, "w"], favor_mm: float
) -> Int64[np.ndarray, "w"]:
    """Find the number of the nearest place for each height; `favor_mm` is added to the way to the upper one."""
    above = np.clip(np.searchsorted(places_mm, wanted_mm), 1, len(places_mm) - 1)
    below = above - 1
    lower = wanted_mm - places_mm[below] <= places_mm[above] - wanted_mm + favor_mm
    nearest: Int64[np.ndarray, "w"] = np.where(lower, below, above)
    return nearest
