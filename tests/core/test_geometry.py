"""The grid of a case: units, and affines that lose nothing on the way."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.errors import GeometryError
from medseg_pl.core.geometry import (
    Geometry,
    Reorientation,
    find_axis_codes,
    find_slicing,
    find_turn_to_codes,
    to_affine,
)

OBLIQUE = np.array([[0.1, -1.7, 1 / 3, 12.5], [1e-9, 0.3, 2.0, -7.0], [5.0, 0.0, np.pi, 1e6], [0.0, 0.0, 0.0, 1.0]])


def test_a_millilitre_is_a_cubic_centimeter() -> None:
    geometry = Geometry(shape=(3, 4, 5), spacing_mm=(10.0, 20.0, 0.5))
    assert geometry.voxel_ml == float(Fraction(10) * 20 / 2 / 1000)


def test_an_unknown_spacing_has_no_volume() -> None:
    assert Geometry(shape=(1, 4, 5)).voxel_ml is None


def test_distances_are_in_mm_where_the_spacing_is_known() -> None:
    known = Geometry(shape=(3, 4, 5), spacing_mm=(10.0, 20.0, 0.5))
    assert (known.unit, known.spacing_in_unit) == ("mm", (10.0, 20.0, 0.5))


def test_distances_are_in_pixels_where_it_is_not() -> None:
    unknown = Geometry(shape=(3, 4, 5))
    assert (unknown.unit, unknown.spacing_in_unit) == ("px", (1.0, 1.0, 1.0))
    # A millimeter each way is as long, and known.
    assert Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0)).unit == "mm"


def test_an_affine_survives_json_to_the_last_digit() -> None:
    affine = to_affine(OBLIQUE)
    again = json.loads(json.dumps(affine))
    assert to_affine(again) == affine
    np.testing.assert_array_equal(np.array(again), OBLIQUE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_affine_is_plain_floats(dtype: type) -> None:
    affine = to_affine(OBLIQUE.astype(dtype))
    assert {type(value) for row in affine for value in row} == {float}
    np.testing.assert_array_equal(np.array(affine), OBLIQUE.astype(dtype))


def placed(matrix: np.ndarray, shape: tuple[int, int, int] = (3, 5, 9)) -> Geometry:
    return Geometry(shape, affine=to_affine(matrix))


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
    # The affine turns, shears and lies a kilometer away: in its own voxels that is all the same.
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
    first, second = (Geometry((1, 2, 3), (1.0, 1.0, 1.0), to_affine(OBLIQUE.copy())) for _ in range(2))
    assert first == second
    assert len({first, second}) == 1
    assert first != Geometry((1, 2, 3), (1.0, 1.0, 1.0), to_affine(np.eye(4)))


REORIENTATIONS = [Reorientation(o, f) for o in permutations(range(3)) for f in product([False, True], repeat=3)]


class TestReoriented:
    @pytest.mark.parametrize("turn", REORIENTATIONS)
    def test_every_voxel_stays_where_it_is(self, turn: Reorientation) -> None:
        before = Geometry((3, 4, 5), (1.5, 2.0, 7.0), to_affine(OBLIQUE))
        values = np.arange(60).reshape(before.shape)
        after, moved = before.reorient(turn), turn.apply(values)
        assert after.shape == moved.shape
        for place in product(*(range(length) for length in after.shape)):
            index = np.argwhere(values == moved[place])[0]
            there, here = (np.array(g.affine) @ (*i, 1) for g, i in ((after, place), (before, index)))
            np.testing.assert_allclose(there, here, rtol=1e-9)
        assert after.spacing_mm == tuple((1.5, 2.0, 7.0)[axis] for axis in turn.order)

    @pytest.mark.parametrize("turn", REORIENTATIONS)
    def test_it_is_undone_exactly(self, turn: Reorientation) -> None:
        values = np.arange(120).reshape(2, 3, 4, 5)
        np.testing.assert_array_equal(turn.undo(turn.apply(values)), values)

    @pytest.mark.parametrize("turn", REORIENTATIONS)
    def test_it_is_found_from_the_grids(self, turn: Reorientation) -> None:
        before = Geometry((3, 4, 5), (1.5, 2.0, 7.0), to_affine(OBLIQUE))
        assert before.find_reorientation(before.reorient(turn)) == turn

    def test_none_is_found_between_axes_or_without_a_place(self) -> None:
        turned = OBLIQUE @ np.array([[0.9, -0.4, 0, 0], [0.4, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        here = Geometry((3, 4, 5), (1.0, 1.0, 1.0), to_affine(OBLIQUE))
        assert here.find_reorientation(Geometry((3, 4, 5), affine=to_affine(turned))) is None
        assert here.find_reorientation(Geometry((3, 4, 5), (1.0, 1.0, 1.0))) is None

    def test_what_is_unknown_stays_unknown(self) -> None:
        assert Geometry((3, 4, 5)).reorient(Reorientation((2, 0, 1))) == Geometry((5, 3, 4))


def lying(*columns: tuple[float, float, float]) -> Geometry:
    """A grid whose axes D, H and W run along these directions, in mm to the right, to the front and to the head."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    spacing = [float(np.linalg.norm(column)) for column in columns]
    return Geometry((9, 9, 9), (spacing[0], spacing[1], spacing[2]), to_affine(affine))


