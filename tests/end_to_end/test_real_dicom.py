"""Public DICOM of scanners, planning systems and segmentation tools: masks land on what they were drawn on."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import FileDataset, dcmread

from medseg_pl.core.errors import GeometryError, MissingDataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.sources import DicomSource
from medseg_pl.io.dicom.headers import read_entry
from medseg_pl.io.dicom.references import read_segmentation, read_structures
from medseg_pl.io.dicom.series import find_series_problems, open_series
from tests.dicom_files import read_series, save_series

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),  # pydicom, in the reading that we compare with
]

LIVER = LabelMap(["liver"], "binary")
COLORS = LabelMap(["green", "orange", "purple", "light blue", "dark_blue"], "multilabel")
REGION = LabelMap(["ROI-1"], "binary")


def read(root: Path, references: str, labels: LabelMap) -> Volume:
    source = DicomSource(str(root), references=references)
    (case,) = source.cases()
    volume = source.read(case, labels)
    assert volume.mask is not None
    assert volume.mask.shape == (labels.mask_channels, *volume.image.shape[1:])
    return volume


@pytest.mark.parametrize(("folder", "slices", "spacing_mm"), [("dicom_seg/ct", 3, 1.0), ("dicom_rtstruct", 2, 5.0)])
def test_series_read_in_hounsfield_units(real_data: Path, folder: str, slices: int, spacing_mm: float) -> None:
    paths = sorted((real_data / folder).iterdir())
    files = [path for path in paths if (entry := read_entry(path)) is not None and entry.kind == "image"]
    assert len(files) == slices
    assert find_series_problems(files) == []
    values, geometry = read_series(files)
    assert values.dtype == np.int16
    assert geometry.shape == (slices, 512, 512)
    assert geometry.spacing_mm is not None
    assert geometry.spacing_mm[0] == pytest.approx(spacing_mm)
    volume = highdicom.get_volume_from_series([dcmread(path) for path in files])
    same = np.array(volume.affine) @ [0, 0, 0, 1]
    corner = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(geometry.affine)) @ same
    assert corner[1:3] == pytest.approx((0, 0), abs=1e-6)
    assert -1100 < np.median(values[values > -2000]) < 100  # air around, tissue within


def test_every_file_is_recognized(real_data: Path) -> None:
    kinds = {path.name: entry.kind for path in (real_data / "dicom_seg").rglob("*.dcm") if (entry := read_entry(path))}
    assert kinds == {
        **dict.fromkeys(("01.dcm", "02.dcm", "03.dcm"), "image"),
        **dict.fromkeys(("liver_seg.dcm", "partial_overlaps.dcm", "labelmap_seg.dcm"), "segmentation"),
    }
    names = ("rt.dcm", "invalid_reference_rt.dcm", "non_existent_reference_rt.dcm")
    entries = [read_entry(real_data / "dicom_rtstruct" / name) for name in names]
    assert {entry.kind for entry in entries if entry} == {"structures"}


def test_the_liver_is_where_livers_are(real_data: Path) -> None:
    volume = read(real_data / "dicom_seg", "liver_seg.dcm", LIVER)
    assert volume.mask is not None
    mask = volume.mask[0] == 1
    assert mask.sum() == 107098  # the pixels that are set in the file
    assert volume.geometry.voxel_ml is not None
    assert mask.sum() * volume.geometry.voxel_ml == pytest.approx(107098 * 0.810547**2 / 1000, rel=1e-6)
    image = volume.image[0]
    assert 20 < image[mask].mean() < 150  # soft tissue, without or with contrast
    # Moved or mirrored, the mask would hold more of lung, fat and bone.
    found = soft_tissue(image, mask)
    assert found > 0.85
    moved = [np.roll(mask, shift, axis) for axis in (1, 2) for shift in (-4, 4)]
    assert max(soft_tissue(image, other) for other in (*moved, mask[:, ::-1], mask[:, :, ::-1], mask[::-1])) < found
    # The patient's right is on the left of the image.
    _, rows, columns = np.nonzero(mask)
    assert 100 < rows.mean() < 350
    assert 80 < columns.mean() < 256


def soft_tissue(image: np.ndarray, mask: np.ndarray) -> float:
    """The share of a mask between water and contrast-enhanced tissue, in Hounsfield units."""
    return float(((image[mask] > -20) & (image[mask] < 130)).mean())


def test_the_liver_as_highdicom_reads_it(real_data: Path) -> None:
    volume = read(real_data / "dicom_seg", "liver_seg.dcm", LIVER)
    assert volume.mask is not None
    planes = open_series(sorted((real_data / "dicom_seg" / "ct").iterdir())).planes
    instances = [dcmread(plane.path).SOPInstanceUID for plane in planes]
    file = highdicom.seg.segread(real_data / "dicom_seg" / "liver_seg.dcm")
    expected = file.get_pixels_by_source_instance(instances, ignore_spatial_locations=True)[..., 0]
    np.testing.assert_array_equal(volume.mask[0], expected)


def test_segments_that_overlap(real_data: Path) -> None:
    volume = read(real_data / "dicom_seg", "partial_overlaps.dcm", COLORS)
    assert volume.mask is not None
    # From feet to head: green and orange on the second slice, purple on all, the blues on the first.
    assert volume.mask.any(axis=(2, 3)).tolist() == [
        [False, True, False],
        [False, True, False],
        [True, True, True],
        [True, False, False],
        [True, False, False],
    ]
    assert volume.mask.sum() == 43639  # the pixels that are set in the file
    assert (volume.mask.sum(axis=0) > 1).any()


@pytest.mark.parametrize(("references", "labels"), [("liver_seg.dcm", LIVER), ("partial_overlaps.dcm", COLORS)])
def test_a_mask_comes_back_from_the_segmentation_it_is_written_to(
    real_data: Path, tmp_path: Path, references: str, labels: LabelMap
) -> None:
    """Our reader, highdicom and pydicom find on each CT slice what the original draws on it."""
    root = real_data / "dicom_seg"
    volume = read(root, references, labels)
    assert volume.mask is not None
    source = DicomSource(str(root), references=references)
    (case,) = source.cases()
    source.write(tmp_path, case, volume.mask, labels)
    written = tmp_path / f"{case.case_id}.dcm"
    series = open_series(case.images)
    numbers = [[number] for number, _ in read_structures(written)]
    np.testing.assert_array_equal(read_segmentation(written, numbers, series), volume.mask == 1)

    instances = [dcmread(plane.path).SOPInstanceUID for plane in series.planes]
    file = highdicom.seg.segread(written)
    found = file.get_pixels_by_source_instance(instances, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), volume.mask)

    dataset, original = dcmread(written), dcmread(root / references)
    assert dataset.StudyInstanceUID == original.StudyInstanceUID
    assert dataset.PatientID == original.PatientID
    assert dataset.FrameOfReferenceUID == original.FrameOfReferenceUID
    assert set_pixels(dataset) == set_pixels(original)


def set_pixels(dataset: FileDataset) -> dict[tuple[str, float], int]:
    """How many pixels each segment has at each height of the body, frame by frame."""
    names = {item.SegmentNumber: plain(item.SegmentLabel) for item in dataset.SegmentSequence}
    (shared,) = dataset.SharedFunctionalGroupsSequence
    counts: dict[tuple[str, float], int] = {}
    for pixels, group in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        name = names[holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        height = round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]), 3)
        if pixels.any():
            counts[name, height] = counts.get((name, height), 0) + int(pixels.sum())
    return counts


def plain(name: str) -> str:
    return name.replace("_", " ").lower()


def test_a_label_map_of_a_part_of_its_slices(real_data: Path, tmp_path: Path) -> None:
    """Its series is not there; one with the same grid is made for it, larger by a rim of 3 rows and 2 columns."""
    path = real_data / "dicom_seg" / "labelmap_seg.dcm"
    assert read_structures(path) == [(1, "Liver")]
    dataset = dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    positions = [np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) for group in groups]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = [float(value) for value in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    rows_mm, columns_mm = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    rim = 3 * rows_mm * np.array(orientation[3:]) + 2 * columns_mm * np.array(orientation[:3])
    files = save_series(
        tmp_path,
        np.zeros((2, 38 + 6, 24 + 4), np.int16),
        orientation=orientation,
        position=lambda d: positions[d] - rim,
        PixelSpacing=[rows_mm, columns_mm],
    )
    series = open_series(files)
    (mask,) = read_segmentation(path, [[1]], series)
    expected = np.zeros((2, 44, 28), bool)
    expected[:, 3:-3, 2:-2] = dataset.pixel_array == 1
    order = [files.index(plane.path) for plane in series.planes]
    np.testing.assert_array_equal(mask, expected[order])


def test_a_label_map_without_its_series_is_named(real_data: Path) -> None:
    with pytest.raises(MissingDataError, match=r"1 of 3 references was drawn on a series .* .*labelmap_seg\.dcm\. Add"):
        DicomSource(str(real_data / "dicom_seg")).cases()


def test_a_contour_with_a_hole(real_data: Path) -> None:
    """Two contours on one slice: the area between them, by the shoelace formula."""
    root = real_data / "dicom_rtstruct"
    volume = read(root, "rt.dcm", REGION)
    assert volume.mask is not None
    contours = dcmread(root / "rt.dcm").ROIContourSequence[0].ContourSequence
    outer, inner = (np.reshape(contour.ContourData, (-1, 3)).astype(float) for contour in contours)
    areas_mm2 = [abs(shoelace(points[:, 0], points[:, 1])) for points in (outer, inner)]
    assert volume.mask[0, 1].sum() == 0  # both lie on the slice nearer the feet
    pixels = volume.mask[0, 0]
    assert pixels.sum() * 0.488281**2 == pytest.approx(areas_mm2[0] - areas_mm2[1], rel=0.03)
    rows, columns = np.nonzero(pixels)
    assert rows.min() * 0.488281 - 125 == pytest.approx(outer[:, 1].min(), abs=0.5)
    assert rows.max() * 0.488281 - 125 == pytest.approx(outer[:, 1].max(), abs=0.5)
    assert columns.min() * 0.488281 - 125 == pytest.approx(outer[:, 0].min(), abs=0.5)
    assert columns.max() * 0.488281 - 125 == pytest.approx(outer[:, 0].max(), abs=0.5)
    column, row = np.round((inner.mean(axis=0)[:2] + 125) / 0.488281).astype(int)
    assert not pixels[row, column]


@pytest.mark.parametrize("name", ["invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"])
def test_contours_on_slices_that_are_not_there(real_data: Path, name: str) -> None:
    root = real_data / "dicom_rtstruct"
    source = DicomSource(str(root), references=name)
    (case,) = source.cases()
    with pytest.raises(GeometryError) as error:
        source.read(case, REGION)
    assert str(error.value) == (
        f"{root / name}, region 'ROI-1', contour 1, lies up to 5.00 mm from the nearest slice, {root / 'ct_2.dcm'}; "
        "expected at most 1.25 mm. Restore missing slices, or move the contours away if they are of another series."
    )


def shoelace(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
