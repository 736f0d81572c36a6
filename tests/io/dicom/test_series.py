"""Series in every orientation, written by pydicom: values and places on paper, against highdicom and nibabel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medseg_pl.core.errors import GeometryError, MissingDataError, UnreadableFileError
from medseg_pl.io.dicom.series import (
    find_series_problems,
    open_series,
    read_values,
)
from medseg_pl.io.nifti import write_nifti
from tests.dicom_files import (
    AXIAL,
    CORONAL,
    ORIGIN,
    SAGITTAL,
    SECRET,
    SPACING,
    edit,
    evenly,
    normal_of,
    read_series,
    save_enhanced,
    save_series,
)

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 3000, (5, 4, 6)).astype(np.int16)
Z, Y, X = SPACING


def turned(seed: int) -> tuple[float, ...]:
    """Two perpendicular directions, to the digits that a header holds."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return tuple(float(value) for value in np.round(turn[:2].ravel(), 9))


ORIENTATIONS = {
    "axial": AXIAL,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "reversed": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": turned(1),
    "upside down": turned(4),
}


def to_ras(point: Any) -> np.ndarray:
    return np.asarray(point) * (-1, -1, 1)


class TestPlace:
    @pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
    def test_every_voxel_is_where_its_slice_says(self, tmp_path: Path, orientation: tuple[float, ...]) -> None:
        paths = save_series(tmp_path, STORED, orientation=orientation)
        values, geometry = read_series(sorted(paths))
        np.testing.assert_array_equal(values, STORED[None] - 1024)
        assert geometry.shape == (5, 4, 6)
        np.testing.assert_allclose(geometry.spacing_mm, SPACING)
        for d, h, w in np.ndindex(STORED.shape):
            along_row, down_column = np.reshape(orientation, (2, 3))
            place = ORIGIN + d * Z * normal_of(orientation) + h * Y * down_column + w * X * along_row
            np.testing.assert_allclose((np.array(geometry.affine) @ (d, h, w, 1))[:3], to_ras(place), atol=1e-6)

    @pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
    def test_highdicom_agrees(self, tmp_path: Path, orientation: tuple[float, ...]) -> None:
        paths = save_series(tmp_path, STORED, orientation=orientation)
        values, geometry = read_series(paths)
        volume = highdicom.get_volume_from_series([dcmread(path) for path in paths])
        places = np.array(geometry.affine) * [[-1], [-1], [1], [1]]  # highdicom stays in LPS
        back = np.round(np.linalg.inv(volume.affine) @ places @ np.array([[4, 3, 5, 1], [0, 0, 0, 1]]).T).astype(int)
        for (d, h, w), column in zip([(4, 3, 5), (0, 0, 0)], back.T, strict=True):
            assert values[0, d, h, w] == volume.array[tuple(column[:3])]

    def test_the_files_may_come_in_any_order(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        expected, geometry = read_series(paths)
        for seed in range(3):
            shuffled = [paths[place] for place in np.random.default_rng(seed).permutation(len(paths))]
            values, again = read_series(shuffled)
            np.testing.assert_array_equal(values, expected)
            assert again == geometry

    def test_slices_written_from_head_to_feet_still_follow_their_normal(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED, position=evenly(spacing_mm=-Z))
        values, geometry = read_series(paths)
        np.testing.assert_array_equal(values[0], STORED[::-1] - 1024)
        assert geometry.spacing_mm == SPACING
        np.testing.assert_allclose((np.array(geometry.affine) @ (4, 0, 0, 1))[:3], to_ras(ORIGIN))

    def test_nothing_but_places_decides(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        wrong = {"InstanceNumber": 7, "SliceLocation": 3.0, "SliceThickness": 40.0, "SpacingBetweenSlices": 40.0}
        for path in paths:
            edit(path, **wrong)
        values, geometry = read_series(paths)
        np.testing.assert_array_equal(values[0], STORED - 1024)
        assert geometry.spacing_mm == SPACING

    def test_a_tilted_gantry(self, tmp_path: Path) -> None:
        """Planes lean by 20 degrees while the table moves along z: no voxel is resampled, none is misplaced."""
        lean = np.deg2rad(20)
        orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(lean)), float(np.sin(lean)))
        paths = save_series(tmp_path, STORED, orientation=orientation, position=lambda d: np.add(ORIGIN, (0, 0, d * Z)))
        values, geometry = read_series(paths)
        np.testing.assert_array_equal(values[0], STORED - 1024)
        np.testing.assert_allclose(
            (np.array(geometry.affine) @ (3, 0, 0, 1))[:3], to_ras(np.add(ORIGIN, (0, 0, 3 * Z)))
        )
        np.testing.assert_allclose(geometry.spacing_mm, (Z * np.cos(lean), Y, X))

    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**20))
    def test_nifti_puts_the_voxels_in_the_same_place(self, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
        folder = tmp_path_factory.mktemp("nifti")
        _, geometry = read_series(save_series(folder, STORED, orientation=turned(seed)))
        write_nifti(folder / "a.nii.gz", STORED, geometry)
        image = nibabel.load(folder / "a.nii.gz")
        for d, h, w in ((0, 0, 0), (4, 3, 5), (2, 0, 5)):
            np.testing.assert_allclose(
                image.affine @ (w, h, d, 1),  # type: ignore[attr-defined]
                np.array(geometry.affine) @ (d, h, w, 1),
                atol=1e-4,
            )

    def test_a_single_slice_is_as_thick_as_it_says(self, tmp_path: Path) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        values, geometry = read_series([path])
        assert values.shape == (1, 1, 4, 6)
        assert geometry.spacing_mm == (9.0, Y, X)
        np.testing.assert_allclose((np.array(geometry.affine) @ (1, 0, 0, 1))[:3], to_ras(np.add(ORIGIN, (0, 0, 9))))

    @pytest.mark.parametrize("thickness", [None, "", 0])
    def test_a_single_slice_without_a_thickness_has_no_spacing(self, tmp_path: Path, thickness: Any) -> None:
        (path,) = save_series(tmp_path, STORED[:1], SliceThickness=thickness)
        geometry = open_series([path]).geometry
        assert geometry.spacing_mm is None
        np.testing.assert_allclose((np.array(geometry.affine) @ (0, 1, 1, 1))[:3], to_ras(np.add(ORIGIN, (X, Y, 0))))

    def test_headers_alone_give_the_grid(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        _, geometry = read_series(paths)
        for path in paths:
            edit(path, PixelData=None)
        assert open_series(paths).geometry == geometry


class TestValues:
    @pytest.mark.parametrize(
        ("slope", "intercept", "expected", "kind"),
        [
            (1, -1024, lambda s: s - 1024, np.int16),
            (2, 1, lambda s: s * 2 + 1, np.int16),
            (20, 0, lambda s: s * 20, np.uint16),
            (-20, 0, lambda s: s * -20, np.float32),
            (0.5, -3, lambda s: s * 0.5 - 3, np.float32),
            (1, 0.25, lambda s: s + 0.25, np.float32),
            (None, None, lambda s: s, np.int16),
            ("", "", lambda s: s, np.int16),
        ],
    )
    def test_values_are_rescaled(
        self, tmp_path: Path, slope: Any, intercept: Any, expected: Callable[[Any], Any], kind: type
    ) -> None:
        values, _ = read_series(save_series(tmp_path, STORED, RescaleSlope=slope, RescaleIntercept=intercept))
        assert values.dtype == kind
        np.testing.assert_array_equal(values[0], expected(STORED.astype(np.int64)).astype(kind))

    def test_each_slice_has_its_own_scale(self, tmp_path: Path) -> None:
        """As in PET."""
        slopes = [0.5, 1.5, 2.5, 3.5, 4.5]
        values, _ = read_series(save_series(tmp_path, STORED, RescaleSlope=slopes.__getitem__, RescaleIntercept=0))
        np.testing.assert_array_equal(values[0], STORED * np.reshape(slopes, (-1, 1, 1)).astype(np.float32))

    def test_one_scale_that_is_not_whole_makes_all_slices_real(self, tmp_path: Path) -> None:
        values, _ = read_series(
            save_series(tmp_path, STORED, RescaleSlope=lambda d: 0.5 if d == 2 else 1, RescaleIntercept=0)
        )
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values[0, 2], STORED[2] * np.float32(0.5))
        np.testing.assert_array_equal(values[0, 3], STORED[3])

    def test_unsigned_values_beyond_15_bits(self, tmp_path: Path) -> None:
        stored = RNG.integers(0, 65536, (3, 4, 6)).astype(np.uint16)
        values, _ = read_series(save_series(tmp_path, stored, RescaleIntercept=0))
        assert values.dtype == np.uint16
        np.testing.assert_array_equal(values[0], stored)

    @pytest.mark.parametrize("kind", [np.uint8, np.int8])
    def test_eight_bits(self, tmp_path: Path, kind: type) -> None:
        stored = RNG.integers(0, 256, (3, 4, 6)).astype(np.uint8).view(kind)
        values, _ = read_series(save_series(tmp_path, stored, RescaleIntercept=0))
        np.testing.assert_array_equal(values[0], stored)

    @pytest.mark.parametrize("signed", [0, 1])
    def test_bits_that_do_not_count_are_left_out(self, tmp_path: Path, signed: int) -> None:
        """12 bits of 16, with something else in the upper four (old files keep overlays there)."""
        stored = RNG.integers(0, 65536, (3, 4, 6)).astype(np.uint16)
        paths = save_series(tmp_path, stored, BitsStored=12, HighBit=11, PixelRepresentation=signed, RescaleIntercept=0)
        values, _ = read_series(paths)
        expected = (stored % 4096).astype(np.int64)
        np.testing.assert_array_equal(values[0], np.where(signed & (expected >= 2048), expected - 4096, expected))

    @pytest.mark.parametrize(
        ("signed", "expected"),
        [(0, lambda s: 4095 - s - 1024), (1, lambda s: -1 - s - 1024)],
        ids=["unsigned", "signed"],
    )
    def test_small_and_bright_becomes_large_and_bright(
        self, tmp_path: Path, signed: int, expected: Callable[[Any], Any]
    ) -> None:
        """Mirrored in the stored range, 0 … 4095 or -2048 … 2047, and only then rescaled."""
        stored = (STORED - 1500 * signed).clip(-2048 * signed, 4095 - 2048 * signed)
        paths = save_series(
            tmp_path,
            stored.astype(np.int16 if signed else np.uint16),
            BitsStored=12,
            HighBit=11,
            PhotometricInterpretation="MONOCHROME1",
        )
        values, _ = read_series(paths)
        np.testing.assert_array_equal(values[0], expected(stored.astype(np.int64)))

    def test_pixels_of_pydicom_itself(self) -> None:
        path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
        values, geometry = read_series([path])
        np.testing.assert_array_equal(values[0, 0], dcmread(path).pixel_array.astype(np.int64) - 1024)
        assert geometry.spacing_mm == (5.0, 0.661468, 0.661468)


class TestEnhanced:
    def test_a_file_of_many_frames_is_the_same_volume(self, tmp_path: Path) -> None:
        expected, geometry = read_series(save_series(tmp_path / "single", STORED))
        path = save_enhanced(tmp_path / "many.dcm", STORED, order=[3, 0, 4, 1, 2])
        values, again = read_series([path])
        np.testing.assert_array_equal(values, expected)
        assert again == geometry

    def test_each_frame_has_its_own_scale(self, tmp_path: Path) -> None:
        slopes = [0.5, 1.5, 2.5, 3.5, 4.5]
        path = save_enhanced(tmp_path / "many.dcm", STORED, order=[3, 0, 4, 1, 2], slopes=slopes)
        np.testing.assert_array_equal(
            read_series([path])[0][0], STORED * np.reshape(slopes, (-1, 1, 1)).astype(np.float32) - 1024
        )

    def test_two_files_may_share_a_volume(self, tmp_path: Path) -> None:
        first = save_enhanced(tmp_path / "a.dcm", STORED[:2])
        second = save_enhanced(tmp_path / "b.dcm", STORED[2:], position=lambda d: evenly()(d + 2))
        np.testing.assert_array_equal(read_series([second, first])[0][0], STORED - 1024)

    def test_frames_in_one_place_are_named(self, tmp_path: Path) -> None:
        path = save_enhanced(tmp_path / "many.dcm", STORED, position=lambda d: evenly()(d % 3))
        with pytest.raises(GeometryError, match=r"many\.dcm and .*many\.dcm, image 4, lie in the same place: 5 slices"):
            read_series([path])

    def test_a_frame_without_a_place(self, tmp_path: Path) -> None:
        path = save_enhanced(tmp_path / "many.dcm", STORED)
        dataset = dcmread(path)
        del dataset.PerFrameFunctionalGroupsSequence[-1]
        dataset.save_as(path)
        with pytest.raises(UnreadableFileError, match=r"many\.dcm holds 5 images and the places of 4\. Export it"):
            read_series([path])

    def test_many_frames_without_any_place(self, tmp_path: Path) -> None:
        path = save_enhanced(tmp_path / "many.dcm", STORED)
        edit(path, PerFrameFunctionalGroupsSequence=None)
        with pytest.raises(UnreadableFileError, match=r"many\.dcm holds 5 images and the places of 1\. Export it"):
            read_series([path])


class TestResampled:
    """4 stored slices at 0, 2.5, 5 and 10 mm."""

    HEIGHTS = (0, 2.5, 5, 10)

    @pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
    def test_every_even_voxel_is_where_it_is_seen(self, tmp_path: Path, orientation: tuple[float, ...]) -> None:
        """The image is a ramp along the normal, so each value tells its height."""
        ramp = np.broadcast_to(np.reshape(self.HEIGHTS, (4, 1, 1)) * 10, (4, 4, 6)).astype(np.int16)
        paths = save_series(
            tmp_path, ramp, orientation=orientation, position=lambda d: self.place(d, orientation), RescaleIntercept=0
        )
        series = open_series(sorted(paths), resample=True)
        values = read_values(series)
        assert series.geometry.shape == values.shape == (5, 4, 6)
        assert values.dtype == np.int16
        np.testing.assert_allclose(series.geometry.spacing_mm, SPACING)
        for d, h, w in np.ndindex(values.shape):
            place = to_ras((np.array(series.geometry.affine) @ (d, h, w, 1))[:3])
            height = (place - ORIGIN) @ normal_of(orientation)
            assert values[d, h, w] == pytest.approx(10 * height, abs=1e-4)

    def place(self, d: int, orientation: tuple[float, ...]) -> np.ndarray:
        return np.add(ORIGIN, self.HEIGHTS[d] * normal_of(orientation))

    def test_an_enhanced_file_is_resampled_too(self, tmp_path: Path) -> None:
        path = save_enhanced(tmp_path / "many.dcm", STORED[:4], position=lambda d: self.place(d, AXIAL))
        series = open_series([path], resample=True)
        values = read_values(series)
        np.testing.assert_array_equal(values[[0, 1, 2, 4]], STORED[:4] - 1024)
        np.testing.assert_array_equal(values[3], np.rint(STORED[2:4].mean(axis=0) - 1024))

    def test_an_even_series_is_as_it_was(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        series = open_series(paths, resample=True)
        assert (series.resampling, series.unevenness) == (None, ())
        assert series.geometry == open_series(paths).geometry
        np.testing.assert_array_equal(read_values(series), STORED - 1024)

    def test_a_missing_slice_is_filled_and_told(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        series = open_series([*paths[:2], *paths[3:]], resample=True)
        assert [problem.code for problem in series.unevenness] == ["gap"]
        values = read_values(series)
        np.testing.assert_array_equal(values[[0, 1, 3, 4]], STORED[[0, 1, 3, 4]] - 1024)
        np.testing.assert_array_equal(values[2], np.rint((STORED[1].astype(float) + STORED[3]) / 2 - 1024))


class TestRefused:
    def test_a_missing_slice(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        paths[3].unlink()
        with pytest.raises(GeometryError) as error:
            read_series([path for path in paths if path.exists()])
        assert str(error.value) == (
            f"{paths[2]} and {paths[4]} are 5.00 mm apart, other slices of this series 2.50 mm: 1 slice between "
            "them seems to be missing. Restore them, move the series away, or set data.source.uneven_slices to "
            "resample, which interpolates them."
        )

    def test_two_series_in_a_folder(self, tmp_path: Path) -> None:
        save_series(tmp_path, STORED)
        save_series(tmp_path, STORED[:1], series="scout", names=["scout.dcm"])
        with pytest.raises(GeometryError) as error:
            read_series(sorted(tmp_path.iterdir()))
        assert str(error.value) == (
            f"{tmp_path} holds 2 series: 5 images such as IM001.dcm, 1 image such as scout.dcm. A volume is one "
            "series: move each into a folder of its own."
        )

    def test_a_copy_of_a_slice(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
        with pytest.raises(GeometryError, match=r"lie in the same place: 6 slices are in 5 places\. Expected one"):
            read_series(sorted(tmp_path.iterdir()))

    @pytest.mark.parametrize(
        "element",
        [{"PixelSpacing": [0.75, 0.6]}, {"ImageOrientationPatient": list(SAGITTAL)}],
        ids=["spacing", "orientation"],
    )
    def test_a_slice_of_another_kind(self, tmp_path: Path, element: dict[str, Any]) -> None:
        paths = save_series(tmp_path, STORED)
        edit(paths[2], **element)
        with pytest.raises(GeometryError, match=r"IM003\.dcm is 4 x 6 pixels .* share size, spacing and orientation"):
            read_series(paths)

    def test_a_slice_of_another_size(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        save_series(tmp_path, STORED[:1, :3], position=lambda d: evenly()(2), names=[paths[2].name])
        with pytest.raises(GeometryError, match=r"IM003\.dcm is 3 x 6 pixels of .*, but .*IM005\.dcm is 4 x 6 pixels"):
            read_series(paths)

    @pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows"])
    def test_what_a_header_lacks_is_named(self, tmp_path: Path, keyword: str) -> None:
        paths = save_series(tmp_path, STORED, **{keyword: None})
        with pytest.raises(UnreadableFileError) as error:
            read_series(paths)
        assert str(error.value) == (
            f"{paths[0]} has no {keyword}, without which it cannot be read. Export it again as a whole."
        )

    @pytest.mark.parametrize(
        ("element", "said"),
        [
            ({"PixelSpacing": [0.5, 0.0]}, r"PixelSpacing \(0\.5, 0\.0\); expected"),
            ({"PixelSpacing": [0.5, -1.0]}, r"PixelSpacing \(0\.5, -1\.0\); expected"),
            ({"PixelSpacing": [0.5]}, r"has 1 number \(0\.5,\) in PixelSpacing; expected 2, each less than"),
            ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "expected two unit vectors at a right angle"),
            ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "expected two unit vectors at a right angle"),
            ({"ImagePositionPatient": ["nan", "0", "0"]}, r"in ImagePositionPatient; expected 3, each less than"),
            ({"ImagePositionPatient": ["1e30", "0", "0"]}, r"in ImagePositionPatient; expected 3, each less than"),
            ({"RescaleSlope": 0}, r"has the rescale slope 0\.0 and intercept -1024\.0; expected numbers of less"),
            ({"RescaleIntercept": "inf"}, r"has the rescale slope 1\.0 and intercept inf; expected numbers of less"),
            ({"PhotometricInterpretation": "RGB"}, "holds pixels of the kind RGB; expected MONOCHROME1 or MONOCHROME2"),
            ({"SamplesPerPixel": 3}, r"with 3 values of 16 bits each; .* Convert colors to gray"),
            ({"ModalityLUTSequence": []}, r"by a table \(ModalityLUTSequence\), which is not read"),
        ],
    )
    def test_what_a_header_cannot_mean_is_said(self, tmp_path: Path, element: dict[str, Any], said: str) -> None:
        paths = save_series(tmp_path, STORED[:3])
        for path in paths:
            edit_raw(path, **element)
        with pytest.raises(UnreadableFileError, match=said):
            read_series(paths)

    def test_more_slices_than_memory(self, tmp_path: Path) -> None:
        series = open_series(save_series(tmp_path, STORED))
        object.__setattr__(series.geometry, "shape", (2000, 2000, 2000))
        with pytest.raises(UnreadableFileError, match="claims more than 4,000,000,000 voxels and is not decoded"):
            read_values(series)

    def test_files_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"none\.dcm does not exist"):
            read_series([tmp_path / "none.dcm"])

    def test_nobody_is_named(self, tmp_path: Path) -> None:
        """Whatever is wrong with a series, its errors hold nothing of the header that could tell who was scanned."""
        paths = save_series(tmp_path, STORED)
        save_series(tmp_path, STORED[:1], series="scout", names=["scout.dcm"])
        edit(paths[1], ImagePositionPatient=None)
        edit(paths[2], PixelData=b"")
        messages = [problem.message for problem in find_series_problems(sorted(tmp_path.iterdir()))]
        assert [problem.code for problem in find_series_problems(sorted(tmp_path.iterdir()))] == [
            "unreadable",
            "mixed",
        ]
        assert not any(SECRET in message or "1.2.826" in message for message in messages)


class TestProblems:
    def test_a_good_series_has_none(self, tmp_path: Path) -> None:
        assert find_series_problems(save_series(tmp_path, STORED)) == []

    def test_every_unreadable_file_is_one_and_the_rest_is_looked_at(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED)
        paths[1].write_bytes(b"")
        paths[4].write_bytes(b"text")
        problems = find_series_problems(paths)
        assert [problem.code for problem in problems] == ["unreadable", "unreadable", "gap"]
        assert str(paths[1]) in problems[0].message
        assert str(paths[4]) in problems[1].message

    def test_no_pixel_is_needed(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path, STORED, position=lambda d: evenly()(d + (d > 1)))
        for path in paths:
            edit(path, PixelData=None)
        assert [problem.code for problem in find_series_problems(paths)] == ["gap"]


def edit_raw(path: Path, **elements: Any) -> None:
    """Values that pydicom would not write by itself."""
    from pydicom import config

    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        edit(path, **elements)
    finally:
        config.settings.writing_validation_mode = mode
