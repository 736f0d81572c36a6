"""One volume or not: order, grid, gaps. Everything on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.io.dicom.planes import Plane
from medseg_pl.io.dicom.stack import (
    EVEN_VOXELS,
    compute_grid,
    describe_mixed_series,
    find_problems,
    find_unevenness,
    sort_planes,
)


def plane(
    height: float,
    name: str = "a",
    *,
    shift: tuple[float, float] = (0, 0),
    series: str = "one",
    size: tuple[int, int] = (4, 6),
    spacing_mm: tuple[float, float] = (0.75, 0.5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
) -> Plane:
    return Plane(
        path=Path("folder", f"{name}.dcm"),
        frame=0,
        series=series,
        position_mm=(-20.0 + shift[0], -30.0 + shift[1], height),
        orientation=orientation,
        spacing_mm=spacing_mm,
        size=size,
        thickness_mm=9.0,
        slope=1.0,
        intercept=0.0,
    )


def stack(*heights: float) -> list[Plane]:
    return [plane(height, f"{index:03d}") for index, height in enumerate(heights)]


def codes(planes: list[Plane]) -> list[str]:
    return [problem.code for problem in find_problems(planes)]


def test_order_is_that_of_places() -> None:
    assert [p.position_mm[2] for p in sort_planes(stack(5, -10, 0, -5))] == [-10, -5, 0, 5]


def test_the_grid_on_paper() -> None:
    """Row direction +x and column direction +y: slices follow each other along +z; right and front are negated."""
    geometry = compute_grid(stack(10, 12.5, 15))
    assert geometry.shape == (3, 4, 6)
    assert geometry.spacing_mm == (2.5, 0.75, 0.5)
    assert geometry.affine == ((0, 0, -0.5, 20), (0, -0.75, 0, 30), (2.5, 0, 0, 10), (0, 0, 0, 1))


def test_a_tilted_gantry_shears_the_affine_and_not_the_spacing() -> None:
    """Slices 4 mm apart along z, whose normal leans by 30 degrees: 4 cos 30° mm from plane to plane."""
    leaning = (1.0, 0.0, 0.0, 0.0, np.cos(np.pi / 6), np.sin(np.pi / 6))
    geometry = compute_grid([plane(height, orientation=leaning) for height in (0, 4, 8)])
    assert geometry.spacing_mm is not None and geometry.affine is not None
    assert geometry.spacing_mm[0] == pytest.approx(4 * np.cos(np.pi / 6))
    np.testing.assert_allclose(np.array(geometry.affine)[:3, 0], (0, 0, 4), atol=1e-12)
    assert abs(np.linalg.det(geometry.affine)) == pytest.approx(np.prod(geometry.spacing_mm))


def test_even_slices_are_no_problem() -> None:
    assert codes(stack(0, 5, 10, 15)) == []
    assert codes(stack(7)) == []
    assert codes([]) == []


def test_places_rounded_to_a_tenth_of_a_millimeter_are_even() -> None:
    assert codes(stack(*np.round(np.arange(40) * 1.25, 1))) == []


def test_a_missing_slice_is_named_by_its_neighbors() -> None:
    (problem,) = find_problems(stack(0, 2.5, 5, 12.5, 15, 17.5))
    assert problem == (
        "gap",
        f"{Path('folder/002.dcm')} and {Path('folder/003.dcm')} are 7.50 mm apart, other slices of this series 2.50 "
        "mm: 2 slices between them seem to be missing. Restore them, move the series away, or set "
        "data.source.uneven_slices to resample, which interpolates them.",
    )


def test_every_gap_is_a_problem() -> None:
    assert codes(stack(0, 1, 2, 4, 5, 6, 8, 9, 10)) == ["gap", "gap"]


def test_slices_that_are_not_even_say_how_far_they_are() -> None:
    (problem,) = find_problems(stack(0, 1, 2.3, 3))
    assert problem.code == "uneven"
    assert problem.message == (
        f"{Path('folder/002.dcm')} lies 0.30 voxels from where even spacing would put it, more than 0.2 (slices are "
        "0.70 to 1.30 mm apart). Restore missing slices, or set data.source.uneven_slices to resample."
    )


def test_an_honest_series_of_two_distances_is_not_said_to_miss_slices() -> None:
    """A head: 4 slices of 2.5 mm at its base, 6 of 5 mm above; not one of them is lost."""
    (problem,) = find_problems(stack(0, 2.5, 5, 7.5, 10, 15, 20, 25, 30, 35, 40))
    assert problem.code == "uneven"
    assert problem.message == (
        f"{Path('folder')}: slices are 2.50 to 5.00 mm apart (4 of 2.50 mm, 6 of 5.00 mm); a volume has even "
        "distances. Set data.source.uneven_slices to resample, or split the series where the distance changes."
    )
    (problem,) = find_problems(stack(0, 1, 2, 3, 4, 5, 8, 11, 14))
    assert "(5 of 1.00 mm, 3 of 3.00 mm)" in problem.message


def test_slices_that_wander_sideways_have_no_affine() -> None:
    (problem,) = find_problems([plane(z, shift=(x, 0)) for z, x in ((0, 0), (1, 0.5), (2, 0))])
    assert problem.code == "uneven"
    assert problem.message.endswith("Restore missing slices, or split the series.")  # resampling would not help
    assert codes([plane(z, shift=(x, 0)) for z, x in ((0, 0), (1, 0.5), (2, 1))]) == []  # a sheared stack


@given(count=st.integers(3, 60), data=st.data())
def test_any_slice_that_is_missing_inside_is_noticed(count: int, data: st.DataObject) -> None:
    heights = list(np.arange(count + 1) * 1.25)
    del heights[data.draw(st.integers(1, count - 1))]
    assert codes(stack(*heights)) == ["gap"]


@given(seed=st.integers(0, 2**20), count=st.integers(2, 40))
def test_small_deviations_are_none(seed: int, count: int) -> None:
    noise = np.random.default_rng(seed).uniform(-EVEN_VOXELS, EVEN_VOXELS, count) * 0.4
    assert codes(stack(*(np.arange(count) + noise))) == []


@pytest.mark.parametrize("heights", [(0, 2.5, 5, 12.5, 15), (0, 1, 2.3, 3), (0, 1, 2, 3, 4, 5, 8, 11, 14)])
def test_uneven_slices_can_be_resampled(heights: tuple[float, ...]) -> None:
    planes = stack(*heights)
    assert codes(planes) == [problem.code for problem in find_unevenness(planes)] != []
    assert list(find_problems(planes, resample=True)) == []


def test_the_even_grid_reaches_as_far_as_the_slices() -> None:
    geometry = compute_grid(stack(10, 12.5, 15, 20), count=5)
    assert geometry.shape == (5, 4, 6)
    assert geometry.spacing_mm == (2.5, 0.75, 0.5)
    assert geometry.affine == ((0, 0, -0.5, 20), (0, -0.75, 0, 30), (2.5, 0, 0, 10), (0, 0, 0, 1))


def test_slices_beside_their_line_cannot_be_resampled() -> None:
    (problem,) = find_problems([plane(z, str(z), shift=(x, 0)) for z, x in ((0, 0), (1, 0.5), (4, 0))], resample=True)
    assert problem == (
        "uneven",
        f"{Path('folder/1.dcm')} lies 1.00 pixels beside the line from the first slice to the last, more than 0.2, and "
        "slices are resampled along that line only. Split the series, or move the slice away.",
    )
    sheared = [plane(z, shift=(z / 2, 0)) for z in (0, 1, 4)]
    assert list(find_problems(sheared, resample=True)) == []


def test_slices_almost_in_one_place_are_not_resampled_to_thousands() -> None:
    (problem,) = find_problems(stack(0, 5, 5.01, 10), resample=True)
    assert problem == (
        "uneven",
        f"{Path('folder/001.dcm')} and {Path('folder/002.dcm')} are 0.010 mm apart; even distances of that size make "
        "1000 slices of 4, more than 10 times as many. Move one of the two slices away.",
    )


@pytest.mark.parametrize("code", ["mixed", "unlike", "duplicate"])
def test_other_problems_stay_where_slices_are_resampled(code: str) -> None:
    other = {"mixed": plane(9, series="two"), "unlike": plane(9, size=(9, 9)), "duplicate": plane(5)}[code]
    assert [problem.code for problem in find_problems([plane(0), plane(5), other], resample=True)] == [code]


def test_two_slices_in_one_place() -> None:
    (problem,) = find_problems(stack(0, 5, 10, 5.0005))
    assert problem == (
        "duplicate",
        f"{Path('folder/001.dcm')} and {Path('folder/003.dcm')} lie in the same place: 4 slices are in 3 places. "
        "Expected one slice in each: remove copies, and give every time point, echo or direction a folder of its own.",
    )
    assert codes(stack(0, 0, 5, 5, 10, 10)) == ["duplicate"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (plane(5, "b", size=(4, 8)), "4 x 8 pixels of 0.75 x 0.5 mm along (1, 0, 0, 0, 1, 0)"),
        (plane(5, "b", spacing_mm=(0.75, 0.51)), "4 x 6 pixels of 0.75 x 0.51 mm along (1, 0, 0, 0, 1, 0)"),
        (plane(5, "b", orientation=(0, 1, 0, 0, 0, -1)), "4 x 6 pixels of 0.75 x 0.5 mm along (0, 1, 0, 0, 0, -1)"),
    ],
    ids=["size", "spacing", "orientation"],
)
def test_slices_unlike_each_other(other: Plane, said: str) -> None:
    (problem,) = find_problems([plane(0), other, plane(10)])
    assert problem == (
        "unlike",
        f"{Path('folder/b.dcm')} is {said}, but {Path('folder/a.dcm')} is 4 x 6 pixels of 0.75 x 0.5 mm along (1, 0, "
        "0, 0, 1, 0). Slices of one volume share size, spacing and orientation: move what does not belong here away, "
        "such as a localizer.",
    )


def test_directions_rounded_in_the_last_digit_are_the_same() -> None:
    assert codes([plane(0), plane(5, orientation=(0.999999, 0.00002, 0, 0, 1, 0))]) == []


def test_several_series_are_counted_and_not_identified() -> None:
    files = [("1.2.840.1", Path("in/b")), ("1.2.840.2", Path("in/c")), ("1.2.840.1", Path("in/a"))]
    message = describe_mixed_series(files)
    assert message == (
        f"{Path('in')} holds 2 series: 2 images such as b, 1 image such as c. A volume is one series: move each "
        "into a folder of its own."
    )
    assert describe_mixed_series(files[:1]) is None
    (problem,) = find_problems([plane(0), plane(5, "b", series="two")])
    assert problem.code == "mixed"


def test_the_plainest_problem_comes_alone() -> None:
    assert codes([plane(0), plane(0, series="two", size=(9, 9)), plane(50)]) == ["mixed"]
