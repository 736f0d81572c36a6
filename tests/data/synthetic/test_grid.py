"""Voxels and body: positions against indices, and shapes against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.data.synthetic.grid import Ellipsoid, Tube, VoxelGrid, cover_solid, make_grid, sweep

SHAPE = (10, 60, 72)
WARP = 0.015


@pytest.fixture(scope="module")
def grid() -> VoxelGrid:
    return make_grid(SHAPE, tilt=0.2, offset=(0.05, -0.03, 0.02))


def squared_distances_in_voxels(grid: VoxelGrid, center: np.ndarray) -> np.ndarray:
    indices = np.indices(grid.shape).reshape(3, -1).T
    return np.square((indices - center) * grid.steps).sum(axis=1).reshape(grid.shape)


def test_a_position_leads_back_to_its_voxel_but_for_the_warp(grid: VoxelGrid) -> None:
    positions = np.stack([axis.ravel() for axis in (grid.z, grid.y, grid.x)], axis=1).astype(np.float64)
    indices = np.indices(SHAPE).reshape(3, -1).T
    away = np.abs(grid.to_indices(positions) - indices) * grid.steps
    assert away[:, 0].max() < 1e-6
    assert WARP < away.max() < WARP * np.sqrt(2) + 1e-6


def test_pixels_are_square_and_the_trunk_fits() -> None:
    for shape in (SHAPE, (3, 90, 40)):
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
