"""Cases that are read as their source does: DICOM series, scans in Kaggle's layout, pictures with outlines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from medseg_pl.checks.alignment_check import align
from medseg_pl.checks.file_checks import DAMAGE, FaultError, diagnose, read_or_fault, said_of
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.image_measurement import measure_image
from medseg_pl.checks.mask_measurement import measure_mask
from medseg_pl.checks.measurements import CaseFacts
from medseg_pl.core.errors import DataError, GeometryError, LabelOverlapError, MaskValueError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import DicomSource, FileSource, Source
from medseg_pl.data.sources.base import strip_remedy
from medseg_pl.data.sources.files import read_image_file
from medseg_pl.io import raster
from medseg_pl.io.dicom.headers import get_text, read_dataset
from medseg_pl.io.dicom.series import find_series_problems, open_series
from medseg_pl.io.file_header import FileHeader, read_header

_CODES = {
    "mixed": "mixed-series",
    "unlike": "slices-differ",
    "duplicate": "slices-doubled",
    "gap": "slice-gap",
    "uneven": "slice-gap",
}
_CODES_OF_MASKS: dict[type[Exception], str] = {
    LabelOverlapError: "mask-overlap",
    MaskValueError: "mask-unknown-value",
    GeometryError: "shape-mismatch",
}


def inspect_stack(source: Source, case: Case, labels: LabelMap) -> CaseFacts:
    """Read a case as its source does; where that fails, look for the fault file by file."""
    try:
        volume = source.read(case, labels)
    except (DataError, *DAMAGE) as error:
        return _faulty(source, case, labels, error)
    return replace(_measured(source, case, volume), findings=tuple(_find_resampling(source, case)))


def _find_resampling(source: Source, case: Case) -> Iterator[Finding]:
    """Find what is resampled of a series that is read as a volume of even slices."""
    if not isinstance(source, DicomSource) or not source.resamples:
        return
    series = open_series(case.images, resample=True)
    for problem in series.unevenness:
        code, message = "slices-interpolated", strip_remedy(problem.message)
        if problem.code == "uneven" and series.resampling:
            code = "slices-resampled"
            message += f" Resampled to {series.geometry.shape[0]} slices, {series.resampling.distance_mm:.2f} mm apart."
        yield finding(code, message, case.case_id, case.images[0].parent)


def _faulty(source: Source, case: Case, labels: LabelMap, error: Exception) -> CaseFacts:
    """What is wrong with the slices; where they are in order, the fault is the mask's, and the image is measured."""
    found = list(_faults_of_images(source, case))
    if found:
        return CaseFacts(case, findings=tuple(found))
    try:
        volume = source.read(replace(case, masks=()), labels)
    except (DataError, *DAMAGE):
        about_image = finding("unreadable-case", said_of(error), case.case_id, case.images[0])
        return CaseFacts(case, findings=(about_image,))
    named = isinstance(source, FileSource)
    code = _CODES_OF_MASKS.get(type(error), "unreadable-case") if named else "unreadable-case"
    about_mask = finding(code, said_of(error), case.case_id, next(iter(case.masks), None))
    return replace(_measured(source, case, volume), findings=(about_mask,))


def _measured(source: Source, case: Case, volume: Volume) -> CaseFacts:
    dataset = read_dataset(case.images[0]) if isinstance(source, DicomSource) else None
    single = isinstance(source, FileSource)
    header = read_header(case.images[0]) if single else FileHeader("PNG" if dataset is None else "DICOM")
    image = measure_image(
        volume.image,
        [volume.geometry],
        case.images,
        [header],
        modality="" if dataset is None else get_text(dataset, "Modality"),
        turned_bright=dataset is not None and get_text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
    )
    if volume.mask is None:
        return CaseFacts(case, image)
    several, drawn = len(volume.mask) > 1, FileHeader("text") if single else header
    masks = [
        measure_mask(plane, volume.geometry, case.masks[0], drawn, index if several else None, stored=True)
        for index, plane in enumerate(volume.mask)
    ]
    weights = 2.0 ** np.arange(len(volume.mask), dtype=np.float32)
    return CaseFacts(case, image, tuple(masks), align(volume.image, np.tensordot(weights, volume.mask, axes=1)))


def _faults_of_images(source: Source, case: Case) -> Iterator[Finding]:
    if isinstance(source, DicomSource):
        return _faults_of_series(case, resample=source.resamples)
    return _faults_of_files(case) if isinstance(source, FileSource) else _faults_of_scans(case)


def _faults_of_files(case: Case) -> Iterator[Finding]:
    """Images that cannot be read."""
    for path in case.images:
        try:
            read_or_fault(path, read_header(path), case.case_id, partial(read_image_file, path))
        except FaultError as fault:
            yield fault.found


def _faults_of_series(case: Case, *, resample: bool) -> Iterator[Finding]:
    """What keeps DICOM files from being one volume."""
    for path in case.images:
        if not path.stat().st_size:
            yield finding("empty-file", "The file has no byte.", case.case_id, path)
            continue
        try:
            read_dataset(path)
        except DataError as error:
            yield diagnose(path, case.case_id, error)
    for problem in find_series_problems(case.images, resample=resample):
        if problem.code in _CODES:
            yield finding(_CODES[problem.code], strip_remedy(problem.message), case.case_id, case.images[0].parent)


def _faults_of_scans(case: Case) -> Iterator[Finding]:
    """Slices that cannot be read, and numbers that are missing."""
    for path in case.images:
        try:
            read_or_fault(path, read_header(path), case.case_id, partial(raster.read_image, path))
        except FaultError as fault:
            yield fault.found
    numbers = [int(path.name.split("_")[1]) for path in case.images]
    for before, after in pairwise(numbers):
        if after != before + 1:
            said = f"Slice {after} follows slice {before}; expected {before + 1}."
            yield finding(
                "slice-gap" if after > before else "slices-doubled", said, case.case_id, case.images[0].parent
            )
