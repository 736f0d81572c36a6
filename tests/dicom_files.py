"""DICOM of a few pixels, written by pydicom and highdicom and not by the code under test.

Whoever was scanned is called SECRET, so that a test can look for it where it must not be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from medseg_pl.core.geometry import Geometry
from medseg_pl.io.dicom.series import open_series, read_values

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
ORIGIN = (-20.0, -30.0, 40.0)
SPACING = (2.5, 0.75, 0.5)  # slices, rows, columns
SECRET = "SECRET"

Position = Callable[[int], Sequence[float]]
"""Where slice d begins (LPS, mm)."""


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def evenly(orientation: Sequence[float] = AXIAL, spacing_mm: float = SPACING[0]) -> Position:
    """Slices one behind the other along their normal."""
    return lambda d: np.add(ORIGIN, d * spacing_mm * normal_of(orientation))


def uid_of(*names: object) -> str:
    """The same unique identifier for the same names."""
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def save_series(
    folder: Path,
    stored: NDArray[Any],
    *,
    series: str = "series",
    orientation: Sequence[float] = AXIAL,
    position: Position | None = None,
    patient: str = SECRET,
    names: Sequence[str] | None = None,
    **elements: Any,
) -> list[Path]:
    """One CT file for each slice of `(D, H, W)` stored values, in the order of the slices.

    Files are named, and numbered, against that order. `elements` replace any element of the header, or leave it out
    where they are `None`; a function gives slice d its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    position = position or evenly(orientation)
    paths = []
    for d, pixels in enumerate(stored):
        dataset = _image(pixels, series, patient, number=len(stored) - d)
        dataset.ImageOrientationPatient = list(orientation)
        dataset.ImagePositionPatient = [float(value) for value in position(d)]
        for name, value in elements.items():
            _set(dataset, name, value(d) if callable(value) else value)
        path = folder / (names[d] if names else f"IM{len(stored) - d:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def save_enhanced(
    path: Path,
    stored: NDArray[Any],
    *,
    position: Position | None = None,
    orientation: Sequence[float] = AXIAL,
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
    series: str = "series",
) -> Path:
    """One enhanced CT file with a frame for each slice, the frames in any order."""
    position = position or evenly(orientation)
    order = list(order or range(len(stored)))
    dataset = _image(stored[order], series, SECRET, number=1)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.EnhancedCTImageStorage
    dataset.NumberOfFrames = len(order)
    for name in ("PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, name)
    shared, measures, directions = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(SPACING[1:])
    measures.SliceThickness = 9.0
    directions.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [directions]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for d in order:
        frame, place, rescale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(value) for value in position(d)]
        rescale.RescaleSlope, rescale.RescaleIntercept = (slopes[d] if slopes else 1), -1024
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [rescale]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_projection(path: Path, pixels: NDArray[Any], *, series: str = "series", **elements: Any) -> Path:
    """One digital radiograph of `(H, W)` stored values, which lies nowhere in the patient."""
    dataset = _image(pixels, series, SECRET, number=1)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid_of(path.name, series)
    dataset.Modality, dataset.ImagerPixelSpacing = "DX", list(SPACING[1:])
    for name in ("PixelSpacing", "SliceThickness", "FrameOfReferenceUID", "PositionReferenceIndicator"):
        delattr(dataset, name)
    for name, value in elements.items():
        _set(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def remove_preamble(path: Path, *, explicit: bool = False) -> Path:
    """Save a file as the first programs wrote them: neither preamble nor group 2."""
    dataset = dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=not explicit, little_endian=True)
    return path


