"""What is written as DICOM SEG, as three readers see it: ours, highdicom's, and pydicom frame by frame."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from medseg_pl import __version__
from medseg_pl.core.errors import DataError, OutputExistsError, SettingError
from medseg_pl.io.dicom.references import read_masks, read_structures
from medseg_pl.io.dicom.seg_writer import Segment, write_segmentation
from medseg_pl.io.dicom.series import Series, open_series
from tests.dicom_files import SAGITTAL, SECRET, edit, evenly, save_enhanced, save_series, uid_of

SHAPE = (4, 5, 7)  # 35 bits to a frame: frames do not begin on a byte
STORED = np.zeros(SHAPE, np.int16)
OBLIQUE = (0.8, 0.36, -0.48, 0.0, 0.8, 0.6)
ORGANS = [Segment("liver"), Segment("spleen")]


def one_file_each(folder: Path, **options: Any) -> list[Path]:
    return save_series(folder, STORED, **options)


def shuffled(folder: Path) -> list[Path]:
    files = one_file_each(folder)
    random.Random(0).shuffle(files)
    return files


def sheared(folder: Path) -> list[Path]:
    """With the gantry tilted, each slice begins a little lower."""
    return one_file_each(folder, position=lambda d: np.add(evenly()(d), (0, 0.5 * d, 0)))


LAYOUTS: dict[str, Callable[[Path], list[Path]]] = {
    "axial": one_file_each,
    "shuffled": shuffled,
    "sagittal": lambda folder: one_file_each(folder, orientation=SAGITTAL),
    "oblique": lambda folder: one_file_each(folder, orientation=OBLIQUE),
    "sheared": sheared,
    "one slice": lambda folder: save_series(folder, STORED[:1]),
    "no thickness": lambda folder: one_file_each(folder, SliceThickness=None),
    "one slice, no thickness": lambda folder: save_series(folder, STORED[:1], SliceThickness=None),
    "enhanced": lambda folder: [save_enhanced(folder / "all.dcm", STORED, order=[2, 0, 3, 1])],
    "enhanced, oblique": lambda folder: [save_enhanced(folder / "all.dcm", STORED, orientation=OBLIQUE)],
    "enhanced, one slice": lambda folder: [save_enhanced(folder / "all.dcm", STORED[:1])],
}


def overlapping(depth: int = SHAPE[0]) -> np.ndarray:
    mask = (np.random.default_rng(0).random((2, depth, *SHAPE[1:])) > 0.5).astype(np.uint8)
    assert (mask.sum(axis=0) == 2).any()
    return mask


def exclusive(depth: int = SHAPE[0]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (1, depth, *SHAPE[1:])).astype(np.uint8)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return open_series(one_file_each(tmp_path / "ct"))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("make", [overlapping, exclusive])
def test_three_readers_find_the_mask_on_its_slices(
    tmp_path: Path, layout: Callable[[Path], list[Path]], make: Callable[[int], np.ndarray]
) -> None:
    series = open_series(layout(tmp_path / "in"))
    mask = make(len(series.planes))
    planes = mask == 1 if len(mask) == 2 else np.concatenate([mask == 1, mask == 2])
    path = tmp_path / "out" / "seg.dcm"
    write_segmentation(path, mask, ORGANS, series)
    assert read_structures(path) == [(1, "liver"), (2, "spleen")]
    np.testing.assert_array_equal(read_masks(path, [[1], [2]], series), planes)
    np.testing.assert_array_equal(as_highdicom_reads(path, series), planes)
    np.testing.assert_array_equal(frame_by_frame(path, series), planes)
    assert dcmread(path).SegmentsOverlap == ("YES" if len(mask) == 2 else "NO")


def as_highdicom_reads(path: Path, series: Series) -> np.ndarray:
    """Masks `(N, D, H, W)`, by the instances or frames that they refer to."""
    file = highdicom.seg.segread(path)
    first = dcmread(series.planes[0].path)
    if "PerFrameFunctionalGroupsSequence" in first:
        frames = [plane.frame + 1 for plane in series.planes]
        found = file.get_pixels_by_source_frame(first.SOPInstanceUID, frames, assert_missing_frames_are_empty=True)
    else:
        instances = [dcmread(plane.path).SOPInstanceUID for plane in series.planes]
        found = file.get_pixels_by_source_instance(instances, assert_missing_frames_are_empty=True)
    return np.moveaxis(found, -1, 0)


def frame_by_frame(path: Path, series: Series) -> np.ndarray:
    """Masks `(N, D, H, W)`; each frame lies where the image that it refers to does."""
    dataset = dcmread(path)
    masks = np.zeros((len(dataset.SegmentSequence), *series.geometry.shape), bool)
    slices = {
        (dcmread(plane.path).SOPInstanceUID, plane.frame): (d, plane.position_mm)
        for d, plane in enumerate(series.planes)
    }
    frames = np.reshape(dataset.pixel_array, (-1, *SHAPE[1:]))
    for pixels, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        d, position_mm = slices[source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber") or 1) - 1]
        assert group.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(position_mm, abs=1e-9)
        masks[segment_of(group, dataset) - 1, d] = pixels
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == pytest.approx(series.planes[0].orientation)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(series.planes[0].spacing_mm)
    return masks


def segment_of(group: Dataset, dataset: Dataset) -> int:
    holder = group if "SegmentIdentificationSequence" in group else dataset.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def test_nothing_found_is_said_of_every_slice(tmp_path: Path, series: Series) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, np.zeros((2, *SHAPE), np.uint8), ORGANS, series)
    assert dcmread(path).NumberOfFrames == 8
    for found in (read_masks(path, [[1], [2]], series), as_highdicom_reads(path, series), frame_by_frame(path, series)):
        np.testing.assert_array_equal(found, np.zeros((2, *SHAPE), bool))


def test_empty_frames_beside_others_are_left_out(tmp_path: Path, series: Series) -> None:
    mask = np.zeros((2, *SHAPE), np.uint8)
    mask[1, 2, 1:3, 4] = 1
    write_segmentation(tmp_path / "seg.dcm", mask, ORGANS, series)
    assert dcmread(tmp_path / "seg.dcm").NumberOfFrames == 1
    assert read_structures(tmp_path / "seg.dcm") == [(1, "liver"), (2, "spleen")]
    for found in (
        read_masks(tmp_path / "seg.dcm", [[1], [2]], series),
        as_highdicom_reads(tmp_path / "seg.dcm", series),
        frame_by_frame(tmp_path / "seg.dcm", series),
    ):
        np.testing.assert_array_equal(found, mask == 1)


def test_it_refers_to_its_series_as_a_whole(tmp_path: Path, series: Series) -> None:
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 1] = 1
    write_segmentation(tmp_path / "seg.dcm", mask, [Segment("liver")], series)
    dataset = dcmread(tmp_path / "seg.dcm")
    (named,) = dataset.ReferencedSeriesSequence
    assert named.SeriesInstanceUID == uid_of("series")
    assert [item.ReferencedSOPInstanceUID for item in named.ReferencedInstanceSequence] == [
        uid_of("series", number) for number in (4, 3, 2, 1)
    ]
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == (uid_of("study"), uid_of("space"))
    assert dataset.SegmentationType == "BINARY"
    assert dataset.SeriesInstanceUID != uid_of("series")


class TestRepeated:
    def written(self, path: Path, series: Series, mask: np.ndarray, segments: list[Segment] = ORGANS) -> Dataset:
        write_segmentation(path, mask, segments, series)
        return dcmread(path)

    def test_the_same_mask_gives_the_same_bytes(self, tmp_path: Path, series: Series) -> None:
        for name in ("first", "again"):
            self.written(tmp_path / name, series, overlapping())
        assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()

    def test_another_file_has_other_identifiers(self, tmp_path: Path, series: Series) -> None:
        changed = overlapping()
        changed[0, 0, 0, 0] ^= 1
        other = open_series(one_file_each(tmp_path / "other", series="other"))
        named = [Segment("liver"), Segment("kidney")]
        files = [
            self.written(tmp_path / "1", series, overlapping()),
            self.written(tmp_path / "2", series, changed),
            self.written(tmp_path / "3", other, overlapping()),
            self.written(tmp_path / "4", series, overlapping(), named),
        ]
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
            assert len({file[keyword].value for file in files}) == len(files)
        identifiers = [files[0].SOPInstanceUID, files[0].SeriesInstanceUID]
        identifiers += [item.DimensionOrganizationUID for item in files[0].DimensionIndexSequence[:1]]
        assert len(set(identifiers)) == 3
        assert all(identifier.is_valid for identifier in identifiers)
        assert files[0].file_meta.MediaStorageSOPInstanceUID == files[0].SOPInstanceUID
        assert {item.DimensionOrganizationUID for item in files[0].DimensionIndexSequence} == {
            files[0].DimensionOrganizationSequence[0].DimensionOrganizationUID
        }

    @pytest.mark.parametrize(
        ("elements", "expected"),
        [
            ({}, ("19000101", "000000")),
            ({"StudyDate": "20240501"}, ("20240501", "000000")),
            (
                {"StudyDate": "20240501", "StudyTime": "1", "AcquisitionDate": "20240502", "AcquisitionTime": "103000"},
                ("20240502", "103000"),
            ),
        ],
    )
    def test_its_date_is_that_of_the_images(
        self, tmp_path: Path, elements: dict[str, str], expected: tuple[str, str]
    ) -> None:
        series = open_series(one_file_each(tmp_path / "ct", **elements))
        dataset = self.written(tmp_path / "seg.dcm", series, overlapping())
        assert (dataset.ContentDate, dataset.ContentTime) == expected
        keywords = {element.keyword for element in dataset.iterall()}
        assert not keywords & {"InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime"}


class TestMeaning:
    def test_an_organ_unless_it_is_said_otherwise(self, tmp_path: Path, series: Series) -> None:
        tumour = Segment(
            "Tumor-Rückstand",
            category=("49755003", "SCT", "Morphologically Abnormal Structure"),
            type=("108369006", "SCT", "Neoplasm"),
        )
        write_segmentation(tmp_path / "seg.dcm", overlapping(), [Segment("liver"), tumour], series)
        liver, other = highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence
        assert (liver.segmented_property_category.meaning, liver.segmented_property_type.meaning) == (
            "Anatomical Structure",
            "Organ",
        )
        assert other.segment_label == "Tumor-Rückstand"
        assert (other.segmented_property_type.value, other.segmented_property_type.scheme_designator) == (
            "108369006",
            "SCT",
        )
        assert other.segmented_property_category.value == "49755003"

    def test_who_drew_it(self, tmp_path: Path, series: Series) -> None:
        write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, series)
        dataset = dcmread(tmp_path / "seg.dcm")
        for segment in dataset.SegmentSequence:
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("medseg", __version__)
        assert (dataset.Manufacturer, dataset.SoftwareVersions) == ("medseg", __version__)


class TestPatient:
    @pytest.mark.parametrize(
        ("characters", "name"),
        [("ISO_IR 100", "Mürrisch^Jürgen"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("ISO_IR 192", "Ω^Ж")],
    )
    def test_it_belongs_to_its_patient_in_any_script(self, tmp_path: Path, characters: Any, name: str) -> None:
        elements = {"SpecificCharacterSet": characters, "PatientName": name, "StudyID": "7", "PatientSex": "F"}
        more = {"PatientBirthDate": "19700102", "PatientAge": "054Y", "AccessionNumber": "A1"}
        series = open_series(one_file_each(tmp_path / "ct", **elements, **more))
        write_segmentation(tmp_path / "seg.dcm", overlapping(), [Segment("Ł"), Segment("Leber")], series)
        dataset = dcmread(tmp_path / "seg.dcm")
        assert str(dataset.PatientName) == name
        assert {key: dataset[key].value for key in more} == more
        assert (dataset.StudyID, dataset.PatientSex, dataset.PatientID) == ("7", "F", f"{SECRET}-ID")
        assert read_structures(tmp_path / "seg.dcm")[0].name == "Ł"

    def test_what_was_taken_out_stays_out(self, tmp_path: Path) -> None:
        gone = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID", "AccessionNumber")
        series = open_series(one_file_each(tmp_path / "ct", **dict.fromkeys(gone)))
        write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, series)
        dataset = highdicom.seg.segread(tmp_path / "seg.dcm")
        assert all(dataset[keyword].is_empty for keyword in gone)  # they must be there, and may be empty

    def test_odd_values_are_kept_and_told_nobody(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Values that break a rule of the standard must not end a prediction, nor be printed."""
        odd = {"PatientSex": f"{SECRET} x", "PatientBirthDate": "1970", "PatientAge": SECRET, "PatientName": SECRET}
        files = one_file_each(tmp_path / "ct")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for file in files:
                edit(file, **odd)
        caplog.set_level(logging.DEBUG)
        write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, open_series(files))
        dataset = dcmread(tmp_path / "seg.dcm")
        assert {key: str(dataset[key].value) for key in odd} == odd
        assert SECRET not in caplog.text
        assert capsys.readouterr() == ("", "")

    def test_nothing_else_of_the_headers_is_taken_over(self, tmp_path: Path) -> None:
        more = {"OperatorsName": f"{SECRET}^OPERATOR", "InstitutionName": f"{SECRET} house", "StationName": SECRET}
        series = open_series(one_file_each(tmp_path / "ct", **more))
        write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, series)
        content = (tmp_path / "seg.dcm").read_bytes()
        assert content.count(SECRET.encode()) == 2
        assert f"{SECRET}^NAME".encode() in content
        assert f"{SECRET}-ID".encode() in content