AXIAL = lying((0, 0, 5), (0, -1, 0), (-1, 0, 0))
SAGITTAL = lying((3, 0, 0), (0, 0, -1), (0, 1, 0))  # the file's last axis runs from left to right
TILTED = lying((0, 1.2, 1.6), (0.1, 0.8, -0.6), (1, 0, 0.1))  # 37 degrees from the long axis of the body


class TestSlicing:
    @pytest.mark.parametrize(
        ("geometry", "slicing", "order"),
        [
            (AXIAL, "file", (0, 1, 2)),
            (AXIAL, "axial", (0, 1, 2)),
            (AXIAL, "coronal", (1, 0, 2)),
            (AXIAL, "sagittal", (2, 0, 1)),
            (AXIAL, "thick", (0, 1, 2)),
            (SAGITTAL, "file", (0, 1, 2)),
            (SAGITTAL, "sagittal", (0, 1, 2)),
            (SAGITTAL, "axial", (1, 2, 0)),
            (SAGITTAL, "coronal", (2, 1, 0)),
            (TILTED, "axial", (0, 1, 2)),
            (TILTED, "coronal", (1, 0, 2)),
            (TILTED, "sagittal", (2, 0, 1)),
            (Geometry((9, 9, 9), (0.5, 0.5, 7.5)), "thick", (2, 0, 1)),
            (Geometry((9, 9, 9), (0.5, 7.5, 0.5)), "thick", (1, 0, 2)),
            (Geometry((9, 9, 9), (1.0, 1.0, 1.0)), "thick", (0, 1, 2)),
            (Geometry((9, 9, 9), (0.5, 2.0, 2.0)), "thick", (1, 0, 2)),
            (Geometry((9, 9, 9), (1.0, 1.0000001, 1.0)), "thick", (0, 1, 2)),
            (Geometry((9, 9, 9), (1.0, 1.01, 1.0)), "thick", (1, 0, 2)),
            (Geometry((9, 9, 9)), "file", (0, 1, 2)),
        ],
    )
    def test_the_axis_across_comes_first(self, geometry: Geometry, slicing: Any, order: tuple[int, int, int]) -> None:
        assert find_slicing(geometry, slicing, "a.nii").order == order

    @pytest.mark.parametrize("turn", REORIENTATIONS)
    @pytest.mark.parametrize(
        ("slicing", "axes"),
        [
            ("axial", ((0, 0, 5), (0, -1, 0), (-1, 0, 0))),  # to the head; to the back; to the patient's left
            ("coronal", ((0, -5, 0), (0, 0, -1), (-1, 0, 0))),  # to the back; to the feet; to the left
            ("sagittal", ((5, 0, 0), (0, 0, -1), (0, -1, 0))),  # to the right; to the feet; to the back
        ],
    )
    def test_a_plane_is_the_same_however_it_is_stored(self, slicing: Any, axes: Any, turn: Reorientation) -> None:
        standard = lying(*axes)
        stored = standard.reorient(turn)
        again = stored.reorient(find_slicing(stored, slicing, "a.nii"))
        assert again == standard

    def test_a_large_spacing_does_not_turn_a_direction(self) -> None:
        # 20 mm steps that lean to the front cover more of it than 1 mm steps that point there.
        leaning = lying((0, 6, 19), (0, 0.95, -0.3), (1, 0, 0))
        assert find_slicing(leaning, "coronal", "a.nii").order == (1, 0, 2)

    @pytest.mark.parametrize("slicing", ["axial", "coronal", "sagittal"])
    def test_without_a_place_there_is_no_direction(self, slicing: Any) -> None:
        with pytest.raises(GeometryError) as caught:
            find_slicing(Geometry((9, 9, 9), (1.0, 1.0, 5.0)), slicing, "Case p1: a.nii")
        assert str(caught.value) == (
            f"Case p1: a.nii does not say how it lies, so it cannot be cut as data.source.slicing {slicing} asks for. "
            "Set it to file, or convert the image to NIfTI with its orientation."
        )

    def test_without_a_spacing_there_is_no_thick_one(self) -> None:
        with pytest.raises(GeometryError, match=r"a\.png does not say how far its voxels are apart, so it cannot be"):
            find_slicing(Geometry((1, 9, 9)), "thick", "a.png")


