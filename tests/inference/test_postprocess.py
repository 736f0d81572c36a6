"""Cleaning predicted cases: in whose favor, in which unit, and what stays untouched."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.postprocess import apply_postprocess

EXCLUSIVE = LabelMap(["ring", "core"], "multiclass")
OVERLAPPING = LabelMap(["ring", "core"], "multilabel")
GRID = Geometry((1, 3, 6), (9.0, 2.0, 0.5))

RING = np.array([[[[1, 1, 1, 0, 0, 1], [1, 2, 1, 0, 0, 0], [1, 1, 1, 0, 2, 2]]]], np.uint8)


def test_holes_are_filled_where_no_other_label_is() -> None:
    cleaned = apply_postprocess(RING, GRID, EXCLUSIVE, {"ring": PostProcessing(fill_holes=True)})
    np.testing.assert_array_equal(cleaned, RING)
    hollow = np.where(RING == 2, 0, RING).astype(np.uint8)
    assert apply_postprocess(hollow, GRID, EXCLUSIVE, {"ring": PostProcessing(fill_holes=True)})[0, 0, 1, 1] == 1


def test_what_is_removed_becomes_background() -> None:
    cleaned = apply_postprocess(
        RING, GRID, EXCLUSIVE, {"ring": PostProcessing(largest_only=True), "core": PostProcessing(largest_only=True)}
    )
    expected = RING.copy()
    expected[0, 0, 0, 5] = 0
    expected[0, 0, 1, 1] = 0
    np.testing.assert_array_equal(cleaned, expected)
    assert RING[0, 0, 0, 5] == 1  # the prediction itself is left as it was


def test_labels_that_overlap_do_not_see_each_other() -> None:
    mask = np.stack([(RING[0] == 1), (RING[0] == 2)]).astype(np.uint8)
    cleaned = apply_postprocess(mask, GRID, OVERLAPPING, {"ring": PostProcessing(fill_holes=True, largest_only=True)})
    assert cleaned[0, 0].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(cleaned[1], mask[1])


@pytest.mark.parametrize(
    ("geometry", "limit"),
    [
        (Geometry((1, 1, 4), (9.0, 2.0, 0.5)), 2.0),  # two pixels of 1 mm²: the slice has no depth
        (Geometry((2, 1, 4), (9.0, 2.0, 0.5)), 18.0),  # two voxels of 9 mm³
        (Geometry((2, 1, 4), None), 2.0),  # unknown: voxels
    ],
)
def test_sizes_are_in_mm(geometry: Geometry, limit: float) -> None:
    labels = LabelMap(["lesion"], "binary")
    mask = np.zeros((1, *geometry.shape), np.uint8)
    mask[0, 0, 0, :2] = 1
    assert apply_postprocess(mask, geometry, labels, {"lesion": PostProcessing(minimum_size=limit)}).any()
    assert not apply_postprocess(mask, geometry, labels, {"lesion": PostProcessing(minimum_size=1.01 * limit)}).any()


def test_wrong_use_is_refused() -> None:
    with pytest.raises(SettingError, match="minimum_size must be at least 0; got -1"):
        PostProcessing(minimum_size=-1)