class TestRefused:
    @pytest.mark.parametrize("name", ["a\\b", "l" * 65])
    def test_names_that_dicom_cannot_hold(self, tmp_path: Path, series: Series, name: str) -> None:
        with pytest.raises(SettingError) as error:
            write_segmentation(tmp_path / "seg.dcm", overlapping(), [Segment("liver"), Segment(name)], series)
        assert str(error.value) == (
            f"The label {name!r} cannot be the name of a DICOM segment: expected at most 64 characters and no "
            "backslash. Rename it, or set data.source.write_as to nifti."
        )

    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"])
    def test_a_series_that_cannot_be_referred_to(self, tmp_path: Path, keyword: str) -> None:
        series = open_series(one_file_each(tmp_path / "ct", **{keyword: None}))
        with pytest.raises(DataError) as error:
            write_segmentation(tmp_path / "out" / "seg.dcm", overlapping(), ORGANS, series)
        assert str(error.value).startswith(
            f"{series.planes[0].path} and the rest of its series cannot be referred to by a DICOM SEG ("
        )
        assert "Export the series again, or set data.source.write_as to nifti." in str(error.value)
        assert not (tmp_path / "out").exists()

    def test_a_series_of_several_multi_frame_files(self, tmp_path: Path) -> None:
        first = save_enhanced(tmp_path / "1.dcm", STORED[:2])
        second = save_enhanced(tmp_path / "2.dcm", STORED[:2], position=lambda d: evenly()(d + 2))
        with pytest.raises(DataError, match="expected one image to a file or one enhanced multi-frame file"):
            write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, open_series([first, second]))

    def test_nothing_is_overwritten(self, tmp_path: Path, series: Series) -> None:
        write_segmentation(tmp_path / "seg.dcm", overlapping(), ORGANS, series)
        before = (tmp_path / "seg.dcm").read_bytes()
        with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
            write_segmentation(tmp_path / "seg.dcm", exclusive(), ORGANS, series)
        assert (tmp_path / "seg.dcm").read_bytes() == before
        assert [path.name for path in tmp_path.glob("*.dcm")] == ["seg.dcm"]
