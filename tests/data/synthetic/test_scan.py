"""The synthetic anatomy: reproducible, complete, and as unlike a threshold exercise as real scans are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from medseg_pl.data.synthetic import ORGANS, PEAKS, Phantom, merge_exclusive, simulate_abdomen, simulate_days
from medseg_pl.data.synthetic.anatomy import Ellipsoid, Tube
from medseg_pl.data.synthetic.scan import VoxelGrid, cover_solid, make_grid, sweep

SHAPE = (12, 48, 56)


@pytest.fixture(scope="module")
def scans() -> list[Phantom]:
    return [simulate_abdomen(np.random.default_rng(seed), SHAPE) for seed in range(12)]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def test_a_scan_has_the_asked_shape_and_types(scans: list[Phantom]) -> None:
    assert scans[0].image.shape == SHAPE
    assert scans[0].image.dtype == np.uint16
    assert scans[0].masks.shape == (len(ORGANS), *SHAPE)
    assert scans[0].masks.dtype == np.bool_


@pytest.mark.parametrize("shape", [(1, 33, 40), (5, 60, 34)])
def test_any_shape_works(shape: tuple[int, int, int]) -> None:
    assert simulate_abdomen(np.random.default_rng(0), shape).image.shape == shape


def test_the_same_seed_gives_the_same_voxels(scans: list[Phantom]) -> None:
    again = simulate_abdomen(np.random.default_rng(3), SHAPE)
    np.testing.assert_array_equal(again.image, scans[3].image)
    np.testing.assert_array_equal(again.masks, scans[3].masks)


def test_every_organ_is_present_but_not_in_every_slice(scans: list[Phantom]) -> None:
    slices = np.array([scan.masks.any(axis=(2, 3)).sum(axis=1) for scan in scans])
    assert slices.min() >= 2
    assert (slices < SHAPE[0]).all()


def test_masks_overlap_by_a_rim_in_some_scans_and_not_in_others(scans: list[Phantom]) -> None:
    shares = [max((a & b).sum() / min(a.sum(), b.sum()) for a, b in combinations(scan.masks, 2)) for scan in scans]
    assert min(shares) == 0
    assert 0 < max(shares) < 0.25


def test_stomach_lies_above_small_bowel(scans: list[Phantom]) -> None:
    for scan in scans:
        heights = [np.nonzero(mask)[0].mean() for mask in scan.masks]
        assert heights[2] > heights[1] + SHAPE[0] / 4


def test_brightest_voxels_differ_as_widely_as_in_real_scans(scans: list[Phantom]) -> None:
    peaks = [int(scan.image.max()) for scan in scans]
    assert min(peaks) >= PEAKS[0] - 1
    assert max(peaks) <= PEAKS[1] + 1
    assert max(peaks) > 4 * min(peaks)


def test_no_threshold_finds_an_organ(scans: list[Phantom]) -> None:
    for scan in scans[:4]:
        edges = np.percentile(scan.image, np.arange(0, 101, 5))
        bands = [(scan.image >= low) & (scan.image <= high) for low, high in combinations(edges, 2)]
        assert max(dice(band, mask) for band in bands for mask in scan.masks) < 0.5


def test_days_share_the_anatomy_and_differ_in_detail() -> None:
    first, second, again = simulate_days(5, [1, 2, 1], SHAPE)
    np.testing.assert_array_equal(first.image, again.image)
    for organ, day, other in zip(ORGANS, first.masks, second.masks, strict=True):
        assert 0.5 < dice(day, other) < 0.99, organ


def test_a_day_does_not_depend_on_the_days_before() -> None:
    _, second = simulate_days(5, [1, 2], SHAPE)
    (alone,) = simulate_days(5, [2], SHAPE)
    np.testing.assert_array_equal(second.image, alone.image)


def test_exclusive_gives_shared_voxels_to_the_later_organ() -> None:
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.bool_)
    assert merge_exclusive(masks).tolist() == [1, 2, 3, 0]


GRID_SHAPE = (10, 60, 72)
WARP = 0.015


@pytest.fixture(scope="module")
def grid() -> VoxelGrid:
    return make_grid(GRID_SHAPE, tilt=0.2, offset=(0.05, -0.03, 0.02))


def squared_distances_in_voxels(grid: VoxelGrid, center: np.ndarray) -> np.ndarray:
    indices = np.indices(grid.shape).reshape(3, -1).T
    return np.square((indices - center) * grid.steps).sum(axis=1).reshape(grid.shape)


def test_a_position_leads_back_to_its_voxel_but_for_the_warp(grid: VoxelGrid) -> None:
    positions = np.stack([axis.ravel() for axis in (grid.z, grid.y, grid.x)], axis=1).astype(np.float64)
    indices = np.indices(GRID_SHAPE).reshape(3, -1).T
    away = np.abs(grid.to_indices(positions) - indices) * grid.steps
    assert away[:, 0].max() < 1e-6
    assert WARP < away.max() < WARP * np.sqrt(2) + 1e-6


def test_pixels_are_square_and_the_trunk_fits() -> None:
    for shape in (GRID_SHAPE, (3, 90, 40)):
        grid = make_grid(shape, tilt=0.0, offset=(0.0, 0.0, 0.0))
        assert grid.steps[1] == grid.steps[2]
        assert np.ptp(grid.y) > 1.6
        assert np.ptp(grid.x) > 2.1


def test_an_ellipsoid_has_its_volume(grid: VoxelGrid) -> None:
    radii = (0.4, 0.3, 0.5)
    covered = cover_solid(grid, Ellipsoid((0.0, 0.0, 0.0), radii, 0.5, angle=0.7))
    volume = covered.sum() * np.prod(grid.steps)
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.05)


def test_a_tube_is_the_union_of_its_balls(grid: VoxelGrid) -> None:
    tube = Tube(np.array([[0.0, 0.0, -0.3], [0.1, 0.2, 0.3], [5.0, 0.0, 0.0]]), np.array([0.2, 0.3, 0.2]))
    first, second, _ = (
        np.sqrt(squared_distances_in_voxels(grid, center)) - radius
        for center, radius in zip(grid.to_indices(tube.points), tube.radii, strict=True)
    )
    swept = sweep(grid, tube)
    near = np.minimum(first, second) < 0
    assert near.any()
    np.testing.assert_allclose(swept.depth[near], np.minimum(first, second)[near], atol=1e-5)
    assert (swept.depth[~near] >= -1e-5).all()
    np.testing.assert_array_equal(swept.nearest[near], (second < first)[near])
