"""What stands in a mask file, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from medseg_pl.checks.mask_measurement import indexed, measure_mask
from medseg_pl.checks.measurements import MaskFacts
from medseg_pl.core.geometry import Geometry
from medseg_pl.io.file_header import FileHeader


def measured(pixels: NDArray[Any]) -> MaskFacts:
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
    indices, table = indexed(values)
    expected, places = np.unique(values, return_inverse=True)
    assert np.array_equal(table, expected)
    assert np.array_equal(indices, places.reshape(values.shape))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_the_whole_range_of_a_type(dtype: type) -> None:
    values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0], dtype).reshape(1, 1, 3)
    assert indexed(values)[1].tolist() == [np.iinfo(dtype).min, 0, np.iinfo(dtype).max]


def test_counts_and_order() -> None:
    facts = measured(np.array([[[0, 0, 0, 7], [0, 0, 7, 255]]], np.uint8))
    assert [(mark.mark, mark.voxels) for mark in facts.marks] == [((0.0,), 5), ((7.0,), 2), ((255.0,), 1)]
    assert (facts.voxels, facts.distinct, facts.finite, facts.whole) == (8, 3, True, True)


def test_coherence_is_high_in_areas_and_low_along_borders() -> None:
    mask = np.zeros((1, 12, 12), np.uint8)
    mask[0, 4:8, 4:8] = 2
    mask[0, range(12), range(12)] = 1  # a diagonal line: no neighbor in a row or a column is the same
    coherence = {mark.mark[0]: mark.coherence for mark in measured(mask).marks}
    assert coherence[0] > 0.8
    assert coherence[2] >= 0.5
    assert coherence[1] == 0


def test_components_touch_at_corners_too() -> None:
    mask = np.zeros((1, 9, 9), np.uint8)
    mask[0, 0, 0] = mask[0, 1, 1] = 1
    mask[0, 5:9, 5:9] = 1
    (specks,) = measured(mask).specks
    assert specks == (1.0, 16, 1, 2)


def test_components_of_a_volume_join_across_slices() -> None:
    mask = np.zeros((3, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 5
    mask[2, 4:, 4:] = 5
    (specks,) = measured(mask).specks
    assert specks == (5.0, 4, 1, 2)


def test_fractions_nan_and_infinity() -> None:
    facts = measured(np.array([[[0, 0.5, 1]]], np.float32))
    assert (facts.finite, facts.whole) == (True, False)
    facts = measured(np.array([[[0, np.nan, np.inf, 1]]], np.float32))
    assert (facts.finite, facts.whole, facts.distinct) == (False, True, 4)


def test_colors() -> None:
    pixels = np.zeros((3, 1, 2, 2), np.uint16)
    pixels[:, 0, 0, 0] = (65535, 2, 1)
    facts = measured(pixels)
    assert facts.colored
    assert [(mark.mark, mark.voxels) for mark in facts.marks] == [((0, 0, 0), 3), ((65535, 2, 1), 1)]
    assert facts.specks == ()


def test_many_values_are_kept_as_the_commonest() -> None:
    values = np.arange(1000, dtype=np.int32).reshape(1, 10, 100)
    values[0, 0, :3] = 999
    facts = measured(values)
    assert (facts.distinct, len(facts.marks)) == (997, 256)
    assert facts.marks[0].mark == (999.0,)


def test_values_beyond_what_can_be_counted() -> None:
    facts = measured(np.array([[[1e30, 1e30, 0]]], np.float64))
    assert facts.marks[0].mark == (1e30,)
    facts = measured(np.array([[[2**63 + 5, 2**63 + 5, 2**63]]], np.uint64))
    assert facts.distinct == 2
