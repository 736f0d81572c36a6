"""Intensities measured, on images whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.checks.image_measurement import finite_sample
from tests.checks.facts_of import image_of, textured


def test_ends_and_percentiles() -> None:
    image = image_of(np.arange(101, dtype=np.int16).reshape(1, 1, 101))
    assert (image.lowest, image.highest, image.percentiles) == (0, 100, (1, 50, 99))
    assert (image.channels, image.dtype, image.finite, image.constant) == (1, "int16", 1, ())


def test_numbers_only() -> None:
    values = textured(0, (1, 20, 20)).astype(np.float32)
    values[0, 0, :10], values[0, 0, 10:] = np.nan, np.inf
    image = image_of(values)
    assert image.finite == pytest.approx(0.95)
    assert image.highest == values[0, 1:].max()
    assert np.isfinite(image.percentiles).all()
    assert np.isfinite(image.contrast)


def test_nothing_but_nan() -> None:
    image = image_of(np.full((1, 8, 8), np.nan, np.float32))
    assert (image.finite, image.lowest, image.highest, image.contrast, image.signature) == (0, 0, 0, 0, None)


def test_share_at_the_top() -> None:
    values = np.arange(1000, dtype=np.uint16).reshape(1, 10, 100)
    assert image_of(values).at_top == 0.001
    cut = image_of(values.clip(0, 899))
    assert cut.at_top == 0.101
    assert 0.015 < cut.below_top < 0.02


def test_channels_of_one_value() -> None:
    pixels = np.stack([textured(0), np.full((1, 32, 40), 7.0), textured(1)])
    assert image_of(pixels).constant == (1,)


def test_contrast_has_a_sign() -> None:
    bright = np.zeros((3, 32, 32))
    bright[:, 8:24, 8:24] = 100
    assert image_of(bright).contrast > 1
    assert image_of(100 - bright).contrast == pytest.approx(-image_of(bright).contrast)


def test_the_digest_knows_pixels_shape_and_type() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    same, other = image_of(values.copy()), image_of(values.reshape(1, 4, 3))
    assert image_of(values).digest == same.digest
    assert len({image.digest for image in (same, other, image_of(values.astype(np.int8)), image_of(values + 1))}) == 4


def test_samples_are_even_and_finite() -> None:
    values = np.arange(1000.0)
    values[0] = np.inf
    assert finite_sample(values, most=100).tolist() == list(range(10, 1000, 10))
