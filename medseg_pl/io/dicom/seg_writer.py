"""Masks as DICOM SEG: one segment for each label, every frame beside the image that it was drawn on.

A segmentation belongs to its patient's study, so it repeats what the images say of patient and study, and is as
confidential as they are. The same mask of the same images gives the same bytes: unique identifiers are derived from
what they identify, and dates are those of the images.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from medseg_pl import __version__
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.io.dicom.headers import get_items, get_text, read_dataset
from medseg_pl.io.dicom.planes import Plane
from medseg_pl.io.dicom.series import Series

Concept = tuple[str, str, str]
"""A term of a terminology: its code, the terminology (SCT is SNOMED CT), and what it says in English."""

ANATOMICAL_STRUCTURE: Concept = ("91723000", "SCT", "Anatomical Structure")
ORGAN: Concept = ("91772007", "SCT", "Organ")

_LONGEST_NAME = 64
_NO_UID = "2.25.0"
_SERIES_NUMBER = 1000  # behind those of the scanner
_DATES = ("Content", "Acquisition", "Series", "Study")
_NO_DATE, _NO_TIME = "19000101", "000000"
_REFERRED_TO = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "Modality", "Rows", "Columns"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_PATIENT_AND_STUDY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
# What highdicom raises on headers that it cannot refer to
_REFUSALS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Segment(NamedTuple):
    """Description of a label as a segment.

    Attributes:
        name: The label.
        category: The segmented property category.
        type: The segmented property type.
    """

    name: str
    category: Concept = ANATOMICAL_STRUCTURE
    type: Concept = ORGAN


def write_segmentation(
    path: Path, mask: UInt8[np.ndarray, "m d h w"], segments: Sequence[Segment], series: Series
) -> None:
    """Write a binary segmentation that refers to the slices of a series.

    Frames that would hold nothing are left out, except where nothing at all was found: then there is an empty frame
    for each slice and segment, which says so to any reader.

    Args:
        path: The file to write.
        mask: One channel with `i + 1` for segment `i`, or one channel of 0 and 1 for each segment; on the slices of
            the files, also where the volume is resampled.
        segments: The labels.
        series: The series that was segmented.

    Raises:
        DataError: The series lacks something that a segmentation has to repeat, or is spread over several
            multi-frame files.
        SettingError: A name cannot be that of a segment.
    """
    _check_names(segments)
    files = _group_by_file(series.planes)
    headers = [read_dataset(series.planes[frames[0]].path) for frames in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a header's odd values, which would be quoted
        with _explain_refusal(series):
            references = [
                _make_reference(header, [series.planes[frame] for frame in frames], _find_thickness_mm(series))
                for header, frames in zip(headers, files, strict=True)
            ]
            dataset = _make_anonymous(references, mask[:, [frame for frames in files for frame in frames]], segments)
        _copy_patient(dataset, headers[0])
        _fix_dates(dataset, headers[0])
        _fix_identifiers(dataset)
        with write_atomically(path) as temporary:
            dataset.save_as(temporary)


def _check_names(segments: Sequence[Segment]) -> None:
    for segment in segments:
        if len(segment.name) > _LONGEST_NAME or "\\" in segment.name:
            raise SettingError(
                f"The label {segment.name!r} cannot be the name of a DICOM segment: expected at most {_LONGEST_NAME} "
                "characters and no backslash. Rename it, or set data.source.write_as to nifti."
            )


def _group_by_file(planes: Sequence[Plane]) -> list[list[int]]:
    """Group the indices of slices by file, in frame order."""
    files: dict[Path, list[int]] = defaultdict(list)
    for place, plane in enumerate(planes):
        files[plane.path].append(place)
    return [sorted(places, key=lambda place: planes[place].frame) for places in files.values()]


@contextmanager
def _explain_refusal(series: Series) -> Iterator[None]:
    """Name the series that highdicom refuses, without quoting its header."""
    try:
        yield
    except _REFUSALS as error:
        raise DataError(
            f"{series.planes[0].path} and the rest of its series cannot be referred to by a DICOM SEG "
            f"({type(error).__name__}): expected one image to a file or one enhanced multi-frame file, with "
            "StudyInstanceUID, FrameOfReferenceUID and valid unique identifiers. Export the series again, or set "
            "data.source.write_as to nifti."
        ) from error


def _find_thickness_mm(series: Series) -> float:
    """Find the slice thickness, which readers insist on, or else a distance."""
    distance_mm = series.geometry.spacing_mm[0] if series.geometry.spacing_mm else min(series.planes[0].spacing_mm)
    return series.planes[0].thickness_mm or distance_mm


def _make_reference(header: Dataset, planes: Sequence[Plane], thickness_mm: float) -> Dataset:
    """Make the header that highdicom refers to, without any person's name."""
    reference = _make_places(planes, thickness_mm)
    for keyword in _PATIENT_AND_STUDY:
        setattr(reference, keyword, "")
    for keyword in _REFERRED_TO:
        if keyword in header:
            setattr(reference, keyword, header.get(keyword))
    return reference


