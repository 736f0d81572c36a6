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


def test_geometries_of_one_grid_are_equal_and_hash_alike() -> None:
    first, second = (Geometry((1, 2, 3), (1.0, 1.0, 1.0), affine_as_tuple(OBLIQUE.copy())) for _ in range(2))
    assert first == second
    assert len({first, second}) == 1
    assert first != Geometry((1, 2, 3), (1.0, 1.0, 1.0), affine_as_tuple(np.eye(4)))
