"""Centerlines and boundaries: on paper, against the equations of their papers, and on vessels."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from medseg_pl.metrics.functional.shape import (
    boundary_iou,
    cl_dice,
    count_centerlines,
    topology_precision,
    topology_sensitivity,
)
from tests.metrics.functional.surface_pairs import KINDS, pair

Mask = NDArray[np.bool_]
UNIT = (1.0, 1.0, 1.0)


def reference_cl_dice(prediction: Mask, reference: Mask) -> float:
    """Follow equations 1 and 2 of Shit et al., `2 Tprec Tsens / (Tprec + Tsens)`, over the whole image."""
    thin_prediction, thin_reference = skeletonize(prediction), skeletonize(reference)
    precision = (thin_prediction & reference).sum() / thin_prediction.sum()
    sensitivity = (thin_reference & prediction).sum() / thin_reference.sum()
    return float(2 * precision * sensitivity / (precision + sensitivity)) if precision + sensitivity else 0.0


def tube(shape: tuple[int, ...], points: list[tuple[float, ...]], radius: float) -> Mask:
    """All voxels near a line from point to point."""
    line = np.ones(shape, bool)
    for start, end in pairwise(points):
        for share in np.linspace(0, 1, 200):
            index = tuple(round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
            line[index] = False
    return np.asarray(distance_transform_edt(line) <= radius)


class TestCenterlines:
    def test_a_tube_that_ends_early_on_paper(self) -> None:
        whole, part = np.zeros((2, 1, 9, 60), bool)
        whole[:, 3:6] = part[:, 3:6, :30] = True
        counts = count_centerlines(part, whole)
        assert topology_precision(counts) == 1.0
        assert topology_sensitivity(counts) == pytest.approx(0.5, abs=0.02)
        assert counts.reference_covered in (29, 30)
        assert cl_dice(counts) == pytest.approx(2 / 3, abs=0.02)

    def test_a_thick_vessel_counts_no_more_than_a_thin_one(self) -> None:
        thick, both = np.zeros((2, 1, 40, 60), bool)
        thick[0, 5:20] = both[0, 5:20] = both[0, 30:33] = True
        assert topology_sensitivity(count_centerlines(thick, both)) < 0.6  # 83 % of the pixels are found

    @pytest.mark.parametrize("seed", range(4))
    def test_synthetic_vessels_in_a_slice(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        masks = []
        for jitter in (0.0, 5.0):
            points = [(10.0, 10.0), (30.0, 60.0), (70.0, 40.0), (85.0, 85.0)]
            moved = [tuple(np.add(point, rng.uniform(-jitter, jitter, 2)).tolist()) for point in points]
            masks.append(tube((96, 96), moved, 3.0) | tube((96, 96), moved[:2], 1.0 + seed))
        counts = count_centerlines(*(mask[None] for mask in masks))
        assert cl_dice(counts) == pytest.approx(reference_cl_dice(*masks), abs=1e-6)
        assert 0.1 < cl_dice(counts) < 1.0

    def test_synthetic_vessels_in_a_volume(self) -> None:
        first = tube((24, 40, 40), [(4, 4, 4), (12, 30, 20), (20, 20, 35)], 2.5)
        second = tube((24, 40, 40), [(4, 5, 4), (12, 30, 22)], 2.0)
        expected = reference_cl_dice(first, second)
        assert cl_dice(count_centerlines(first, second)) == pytest.approx(expected, abs=1e-6)
        assert 0.5 < expected < 0.9

    def test_any_masks_have_a_centerline_and_an_empty_prediction_is_never_better(self) -> None:
        for number in range(2 * len(KINDS)):
            drawn = pair(number)
            if drawn.both_there:
                counts = count_centerlines(drawn.prediction, drawn.reference)
                assert min(counts.prediction, counts.reference) > 0
                assert 0 <= cl_dice(counts) <= 1
                assert cl_dice(count_centerlines(drawn.reference, drawn.reference)) == 1.0
                nothing = count_centerlines(np.zeros_like(drawn.prediction), drawn.reference)
                assert (nothing.prediction, topology_sensitivity(nothing)) == (0, 0.0)

    def test_a_block_that_thinning_would_erase_stays(self) -> None:
        block = np.zeros((4, 4, 4), bool)
        block[1:3, 1:3, 1:3] = True
        assert count_centerlines(block, block) == (8, 8, 8, 8)


def erode_as_published(mask: Mask, steps: int) -> Mask:
    """The code of Cheng et al. with sets of pixels: 3 x 3 erosions, with a background beyond the image."""
    inside = np.pad(mask, 1)
    for _ in range(steps):
        shifted = [np.roll(inside, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        inside = np.logical_and.reduce(shifted)
    return inside[1:-1, 1:-1]


class TestBoundary:
    def test_a_square_in_a_square_on_paper(self) -> None:
        large, small = np.zeros((2, 1, 9, 9), bool)
        large[0, 1:8, 1:8] = small[0, 2:7, 2:7] = True
        # Rims of 24 and 16 pixels share none at width 1; at width 2 rims of 40 and 24 share the small one's outer 16.
        assert boundary_iou(small, large, 1.0, UNIT) == 0.0
        assert boundary_iou(small, large, 2.0, UNIT) == 16 / (40 + 24 - 16)
        assert boundary_iou(small, large, 9.0, UNIT) == 25 / 49

    def test_equal_to_the_published_code(self) -> None:
        for number in range(12 * len(KINDS)):
            drawn = pair(number)
            if len(drawn.prediction) > 1 or not drawn.both_there:
                continue
            for width in (1, 2, 4):
                rims = [mask[0] & ~erode_as_published(mask[0], width) for mask in (drawn.prediction, drawn.reference)]
                expected = (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()
                assert boundary_iou(drawn.prediction, drawn.reference, float(width), UNIT) == expected, drawn.kind

    def test_a_width_is_in_the_unit_of_the_spacing(self) -> None:
        large, small = np.zeros((2, 1, 12, 12), bool)
        large[0, 1:11, 1:11] = small[0, 1:11, 3:11] = True
        # Rows are 2 mm apart, columns 1 mm: a rim of one row above and below and of two columns at the sides.
        rims = [mask[0].copy() for mask in (large, small)]
        rims[0][2:10, 3:9] = rims[1][2:10, 5:9] = False
        expected = (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()
        assert boundary_iou(small, large, 2.0, (9.0, 2.0, 1.0)) == expected

    def test_a_volume_has_a_boundary_above_and_below(self) -> None:
        block = np.ones((5, 5, 5), bool)
        inner = np.zeros_like(block)
        inner[1:4, 1:4, 1:4] = True
        assert boundary_iou(inner, block, 1.0, UNIT) == 0.0
        assert boundary_iou(inner, block, 2.0, UNIT) == 26 / 125  # both are hollow but for the middle voxel

    def test_empty_masks(self) -> None:
        nothing, square = np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool)
        assert boundary_iou(nothing, square, 1.0, UNIT) == boundary_iou(square, nothing, 1.0, UNIT) == 0.0
        assert math.isnan(boundary_iou(nothing, nothing, 1.0, UNIT))


@pytest.mark.realdata
def test_vessels_of_two_observers(real_data: Path) -> None:
    folder = real_data / "chase_db1"
    firsts = sorted((folder / "masks_1st").iterdir())
    assert len(firsts) >= 20
    for first in firsts[:8]:
        second = folder / "masks_2nd" / first.name
        masks = [np.asarray(Image.open(path).convert("L")) > 0 for path in (second, first)]
        ours = cl_dice(count_centerlines(*(mask[None] for mask in masks)))
        assert ours == pytest.approx(reference_cl_dice(*masks), abs=1e-6)
        assert 0.6 < ours < 1.0
