"""Even slices for uneven ones, on paper."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.io.dicom.series import plan_resampling

HEAD = np.array([0, 2.5, 5, 7.5, 10, 15, 20, 25, 30, 35, 40])
"""4 distances of 2.5 mm, 6 of 5 mm."""

# Quarters of a millimeter, so that heights and their middles are exact.
STEPS = st.lists(st.integers(2, 16), min_size=2, max_size=40).map(lambda steps: np.cumsum([0, *steps]) / 4)


def test_the_smallest_distance_is_that_of_the_even_slices() -> None:
    resampling = plan_resampling(HEAD)
    np.testing.assert_allclose(resampling.even_mm, np.arange(17) * 2.5)
    assert resampling.distance_mm == pytest.approx(2.5)


def test_distances_rounded_to_a_tenth_of_a_millimeter_are_averaged() -> None:
    fine = np.round(np.arange(21) * 1.25 + 1e-9, 1)
    resampling = plan_resampling([*fine, 30, 35, 40])
    assert len(resampling.even_mm) == 33
    assert resampling.distance_mm == pytest.approx(1.25)


def test_first_and_last_slice_stay_where_they_are() -> None:
    resampling = plan_resampling([-7, -6, -4.4, -3.7])
    assert resampling.even_mm[[0, -1]].tolist() == [-7, -3.7]
    assert resampling.distance_mm <= 0.7 + 1e-9


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_ramp_stays_a_ramp(dtype: type) -> None:
    ramp = np.broadcast_to((HEAD * 4 - 100)[:, None, None], (11, 2, 3)).astype(dtype)
    even = plan_resampling(HEAD).interpolate(ramp)
    assert even.dtype == dtype
    np.testing.assert_array_equal(even, np.broadcast_to(np.arange(-100, 61, 10)[:, None, None], (17, 2, 3)))


@given(heights_mm=STEPS)
def test_any_ramp_stays_a_ramp(heights_mm: np.ndarray) -> None:
    resampling = plan_resampling(heights_mm)
    even = resampling.interpolate((3 * heights_mm + 1).reshape(-1, 1, 1)).ravel()
    np.testing.assert_allclose(even, 3 * resampling.even_mm + 1, atol=1e-9)


def test_whole_numbers_are_rounded() -> None:
    values = np.array([0, 0, 3], dtype=np.uint16).reshape(3, 1, 1)
    even = plan_resampling([0, 1, 4]).interpolate(values)
    assert even.ravel().tolist() == [0, 0, 1, 2, 3]
    assert (plan_resampling([0, 1, 3]).interpolate(values)).ravel().tolist() == [0, 0, 2, 3]  # 1.5


def test_the_largest_numbers_do_not_overflow() -> None:
    values = np.array([65535, 0, 65535], dtype=np.uint16).reshape(3, 1, 1)
    assert plan_resampling([0, 1, 3]).interpolate(values).ravel().tolist() == [65535, 0, 32768, 65535]


@pytest.mark.parametrize(("first", "last"), [(1, 3), (5, 8), (2, 7), (0, 10)])
def test_the_volume_of_a_box_is_right_within_half_a_slice(first: int, last: int) -> None:
    """A slice stands for what is nearest to it: the box reaches half way to the slices beside it."""
    mask = np.zeros((1, 11, 1, 1), np.uint8)
    mask[:, first : last + 1] = 1
    borders = np.concatenate([[-1.25], (HEAD[1:] + HEAD[:-1]) / 2, [41.25]])
    length_mm = borders[last + 1] - borders[first]
    assert plan_resampling(HEAD).spread_mask(mask).sum() * 2.5 == pytest.approx(length_mm, abs=1.25)


def test_labels_of_the_nearest_slice_on_paper() -> None:
    mask = np.arange(11, dtype=np.uint8).reshape(1, 11, 1, 1)
    even = plan_resampling(HEAD).spread_mask(mask)
    assert even.ravel().tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10]


@given(heights_mm=STEPS, offset_mm=st.sampled_from([0.0, -312.7, 99.3]))
def test_every_mask_comes_back_to_its_slices(heights_mm: np.ndarray, offset_mm: float) -> None:
    resampling = plan_resampling(heights_mm + offset_mm)
    mask = np.arange(len(heights_mm), dtype=np.uint8).reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(resampling.restore_mask(resampling.spread_mask(mask)), mask)


@given(heights_mm=STEPS)
def test_even_slices_are_even_and_not_coarser_than_the_closest(heights_mm: np.ndarray) -> None:
    even_mm = plan_resampling(heights_mm).even_mm
    assert np.ptp([after - before for before, after in pairwise(even_mm)]) < 1e-9
    assert len(even_mm) >= len(heights_mm)
    assert even_mm[1] - even_mm[0] <= 1.2 * 1.2 * np.diff(heights_mm).min()


def test_a_prediction_returns_where_it_lies() -> None:
    """An object from 12 to 33 mm on the even slices is on the slices of the series from 15 to 30 mm."""
    resampling = plan_resampling(HEAD)
    mask = ((resampling.even_mm > 12) & (resampling.even_mm < 33)).astype(np.uint8).reshape(1, -1, 1, 1)
    restored = resampling.restore_mask(mask).ravel()
    assert HEAD[restored == 1].tolist() == [15, 20, 25, 30]
