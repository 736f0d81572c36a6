"""DICOM SEG, written by highdicom: every voxel lands where its frame says, or an error says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file

from medseg_pl.core.errors import GeometryError, UnreadableFileError
from medseg_pl.io.dicom.references import read_segmentation, read_segments
from medseg_pl.io.dicom.series import Series, open_series
from tests.dicom_files import (
    CORONAL,
    ORIGIN,
    SECRET,
    SPACING,
    compress,
    edit,
    evenly,
    save_enhanced,
    save_segmentation,
    save_series,
)

SHAPE = (4, 5, 7)
RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 3000, SHAPE).astype(np.int16)
NAMES = ["liver", "tumour", "Left Kidney"]


def overlapping() -> np.ndarray:
    """Three segments that overlap; the first is missing on slice 2, the last on all but slice 3."""
    masks = RNG.integers(0, 2, (*SHAPE, 3)).astype(np.uint8)
    masks[2, ..., 0] = 0
    masks[:3, ..., 2] = 0
    return masks


def exclusive() -> np.ndarray:
    values = RNG.integers(0, 4, SHAPE)
    return np.stack([values == number for number in (1, 2, 3)], axis=-1).astype(np.uint8)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save_series(tmp_path / "ct", STORED)


@pytest.fixture
def series(paths: list[Path]) -> Series:
    return open_series(paths)


def read_all(path: Path, series: Series) -> np.ndarray:
    return np.stack(read_segmentation(path, [[1], [2], [3]], series), axis=-1)


def reframed(path: Path, edit_frame: Any) -> Path:
    """Change the functional groups of each frame."""
    dataset = dcmread(path)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        edit_frame(number, frame)
    dataset.save_as(path)
    return path


class TestMasks:
    def test_overlapping_segments(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        masks = overlapping()
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES)
        assert len(dcmread(path).PerFrameFunctionalGroupsSequence) < 3 * len(paths)  # empty frames are left out
        np.testing.assert_array_equal(read_all(path, series), masks.astype(bool))

    def test_a_label_map(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        masks = exclusive()
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES, "LABELMAP")
        np.testing.assert_array_equal(read_all(path, series), masks.astype(bool))

    def test_more_than_half_is_inside(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        """Stored as 0 … 255: 127 is less than half, 128 is more."""
        stored = RNG.choice([0, 60, 127, 128, 200, 255], (*SHAPE, 3))
        path = save_segmentation(tmp_path / "seg.dcm", paths, stored / 255, NAMES, "FRACTIONAL")
        np.testing.assert_array_equal(read_all(path, series), stored >= 128)

    def test_exactly_half_is_outside(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        stored = RNG.choice([0, 100, 101, 200], (*SHAPE, 3))
        path = save_segmentation(tmp_path / "seg.dcm", paths, stored / 255, NAMES, "FRACTIONAL")
        edit(path, MaximumFractionalValue=200)
        np.testing.assert_array_equal(read_all(path, series), stored >= 101)

    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    def test_compressed_frames(self, tmp_path: Path, paths: list[Path], series: Series, syntax: str) -> None:
        masks = exclusive()
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES, "LABELMAP")
        recompressed(path, syntax)
        np.testing.assert_array_equal(read_all(path, series), masks.astype(bool))

    def test_highdicom_reads_the_same(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES)
        instances = [dcmread(plane.path).SOPInstanceUID for plane in series.planes]
        expected = highdicom.seg.segread(path).get_pixels_by_source_instance(
            instances, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(read_all(path, series), expected.astype(bool))

    @pytest.mark.parametrize("orientation", [CORONAL, (0.8, 0.6, 0.0, -0.6, 0.8, 0.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
    def test_any_orientation(self, tmp_path: Path, orientation: tuple[float, ...]) -> None:
        paths = save_series(tmp_path / "ct", STORED, orientation=orientation)
        masks = overlapping()
        path = save_segmentation(tmp_path / "seg.dcm", paths[::-1], masks[::-1], NAMES)
        np.testing.assert_array_equal(read_all(path, open_series(paths)), masks.astype(bool))

    def test_slices_that_are_counted_from_the_head(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path / "ct", STORED, position=evenly(spacing_mm=-2.5))
        masks = overlapping()
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES)
        np.testing.assert_array_equal(read_all(path, open_series(paths)), masks[::-1].astype(bool))

    def test_a_series_of_one_file(self, tmp_path: Path) -> None:
        source = save_enhanced(tmp_path / "ct" / "many.dcm", STORED)
        stacked = save_series(tmp_path / "single", STORED)  # highdicom wants more of an enhanced file than we write
        masks = overlapping()
        path = save_segmentation(tmp_path / "seg.dcm", stacked, masks, NAMES)
        np.testing.assert_array_equal(read_all(path, open_series([source])), masks.astype(bool))

    def test_segments_are_united(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        for kind, drawn in (("BINARY", overlapping()), ("LABELMAP", exclusive())):
            path = save_segmentation(tmp_path / f"{kind}.dcm", paths, drawn, NAMES, kind)
            union, nothing = read_segmentation(path, [[1, 3], []], series)
            np.testing.assert_array_equal(union, (drawn[..., 0] | drawn[..., 2]).astype(bool))
            assert not nothing.any()

    def test_the_order_of_frames_means_nothing(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        masks = exclusive()
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES, "LABELMAP")
        dataset = dcmread(path)
        frames = np.frombuffer(dataset.PixelData, np.uint8)[: np.prod(SHAPE)].reshape(SHAPE)
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = groups[::-1]
        dataset.PixelData = frames[::-1].tobytes()
        dataset.save_as(path)
        np.testing.assert_array_equal(read_all(path, series), masks.astype(bool))

    def test_a_frame_may_be_a_part_of_its_slice(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        """As programs write that crop to what was drawn: rows 1 … 3 and columns 2 … 5."""
        small = save_series(tmp_path / "crop", STORED[:, 1:4, 2:6], position=lambda d: np.add(
            ORIGIN, (2 * SPACING[2], 1 * SPACING[1], d * SPACING[0])
        ))  # fmt: skip
        masks = RNG.integers(0, 2, (4, 3, 4, 3)).astype(np.uint8)
        path = save_segmentation(tmp_path / "seg.dcm", small, masks, NAMES)
        expected = np.zeros((*SHAPE, 3), bool)
        expected[:, 1:4, 2:6] = masks
        np.testing.assert_array_equal(read_all(path, series), expected)

    def test_segments_nobody_asked_for_may_lie_anywhere(self, tmp_path: Path, paths: list[Path]) -> None:
        masks = overlapping()
        masks[3, ..., :2] = 0
        masks[3, ..., 2] = 1
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, NAMES)
        first, second = read_segmentation(path, [[1], [2]], open_series(paths[:3]))
        np.testing.assert_array_equal(np.stack([first, second], axis=-1), masks[:3, ..., :2].astype(bool))


class TestNames:
    def test_segments_have_numbers_and_names(self, tmp_path: Path, paths: list[Path]) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES)
        assert read_segments(path) == [(1, "liver"), (2, "tumour"), (3, "Left Kidney")]

    def test_the_background_of_a_label_map_is_no_segment(self, tmp_path: Path, paths: list[Path]) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, exclusive(), NAMES, "LABELMAP")
        background = Dataset()
        background.SegmentNumber, background.SegmentLabel = 0, "Background"
        edit(path, SegmentSequence=[background, *dcmread(path).SegmentSequence])
        assert [segment.number for segment in read_segments(path)] == [1, 2, 3]

    def test_a_file_of_another_program(self) -> None:
        path = Path(str(get_testdata_file("liver_1frame.dcm", download=False)))
        assert [segment.number for segment in read_segments(path)] == [1]


class TestRefused:
    """highdicom writes the frames of a segment from head to feet: the first lies on the last slice."""

    def test_a_frame_between_slices(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])

        def lift(number: int, frame: Dataset) -> None:
            frame.PlanePositionSequence[0].ImagePositionPatient[2] += 0.7 * (number == 2)

        reframed(path, lift)
        with pytest.raises(GeometryError) as error:
            read_segmentation(path, [[1]], series)
        assert str(error.value) == (
            f"{path}, frame 3, lies 0.70 mm from the nearest slice, {series.planes[1].path}; expected at most 0.62 mm. "
            "Restore missing slices, or move the segmentation away if it is of another series."
        )

    def test_a_slice_that_is_not_there(self, tmp_path: Path, paths: list[Path]) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])
        with pytest.raises(GeometryError, match=r"frame 1, lies 2\.50 mm from the nearest slice, .*IM002\.dcm; expec"):
            read_segmentation(path, [[1]], open_series(paths[:3]))

    def test_an_empty_frame_may_lie_anywhere(self, tmp_path: Path, paths: list[Path]) -> None:
        masks = np.ones((*SHAPE, 1), np.uint8)
        masks[3] = 0
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, ["liver"], "LABELMAP")
        (mask,) = read_segmentation(path, [[1]], open_series(paths[:3]))
        assert mask.all()

    @pytest.mark.parametrize(
        "change",
        [
            lambda frame: setattr(frame.PlanePositionSequence[0], "ImagePositionPatient", [-19.8, -30, 40]),
            lambda frame: setattr(frame, "PixelMeasuresSequence", [measures(0.75, 0.55)]),
            lambda frame: setattr(frame, "PlaneOrientationSequence", [directions(1, 0, 0, 0, -1, 0)]),
        ],
        ids=["shifted", "another spacing", "flipped"],
    )
    def test_another_grid(self, tmp_path: Path, paths: list[Path], series: Series, change: Any) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])
        reframed(path, lambda number, frame: change(frame) if number == 0 else None)
        with pytest.raises(GeometryError, match=r"seg\.dcm, frame 1, lies on another grid than .*: a corner is \d"):
            read_segmentation(path, [[1]], series)

    def test_a_frame_that_leans(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])
        lean = lambda number, frame: setattr(frame, "PlaneOrientationSequence", [directions(1, 0, 0, 0, 0.8, 0.6)])  # noqa: E731
        with pytest.raises(GeometryError, match=r"frame 1, lies 1\.80 mm from the nearest slice"):
            read_segmentation(reframed(path, lean), [[1]], series)

    def test_something_outside_the_image(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])

        def move(number: int, frame: Dataset) -> None:
            frame.PlanePositionSequence[0].ImagePositionPatient[0] += 3 * SPACING[2]

        with pytest.raises(GeometryError) as error:
            read_segmentation(reframed(path, move), [[1]], series)
        assert str(error.value) == (
            f"{path}, frame 1, has something outside the 5 x 7 pixels of {series.planes[3].path}. Export the "
            "segmentation again from this series."
        )

    def test_the_rim_of_a_larger_frame_may_be_empty(self, tmp_path: Path, paths: list[Path]) -> None:
        masks = np.zeros((*SHAPE, 1), np.uint8)
        masks[:, 2:, 3:] = 1
        path = save_segmentation(tmp_path / "seg.dcm", paths, masks, ["liver"])
        small = save_series(tmp_path / "crop", STORED[:, 2:, 3:], position=lambda d: np.add(
            ORIGIN, (3 * SPACING[2], 2 * SPACING[1], d * SPACING[0])
        ))  # fmt: skip
        (mask,) = read_segmentation(path, [[1]], open_series(small))
        assert mask.shape == (4, 3, 4)
        assert mask.all()

    @pytest.mark.parametrize("kind", ["", "SURFACE"])
    def test_a_type_that_is_not_known(self, tmp_path: Path, paths: list[Path], series: Series, kind: str) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES, SegmentationType=kind)
        said = rf"is a segmentation of the type {kind or 'unknown'}; expected one of BINARY, FRACTIONAL, LABELMAP\."
        with pytest.raises(UnreadableFileError, match=said):
            read_segments(path)
        with pytest.raises(UnreadableFileError, match=said):
            read_segmentation(path, [[1]], series)

    def test_no_segment(self, tmp_path: Path, paths: list[Path]) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES, SegmentSequence=None)
        with pytest.raises(UnreadableFileError, match=r"seg\.dcm describes no segment\. Move it away, or export"):
            read_segments(path)

    def test_a_frame_of_no_segment(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES)
        reframed(path, lambda number, frame: delattr(frame, "SegmentIdentificationSequence"))
        with pytest.raises(UnreadableFileError, match=r"seg\.dcm has no ReferencedSegmentNumber, without which"):
            read_segmentation(path, [[1]], series)

    def test_frames_without_a_place(self, tmp_path: Path, paths: list[Path], series: Series) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, overlapping(), NAMES)
        reframed(path, lambda number, frame: delattr(frame, "PlanePositionSequence"))
        with pytest.raises(UnreadableFileError, match=r"seg\.dcm has no ImagePositionPatient, without which"):
            read_segmentation(path, [[1]], series)

    def test_nobody_is_named(self, tmp_path: Path, paths: list[Path]) -> None:
        path = save_segmentation(tmp_path / "seg.dcm", paths, np.ones((*SHAPE, 1), np.uint8), ["liver"])
        with pytest.raises(GeometryError) as error:
            read_segmentation(path, [[1]], open_series(paths[:3]))
        assert SECRET not in str(error.value)
        assert "1.2.826" not in str(error.value)


def measures(between_rows: float, between_columns: float) -> Dataset:
    dataset = Dataset()
    dataset.PixelSpacing = [between_rows, between_columns]
    return dataset


def directions(*values: float) -> Dataset:
    dataset = Dataset()
    dataset.ImageOrientationPatient = list(values)
    return dataset


def recompressed(path: Path, syntax: str) -> Path:
    """Label maps have 8 bits; the encoders of `compress` take 16."""
    if syntax == uid.RLELossless:
        return compress(path, syntax)
    import imagecodecs

    encode = {uid.JPEG2000Lossless: imagecodecs.jpeg2k_encode, uid.JPEGLSLossless: imagecodecs.jpegls_encode}[
        uid.UID(syntax)
    ]
    options = {"level": 0, "reversible": True} if syntax == uid.JPEG2000Lossless else {}
    return compress(path, syntax, [encode(frame, **options) for frame in dcmread(path).pixel_array])
