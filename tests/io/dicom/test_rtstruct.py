"""RTSTRUCT: contours in millimeters become pixels, counted on paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from medseg_pl.core.errors import GeometryError, UnreadableFileError
from medseg_pl.io.dicom.references import read_contours, read_regions
from medseg_pl.io.dicom.series import Series, open_series
from tests.dicom_files import AXIAL, CORONAL, ORIGIN, SECRET, SPACING, edit, normal_of, save_series, save_structures

SHAPE = (4, 12, 15)
STORED = np.zeros(SHAPE, np.int16)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return open_series(save_series(tmp_path / "ct", STORED))


def to_mm(corners: Sequence[Sequence[float]], d: float, orientation: Sequence[float] = AXIAL) -> np.ndarray:
    """Rows and columns on slice d, in the scanner's millimeters."""
    along_row, down_column = np.reshape(orientation, (2, 3))
    z, y, x = SPACING
    rows, columns = np.asarray(corners, float).T
    return ORIGIN + d * z * normal_of(orientation) + rows[:, None] * y * down_column + columns[:, None] * x * along_row


def box(top: float, left: float, bottom: float, right: float, d: float = 1, **options: Any) -> np.ndarray:
    return to_mm([(top, left), (top, right), (bottom, right), (bottom, left)], d, **options)


def filled(*boxes: tuple[int, int, int, int], d: int = 1) -> np.ndarray:
    """The pixels of a slice from the first row and column to the last, both included."""
    mask = np.zeros(SHAPE, bool)
    for top, left, bottom, right in boxes:
        mask[d, top : bottom + 1, left : right + 1] ^= True
    return mask


def read_one(path: Path, series: Series, *numbers: int) -> np.ndarray:
    (mask,) = read_contours(path, [list(numbers) or [1]], series)
    return mask


class TestMasks:
    @pytest.mark.parametrize("orientation", [AXIAL, CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
    def test_a_box_in_any_orientation(self, tmp_path: Path, orientation: tuple[float, ...]) -> None:
        series = open_series(save_series(tmp_path / "ct", STORED, orientation=orientation))
        corners = box(1.5, 2.5, 4.5, 8.5, d=2, orientation=orientation)
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [corners]})
        np.testing.assert_array_equal(read_one(path, series), filled((2, 3, 4, 8), d=2))

    def test_contours_on_several_slices(self, tmp_path: Path, series: Series) -> None:
        contours = [box(1.5, 2.5, 4.5, 8.5, d=3), box(0.5, 0.5, 2.5, 2.5, d=0)]
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": contours})
        expected = filled((2, 3, 4, 8), d=3) | filled((1, 1, 2, 2), d=0)
        np.testing.assert_array_equal(read_one(path, series), expected)

    def test_a_hole_and_an_island_in_it(self, tmp_path: Path, series: Series) -> None:
        contours = [box(0.5, 0.5, 10.5, 10.5), box(2.5, 2.5, 8.5, 8.5), box(4.5, 4.5, 6.5, 6.5)]
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": contours})
        mask = read_one(path, series)
        assert mask.sum() == 100 - 36 + 4
        np.testing.assert_array_equal(mask, filled((1, 1, 10, 10), (3, 3, 8, 8), (5, 5, 6, 6)))

    def test_the_newer_name_of_contours_with_holes(self, tmp_path: Path, series: Series) -> None:
        contours = [box(0.5, 0.5, 10.5, 10.5), box(2.5, 2.5, 8.5, 8.5)]
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": contours}, kind="CLOSEDPLANAR_XOR")
        assert read_one(path, series).sum() == 100 - 36

    def test_regions_are_united_and_make_no_holes_in_each_other(self, tmp_path: Path, series: Series) -> None:
        regions = {"outer": [box(0.5, 0.5, 10.5, 10.5)], "inner": [box(2.5, 2.5, 8.5, 12.5)]}
        path = save_structures(tmp_path / "rt.dcm", "series", regions)
        first, second = filled((1, 1, 10, 10)), filled((3, 3, 8, 12))
        np.testing.assert_array_equal(read_one(path, series, 1, 2), first | second)
        for mask, expected in zip(
            read_contours(path, [[2], [], [1]], series), [second, first & False, first], strict=True
        ):
            np.testing.assert_array_equal(mask, expected)

    def test_a_triangle_has_the_area_and_center_of_a_triangle(self, tmp_path: Path) -> None:
        """100 x 80 mm at 0.5 x 0.75 mm; its center is the mean of its corners."""
        series = open_series(save_series(tmp_path / "ct", np.zeros((1, 200, 250), np.int16)))
        corners = np.add(
            [[0.0, 0.0, 40.0], [100.0, 0.0, 40.0], [0.0, 80.0, 40.0]], (-10.25, -19.875, 0)
        )  # between centers
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [corners]})
        _, rows, columns = np.nonzero(read_one(path, series))
        assert len(rows) * 0.5 * 0.75 == pytest.approx(4000, rel=5e-3)
        center_mm = np.array([columns.mean() * 0.5, rows.mean() * 0.75]) + ORIGIN[:2]
        np.testing.assert_allclose(center_mm, corners.mean(axis=0)[:2], atol=0.1)

    @pytest.mark.parametrize("away_mm", [-0.6, -0.01, 0.3, 0.6])
    def test_a_contour_near_a_slice_is_on_it(self, tmp_path: Path, series: Series, away_mm: float) -> None:
        """Up to a quarter of the 2.5 mm to the next slice."""
        contour = np.add(box(1.5, 2.5, 4.5, 8.5, d=1), (0, 0, away_mm))
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [contour]})
        np.testing.assert_array_equal(read_one(path, series), filled((2, 3, 4, 8)))

    def test_what_lies_outside_the_image_is_cut_off(self, tmp_path: Path, series: Series) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"body": [box(-50, -50, 5.5, 50)]})
        np.testing.assert_array_equal(read_one(path, series), filled((0, 0, 5, 14)))

    @pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
    def test_points_and_lines_enclose_nothing(self, tmp_path: Path, series: Series, kind: str) -> None:
        regions = {"liver": [box(0.5, 0.5, 10.5, 10.5)]}
        path = save_structures(tmp_path / "rt.dcm", "series", regions)
        dataset = dcmread(path)
        other = Dataset()
        other.ContourGeometricType, other.ContourData = kind, ["0", "0", "999"]  # on no slice, and nobody minds
        dataset.ROIContourSequence[0].ContourSequence.append(other)
        dataset.save_as(path)
        assert read_one(path, series).sum() == 100


