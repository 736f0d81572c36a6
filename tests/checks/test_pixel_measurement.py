"""Measurements of pixels, on images and masks whose measures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from medseg_pl.checks.findings import Alignment, MaskFacts
from medseg_pl.checks.pixel_measurement import index_values, measure_alignment, measure_mask, sample_finite
from medseg_pl.core.geometry import Geometry
from medseg_pl.io.file_header import FileHeader
from tests.checks.samples import measure, textured
from tests.end_to_end.clean_sets import picture, scan


def test_ends_and_percentiles() -> None:
    image = measure(np.arange(101, dtype=np.int16).reshape(1, 1, 101))
    assert (image.lowest, image.highest, image.percentiles) == (0, 100, (1, 50, 99))
    assert (image.channels, image.dtype, image.finite, image.constant) == (1, "int16", 1, ())


def test_numbers_only() -> None:
    values = textured(0, (1, 20, 20)).astype(np.float32)
    values[0, 0, :10], values[0, 0, 10:] = np.nan, np.inf
    image = measure(values)
    assert image.finite == pytest.approx(0.95)
    assert image.highest == values[0, 1:].max()
    assert np.isfinite(image.percentiles).all()
    assert np.isfinite(image.contrast)


def test_nothing_but_nan() -> None:
    image = measure(np.full((1, 8, 8), np.nan, np.float32))
    assert (image.finite, image.lowest, image.highest, image.contrast, image.signature) == (0, 0, 0, 0, None)


def test_share_at_the_top() -> None:
    values = np.arange(1000, dtype=np.uint16).reshape(1, 10, 100)
    assert measure(values).at_top == 0.001
    cut = measure(values.clip(0, 899))
    assert cut.at_top == 0.101
    assert 0.015 < cut.below_top < 0.02


def test_channels_of_one_value() -> None:
    pixels = np.stack([textured(0), np.full((1, 32, 40), 7.0), textured(1)])
    assert measure(pixels).constant == (1,)


def test_contrast_has_a_sign() -> None:
    bright = np.zeros((3, 32, 32))
    bright[:, 8:24, 8:24] = 100
    assert measure(bright).contrast > 1
    assert measure(100 - bright).contrast == pytest.approx(-measure(bright).contrast)


def test_the_digest_knows_pixels_shape_and_type() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    same, other = measure(values.copy()), measure(values.reshape(1, 4, 3))
    assert measure(values).digest == same.digest
    assert len({image.digest for image in (same, other, measure(values.astype(np.int8)), measure(values + 1))}) == 4


def test_samples_are_even_and_finite() -> None:
    values = np.arange(1000.0)
    values[0] = np.inf
    assert sample_finite(values, most=100).tolist() == list(range(10, 1000, 10))


def measure_pixels(pixels: NDArray[Any]) -> MaskFacts:
    return measure_mask(pixels, Geometry(pixels.shape[-3:]), Path("a.png"), FileHeader("PNG"))


@hypothesis.given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int64, np.float32, np.float64]),
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
        elements={"allow_nan": False},
    )
)
@hypothesis.example(np.full((1, 1, 2), np.inf, np.float32))
def test_indices_are_those_of_numpy(values: NDArray[Any]) -> None:
    indices, table = index_values(values)
    expected, places = np.unique(values, return_inverse=True)
    assert np.array_equal(table, expected)
    assert np.array_equal(indices, places.reshape(values.shape))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_the_whole_range_of_a_type(dtype: type) -> None:
    values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0], dtype).reshape(1, 1, 3)
    assert index_values(values)[1].tolist() == [np.iinfo(dtype).min, 0, np.iinfo(dtype).max]


def test_counts_and_order() -> None:
    facts = measure_pixels(np.array([[[0, 0, 0, 7], [0, 0, 7, 255]]], np.uint8))
    assert [(count.value, count.voxels) for count in facts.values] == [((0.0,), 5), ((7.0,), 2), ((255.0,), 1)]
    assert (facts.voxels, facts.distinct, facts.finite, facts.whole) == (8, 3, True, True)


def test_coherence_is_high_in_areas_and_low_along_borders() -> None:
    mask = np.zeros((1, 12, 12), np.uint8)
    mask[0, 4:8, 4:8] = 2
    mask[0, range(12), range(12)] = 1  # a diagonal line: no neighbor in a row or a column is the same
    coherence = {count.value[0]: count.coherence for count in measure_pixels(mask).values}
    assert coherence[0] > 0.8
    assert coherence[2] >= 0.5
    assert coherence[1] == 0


def test_components_touch_at_corners_too() -> None:
    mask = np.zeros((1, 9, 9), np.uint8)
    mask[0, 0, 0] = mask[0, 1, 1] = 1
    mask[0, 5:9, 5:9] = 1
    (components,) = measure_pixels(mask).components
    assert components == (1.0, 16, 1, 2)


def test_components_of_a_volume_join_across_slices() -> None:
    mask = np.zeros((3, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 5
    mask[2, 4:, 4:] = 5
    (components,) = measure_pixels(mask).components
    assert components == (5.0, 4, 1, 2)


def test_fractions_nan_and_infinity() -> None:
    facts = measure_pixels(np.array([[[0, 0.5, 1]]], np.float32))
    assert (facts.finite, facts.whole) == (True, False)
    facts = measure_pixels(np.array([[[0, np.nan, np.inf, 1]]], np.float32))
    assert (facts.finite, facts.whole, facts.distinct) == (False, True, 4)


def test_colors() -> None:
    pixels = np.zeros((3, 1, 2, 2), np.uint16)
    pixels[:, 0, 0, 0] = (65535, 2, 1)
    facts = measure_pixels(pixels)
    assert facts.colored
    assert [(count.value, count.voxels) for count in facts.values] == [((0, 0, 0), 3), ((65535, 2, 1), 1)]
    assert facts.components == ()


def test_many_values_are_kept_as_the_commonest() -> None:
    values = np.arange(1000, dtype=np.int32).reshape(1, 10, 100)
    values[0, 0, :3] = 999
    facts = measure_pixels(values)
    assert (facts.distinct, len(facts.values)) == (997, 256)
    assert facts.values[0].value == (999.0,)


def test_values_beyond_what_can_be_counted() -> None:
    facts = measure_pixels(np.array([[[1e30, 1e30, 0]]], np.float64))
    assert facts.values[0].value == (1e30,)
    facts = measure_pixels(np.array([[[2**63 + 5, 2**63 + 5, 2**63]]], np.uint64))
    assert facts.distinct == 2


SHAPE = (80, 96)


def align(seed: int, shift: tuple[int, int] = (0, 0)) -> Alignment | None:
    image, mask = picture(seed, SHAPE)
    return measure_alignment(image[None, None], np.roll(mask, shift, (0, 1))[None])


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (-7, 0), (0, 8)])
def test_the_shift_that_was_made_is_taken_back(shift: tuple[int, int]) -> None:
    found = align(0, shift)
    assert found is not None
    assert found.shift == (-shift[0], -shift[1])
    assert found.distance == pytest.approx(np.hypot(*shift))
    assert (found.best > 2 * found.here) == (shift != (0, 0))


def test_a_volume_is_judged_by_all_its_slices() -> None:
    image, mask = scan(3, (8, *SHAPE))
    found = measure_alignment(image[None], np.roll(mask, (4, 5), (1, 2)))
    assert found is not None
    assert found.shift == (-4, -5)


def test_large_images_are_shrunk_and_shifts_told_in_their_own_pixels() -> None:
    image, mask = picture(0, SHAPE)
    large = np.kron(image, np.ones((16, 16), np.uint8))
    moved = np.roll(np.kron(mask, np.ones((16, 16), np.uint8)), 24, 0)
    found = measure_alignment(large[None, None], moved[None])
    assert found is not None
    assert found.shift[0] == pytest.approx(-24, abs=2)
    assert found.distance == pytest.approx(8, abs=1)


def test_nothing_to_fit() -> None:
    image, mask = picture(0, SHAPE)
    assert measure_alignment(image[None, None], np.zeros_like(mask)[None]) is None
    assert measure_alignment(np.full((1, 1, *SHAPE), 7, np.uint8), mask[None]) is None
    assert measure_alignment(image[None, None, :15, :15], mask[None, :15, :15]) is None
    assert measure_alignment(np.full((1, 1, *SHAPE), np.nan, np.float32), mask[None]) is None
