"""Statistics of values, worked out on paper, and what stands in for values that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.core.intensity import HIGH, LOW, MEAN, STD, compute_channel_statistics, replace_not_finite


def test_the_columns_of_a_thousand_and_one_values() -> None:
    (statistics,) = compute_channel_statistics(np.arange(1001)[None])
    assert statistics.dtype == np.float32
    assert statistics[MEAN] == 500
    assert (statistics[LOW], statistics[HIGH]) == (5, 995)
    # Of 5 to 995, each once, and five more of either end; about the mean of 500.
    assert statistics[STD] == pytest.approx(np.sqrt((2 * np.sum(np.arange(496) ** 2) + 10 * 495**2) / 1001))


def test_one_hot_pixel_in_ten_thousand_decides_on_nothing() -> None:
    values = np.random.default_rng(0).normal(100, 20, (1, 80_000)).astype(np.float32)
    (clean,) = compute_channel_statistics(values)
    values[0, ::10_000] = 30_000.0
    (hot,) = compute_channel_statistics(values)
    np.testing.assert_allclose(hot, clean, rtol=2e-3)


def test_each_channel_has_its_own_row_whatever_its_shape() -> None:
    volume = np.stack([np.full((2, 3, 4), 7), np.arange(24).reshape(2, 3, 4)])
    statistics = compute_channel_statistics(volume)
    assert statistics.shape == (2, 4)
    assert statistics[:, MEAN].tolist() == [7, 11.5]


@pytest.mark.parametrize("value", [0, 7, 0.1, 1e-20, -1234.56])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_equal_values_have_a_deviation_of_one(value: float, size: int) -> None:
    (statistics,) = compute_channel_statistics(np.full((1, size), value))
    assert statistics[STD] == 1
    assert statistics[MEAN] == np.float32(value)


def test_where_hardly_anything_is_not_ground_the_range_is_that_of_all_values() -> None:
    values = np.zeros((1, 1000))
    values[0, :4], values[0, 4] = (-3, 10, 20, 40), np.nan  # less than half a percent on either side
    (statistics,) = compute_channel_statistics(values)
    assert (statistics[LOW], statistics[HIGH]) == (-3, 40)


def test_half_a_percent_on_one_side_is_enough_for_percentiles() -> None:
    values = np.zeros((1, 1001))
    values[0, :7] = np.arange(1, 8)
    # Sorted, the place of the 99.5th percentile is 995: the second of the seven values at 994 to 1000.
    (statistics,) = compute_channel_statistics(values)
    assert (statistics[LOW], statistics[HIGH]) == (0, 2)


@pytest.mark.parametrize("value", [0, -7.5])
def test_a_channel_of_one_value_has_no_range(value: float) -> None:
    (statistics,) = compute_channel_statistics(np.full((1, 50), value))
    assert (statistics[LOW], statistics[HIGH]) == (value, value)


def test_values_that_are_no_numbers_do_not_count() -> None:
    holes = np.array([[1.0, np.nan, 3.0, -np.inf, np.inf]], np.float32)
    np.testing.assert_array_equal(
        compute_channel_statistics(holes), compute_channel_statistics(np.array([[1.0, 3.0]], np.float32))
    )


def test_a_channel_without_numbers_is_left_as_it_is_by_normalization() -> None:
    assert compute_channel_statistics(np.full((1, 4), np.nan, np.float32)).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32])
def test_sums_do_not_overflow_the_type_of_the_file(dtype: type) -> None:
    highest = 65_000 if dtype == np.float16 else np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1e30
    values = np.full((1, 5000), highest, dtype)
    values[0, ::2] = 0
    (statistics,) = compute_channel_statistics(values)
    assert statistics[MEAN] == pytest.approx(float(values.max()) / 2)
    assert statistics[STD] == pytest.approx(float(values.max()) / 2)


def test_a_large_volume_is_described_by_a_sample() -> None:
    values = np.random.default_rng(0).normal(50, 10, (1, 200_000))
    exact = compute_channel_statistics(values)
    sampled = compute_channel_statistics(values, sample=20_000)
    assert (sampled != exact).any()
    np.testing.assert_allclose(sampled, exact, atol=1.5)
    np.testing.assert_array_equal(sampled, compute_channel_statistics(values[:, ::10]))


def test_holes_become_the_percentiles_of_their_channel() -> None:
    image = np.array([[[np.nan, np.inf, 1.0]], [[-np.inf, 2.0, np.inf]]], np.float32)
    statistics = np.array([[0, 1, -5, 5], [0, 1, -7, 7]], np.float32)
    assert replace_not_finite(image, statistics).tolist() == [[[-5, 5, 1]], [[-7, 2, 7]]]


def test_an_image_without_holes_is_not_copied() -> None:
    image = np.zeros((1, 2, 2), np.float32)
    assert replace_not_finite(image, compute_channel_statistics(image)) is image