class TestNames:
    def test_regions_have_numbers_and_names(self, tmp_path: Path) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"Liver ": [box(1, 1, 2, 2)], "GTV-1": [box(1, 1, 2, 2)]})
        assert read_regions(path) == [(1, "Liver"), (2, "GTV-1")]

    def test_regions_that_nobody_drew_are_none(self, tmp_path: Path) -> None:
        """Planning systems write the names of their templates, drawn or not."""
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [box(1, 1, 2, 2)], "heart": []})
        assert read_regions(path) == [(1, "liver")]
        save_structures(tmp_path / "points.dcm", "series", {"isocenter": [np.zeros((1, 3))]}, kind="POINT")
        assert read_regions(tmp_path / "points.dcm") == []
        assert read_regions(edit(path, ROIContourSequence=None)) == []


class TestRefused:
    @pytest.mark.parametrize(("d", "away"), [(1.5, "1.25"), (1.3, "0.75"), (4, "2.50"), (-1, "2.50")])
    def test_a_contour_on_no_slice(self, tmp_path: Path, series: Series, d: float, away: str) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [box(1, 1, 2, 2), box(1, 1, 2, 2, d=d)]})
        nearest = series.planes[min(max(int(d), 0), 3)].path
        with pytest.raises(GeometryError) as error:
            read_one(path, series)
        assert str(error.value) == (
            f"{path}, region 'liver', contour 2, lies up to {away} mm from the nearest slice, {nearest}; expected at "
            "most 0.62 mm. Restore missing slices, or move the contours away if they are of another series."
        )

    def test_a_contour_that_leaves_its_slice(self, tmp_path: Path, series: Series) -> None:
        contour = box(1.5, 2.5, 4.5, 8.5)
        contour[2, 2] += 1.0
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [contour]})
        with pytest.raises(GeometryError, match=r"region 'liver', contour 1, lies up to 1\.00 mm from the nearest"):
            read_one(path, series)

    def test_a_region_nobody_asked_for_may_lie_anywhere(self, tmp_path: Path, series: Series) -> None:
        regions = {"liver": [box(0.5, 0.5, 10.5, 10.5)], "couch": [box(1, 1, 2, 2, d=40)]}
        assert read_one(save_structures(tmp_path / "rt.dcm", "series", regions), series).sum() == 100

    @pytest.mark.parametrize("data", [[], ["1", "2"], ["1", "2", "3", "4"], ["1", "2", "nan"], ["1", "2", "1e30"]])
    def test_coordinates_that_are_no_points(self, tmp_path: Path, series: Series, data: list[str]) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [box(1, 1, 2, 2)]})
        dataset = dcmread(path)
        dataset.ROIContourSequence[0].ContourSequence[0].ContourData = data
        dataset.save_as(path)
        with pytest.raises(UnreadableFileError) as error:
            read_one(path, series)
        assert str(error.value) == (
            f"{path}, region 'liver', contour 1, has {len(data)} coordinates; expected three for each point, each less "
            "than 1e+06 mm. Export the structures again."
        )

    def test_contours_of_no_region(self, tmp_path: Path) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [box(1, 1, 2, 2)]})
        dataset = dcmread(path)
        del dataset.ROIContourSequence[0].ReferencedROINumber
        dataset.save_as(path)
        with pytest.raises(UnreadableFileError, match=r"rt\.dcm has no ReferencedROINumber, without which it cannot"):
            read_regions(path)

    def test_nobody_is_named(self, tmp_path: Path, series: Series) -> None:
        path = save_structures(tmp_path / "rt.dcm", "series", {"liver": [box(1, 1, 2, 2, d=9)]})
        with pytest.raises(GeometryError) as error:
            read_one(path, series)
        assert SECRET not in str(error.value)
        assert "1.2.826" not in str(error.value)