def save_segmentation(
    path: Path,
    sources: Sequence[Path],
    masks: NDArray[Any],
    names: Sequence[str],
    kind: str = "BINARY",
    **elements: Any,
) -> Path:
    """A DICOM SEG by highdicom.

    Args:
        path: The file to write.
        sources: The slices, in the order of the masks.
        masks: `(D, H, W, N)` with 0 and 1, or fractions of 1 for the kind FRACTIONAL.
        names: What the N segments are called.
        kind: BINARY, FRACTIONAL or LABELMAP.
        elements: Replace elements of the header.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    pixels = masks if kind != "LABELMAP" else (masks * np.arange(1, len(names) + 1)).max(axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names of people, which ours need not satisfy
        dataset = hd.seg.Segmentation(
            source_images=[dcmread(source) for source in sources],
            pixel_array=pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=uid_of(path.name, "series"),
            series_number=1,
            sop_instance_uid=uid_of(path.name),
            instance_number=1,
            manufacturer="none",
            manufacturer_model_name="none",
            software_versions="1",
            device_serial_number="1",
        )
    for name, value in elements.items():
        _set(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def save_structures(
    path: Path,
    series: str,
    regions: Mapping[str, Sequence[NDArray[Any]]],
    kind: str = "CLOSED_PLANAR",
    **elements: Any,
) -> Path:
    """An RTSTRUCT that refers to a series.

    Args:
        path: The file to write.
        series: The name of the series, as given to `save_series`.
        regions: For each region its contours, `(n, 3)` points in millimeters (LPS).
        kind: What the contours are.
        elements: Replace elements of the header.
    """
    dataset = _file(uid.RTStructureSetStorage, uid_of(path.name), SECRET)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", uid_of(path.name, "series")
    named, study, frame = Dataset(), Dataset(), Dataset()
    named.SeriesInstanceUID = uid_of(series)
    study.RTReferencedSeriesSequence = [named]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uid_of("space"), [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.8g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    for element, value in elements.items():
        _set(dataset, element, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def read_series(files: Sequence[Path]) -> tuple[NDArray[Any], Geometry]:
    """The volume of a series with one channel, and its grid."""
    series = open_series(files)
    return read_values(series)[None], series.geometry


def edit(path: Path, **elements: Any) -> Path:
    """Replace elements of a file's header, or leave them out where they are `None`."""
    dataset = dcmread(path)
    for name, value in elements.items():
        _set(dataset, name, value)
    dataset.save_as(path)
    return path


def compress(path: Path, syntax: str, frames: Sequence[bytes] | None = None) -> Path:
    """Compress the pixels of a file; `frames` are the compressed images where they are made elsewhere."""
    dataset = dcmread(path)
    if frames is None and syntax == uid.RLELossless:
        dataset.compress(uid.RLELossless)
    else:
        frames = frames or [_encoders()[syntax](image) for image in _images(dataset)]
        dataset.PixelData = encapsulate(list(frames))
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.save_as(path)
    return path


def _images(dataset: Dataset) -> NDArray[np.uint16]:
    images: NDArray[np.uint16] = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).view(np.uint16)
    return images


def _encoders() -> dict[str, Callable[[Any], bytes]]:
    return {
        uid.JPEGLosslessSV1: lambda pixels: imagecodecs.ljpeg_encode(pixels, bitspersample=16),
        uid.JPEGLSLossless: imagecodecs.jpegls_encode,
        uid.JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True),
    }


def _file(kind: str, instance: str, patient: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid.UID(kind), uid.UID(instance)
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, instance
    dataset.StudyInstanceUID = uid_of("study")
    dataset.PatientName, dataset.PatientID = f"{patient}^NAME", f"{patient}-ID" if patient else ""
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.StudyDate = dataset.StudyTime = dataset.ReferringPhysicianName = ""
    return dataset


def _image(pixels: NDArray[Any], series: str, patient: str, number: int) -> FileDataset:
    dataset = _file(uid.CTImageStorage, uid_of(series, number), patient)
    dataset.Modality, dataset.SeriesInstanceUID = "CT", uid_of(series)
    dataset.SeriesDescription = f"{SECRET} description"
    dataset.FrameOfReferenceUID = uid_of("space")
    dataset.PositionReferenceIndicator = ""
    dataset.InstanceNumber, dataset.SeriesNumber = number, 1
    dataset.PixelSpacing, dataset.SliceThickness = list(SPACING[1:]), 9.0  # unlike the distance between slices
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    return dataset


def _set(dataset: Dataset, name: str, value: Any) -> None:
    if value is None:
        delattr(dataset, name)
    else:
        setattr(dataset, name, value)