def _make_places(planes: Sequence[Plane], thickness_mm: float) -> Dataset:
    """Make the elements that place images, for single- and multi-frame readers."""
    first = planes[0]
    measures, orientation, shared, places = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = _format_decimals(first.spacing_mm)
    (measures.SliceThickness,) = _format_decimals([thickness_mm])
    orientation.ImageOrientationPatient = _format_decimals(first.orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    positions = [_make_position(plane) for plane in planes]
    for elements in (measures, orientation, positions[0]):
        places.update(elements)
    places.NumberOfFrames = len(planes)
    places.SharedFunctionalGroupsSequence = [shared]
    places.PerFrameFunctionalGroupsSequence = [_make_frame(position) for position in positions]
    return places


def _make_position(plane: Plane) -> Dataset:
    position = Dataset()
    position.ImagePositionPatient = _format_decimals(plane.position_mm)
    return position


def _make_frame(position: Dataset) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = [position]
    return frame


def _format_decimals(numbers: Sequence[float]) -> list[DSfloat]:
    """Format numbers as DICOM writes them, in at most 16 characters."""
    return [DSfloat(number, auto_format=True) for number in numbers]


def _make_anonymous(
    references: Sequence[Dataset], mask: UInt8[np.ndarray, "m d h w"], segments: Sequence[Segment]
) -> Any:
    """Make the segmentation without its patient, dates and final identifiers."""
    import highdicom  # noqa: PLC0415  0.8 s, for which only those should wait who write a segmentation
    from pydicom.sr.codedict import codes  # noqa: PLC0415  of which it is a part
    from pydicom.sr.coding import Code  # noqa: PLC0415

    algorithm = highdicom.AlgorithmIdentificationSequence("medseg", codes.cid7162.ArtificialIntelligence, __version__)
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name,
            segmented_property_category=Code(*segment.category),
            segmented_property_type=Code(*segment.type),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, segment in enumerate(segments, start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=references,
        pixel_array=mask[0] if len(mask) == 1 else np.moveaxis(mask, 0, -1),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=_NO_UID,
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_NO_UID,
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name="medseg",
        software_versions=__version__,
        device_serial_number="none",
        content_label="MEDSEG",
        series_description="medseg prediction",
        omit_empty_frames=bool(mask.any()),
    )


def _copy_patient(dataset: Any, header: Dataset) -> None:
    """Repeat what a header says of patient and study."""
    header.decode()
    dataset.copy_patient_and_study_information(header)
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the header's is


def _fix_dates(dataset: Dataset, header: Dataset) -> None:
    """Replace what highdicom takes from the clock."""
    dataset.ContentDate, dataset.ContentTime = _find_date(header)
    for holder in (dataset, *get_items(dataset, "ContributingEquipmentSequence")):  # of newer versions
        for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime"):
            holder.pop(keyword, None)


def _fix_identifiers(dataset: Dataset) -> None:
    """Derive every identifier from all the rest."""
    dimensions = [*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence]
    for item in dimensions:
        item.DimensionOrganizationUID = _NO_UID
    with BytesIO() as file:
        dataset.save_as(file)
        content = hashlib.blake2b(file.getbuffer()).hexdigest()
    for item in dimensions:
        item.DimensionOrganizationUID = _derive_uid(content, "dimensions")
    dataset.SeriesInstanceUID = _derive_uid(content, "series")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _derive_uid(content, "instance")


def _derive_uid(content: str, what: str) -> UID:
    """Derive a unique identifier from content.

    >>> _derive_uid("", "series") == _derive_uid("", "series") != _derive_uid("", "instance")
    True
    """
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'medseg {what} {content}').int}")


def _find_date(header: Dataset) -> tuple[str, str]:
    """Find date and time of the images."""
    for which in _DATES:
        if date := get_text(header, f"{which}Date"):
            return date, get_text(header, f"{which}Time") or _NO_TIME
    return _NO_DATE, _NO_TIME
