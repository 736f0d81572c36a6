"""The grid of a case: units, and affines that lose nothing on the way."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry, affine_as_tuple

OBLIQUE = np.array([[0.1, -1.7, 1 / 3, 12.5], [1e-9, 0.3, 2.0, -7.0], [5.0, 0.0, np.pi, 1e6], [0.0, 0.0, 0.0, 1.0]])


def test_a_millilitre_is_a_cubic_centimetre() -> None:
    geometry = Geometry(shape=(3, 4, 5), spacing_mm=(10.0, 20.0, 0.5))
    assert geometry.voxel_ml == float(Fraction(10) * 20 / 2 / 1000)


def test_an_unknown_spacing_has_no_volume() -> None:
    assert Geometry(shape=(1, 4, 5)).voxel_ml is None


def test_an_affine_survives_json_to_the_last_digit() -> None:
    affine = affine_as_tuple(OBLIQUE)
    again = json.loads(json.dumps(affine))
    assert affine_as_tuple(again) == affine
    np.testing.assert_array_equal(np.array(again), OBLIQUE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_affine_is_plain_floats(dtype: type) -> None:
    affine = affine_as_tuple(OBLIQUE.astype(dtype))
    assert {type(value) for row in affine for value in row} == {float}
    np.testing.assert_array_equal(np.array(affine), OBLIQUE.astype(dtype))


def placed(matrix: np.ndarray, shape: tuple[int, int, int] = (3, 5, 9)) -> Geometry:
    return Geometry(shape, affine=affine_as_tuple(matrix))


def changed(**entries: float) -> np.ndarray:
    """`OBLIQUE` in voxels of its own: `r0c3=2` moves by two voxels along the first axis."""
    there = np.eye(4)
    for place, value in entries.items():
        there[int(place[1]), int(place[3])] = value
    return OBLIQUE @ there


def test_a_grid_is_no_distance_from_itself() -> None:
    assert placed(OBLIQUE).distance_voxels(placed(OBLIQUE.copy())) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("moved", "distance"),
    [
        ({"r0c3": 3}, 3),
        ({"r1c3": 3, "r2c3": -4}, 5),
        ({"r0c3": 0.05}, 0.05),
        ({"r2c2": -1}, 16),  # mirrored about its first voxel: the ninth lies at -8 instead of 8
        ({"r2c2": -1, "r2c3": 8}, 8),  # mirrored in place: both ends are exchanged
        ({"r0c0": 1.5}, 1),  # a spacing half as large again: two steps become three
        ({"r0c0": 0, "r0c1": 1, "r1c0": 1, "r1c1": 0}, np.hypot(4, 4)),  # (2, 4) becomes (4, 2), (0, 4) becomes (4, 0)
    ],
)
def test_a_distance_is_that_of_the_farthest_corner_in_voxels(moved: dict[str, float], distance: float) -> None:
    # The affine turns, shears and lies a kilometre away: in its own voxels that is all the same.
    assert placed(OBLIQUE).distance_voxels(placed(changed(**moved))) == pytest.approx(distance, rel=1e-6, abs=1e-6)


def test_a_distance_is_in_voxels_of_the_first() -> None:
    fine, coarse = np.diag([1.0, 1, 1, 1]), np.diag([4.0, 1, 1, 1])
    # The last of three slices lies at 2 mm and at 8 mm.
    assert placed(fine).distance_voxels(placed(coarse)) == pytest.approx(6)
    assert placed(coarse).distance_voxels(placed(fine)) == pytest.approx(1.5)


def test_a_single_voxel_has_one_corner() -> None:
    far = np.eye(4)
    far[:3, 3] = (0, 3, 4)
    assert placed(np.eye(4), (1, 1, 1)).distance_voxels(placed(far, (1, 1, 1))) == pytest.approx(5)


def test_a_grid_without_a_place_is_no_distance_from_any() -> None:
    nowhere = Geometry((3, 5, 9))
    assert nowhere.distance_voxels(placed(OBLIQUE)) == 0
    assert placed(OBLIQUE).distance_voxels(nowhere) == 0
    assert nowhere.distance_voxels(nowhere) == 0


def test_geometries_of_one_grid_are_equal_and_hash_alike() -> None:
    first, second = (Geometry((1, 2, 3), (1.0, 1.0, 1.0), affine_as_tuple(OBLIQUE.copy())) for _ in range(2))
    assert first == second
    assert len({first, second}) == 1
    assert first != Geometry((1, 2, 3), (1.0, 1.0, 1.0), affine_as_tuple(np.eye(4)))