_FLIPS = list(product([False, True], repeat=3))
_EVERY_TURN = [Reorientation(order, flips) for order in permutations(range(3)) for flips in _FLIPS]


class TestOrientation:
    @pytest.mark.parametrize("slicing", ["file", "thick"])
    def test_all_48_orientations_give_the_same_slices(self, slicing: Slicing) -> None:
        leaning = np.array([[0.98, 0.1, -0.15], [-0.12, 0.97, 0.2], [0.16, -0.2, 0.96]])
        affine = np.eye(4)
        affine[:3, :3] = leaning * [3, 1.5, 1]
        grid = Geometry((4, 5, 6), (3.0, 1.5, 1.0), to_affine(affine))
        voxels = np.arange(120).reshape(4, 5, 6)
        for stored in _EVERY_TURN:
            turned = grid.reorient(stored)
            back = find_slicing(turned, slicing, "a.nii", find_axis_codes(grid))
            np.testing.assert_array_equal(back.apply(stored.apply(voxels)), voxels)
            np.testing.assert_array_equal(back.undo(voxels), stored.apply(voxels))
            assert turned.reorient(back).distance_voxels(grid) < 1e-6

    @pytest.mark.parametrize("second", _EVERY_TURN[::5])
    def test_two_turns_in_one(self, second: Reorientation) -> None:
        voxels = np.arange(24).reshape(2, 3, 4)
        for first in _EVERY_TURN:
            np.testing.assert_array_equal(first.then(second).apply(voxels), second.apply(first.apply(voxels)))

    def test_codes_name_the_far_end_of_each_axis(self) -> None:
        assert find_axis_codes(Geometry((2, 2, 2), affine=to_affine(np.eye(4)))) == "RAS"
        assert find_axis_codes(Geometry((2, 2, 2), affine=to_affine(np.diag([-1.0, -1, -1, 1])))) == "LPI"
        assert find_axis_codes(Geometry((2, 2, 2))) is None
        assert find_turn_to_codes("RAS", "RAS") == Reorientation()

    def test_a_volume_without_a_place_stays(self) -> None:
        assert find_slicing(Geometry((4, 5, 6), (1.0, 1.0, 1.0)), "file", "a.nii", "SAR") == Reorientation()
