"""Inspection of cases: each is read once, several at a time, measured, and its files' faults are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.checks import file_checks, geometry_checks, mask_checks
from medseg_pl.checks.file_checks import (
    DAMAGE,
    FaultError,
    check_extension,
    check_links,
    describe_error,
    diagnose,
    read_or_diagnose,
)
from medseg_pl.checks.findings import Alignment, CaseFacts, Codes, Finding, ImageFacts, MaskFacts
from medseg_pl.checks.geometry_checks import find_file_axes
from medseg_pl.checks.pixel_measurement import measure_alignment, measure_image, measure_mask
from medseg_pl.core.errors import DataError, GeometryError, LabelOverlapError, MaskValueError, count_noun, strip_remedy
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import DicomSource, FileSource, Source
from medseg_pl.data.sources.files import find_turn, read_image_file, read_mask_file
from medseg_pl.io import raster
from medseg_pl.io.dicom.headers import get_text, read_dataset
from medseg_pl.io.dicom.series import find_series_problems, open_series
from medseg_pl.io.file_header import FileHeader, read_header
from medseg_pl.io.progress import open_thread_pool

_CODES = Codes({**file_checks.CODES, **mask_checks.CODES, **geometry_checks.CODES})
_SERIES_CODES = {
    "mixed": "mixed-series",
    "unlike": "slices-differ",
    "duplicate": "slices-doubled",
    "gap": "slice-gap",
    "uneven": "slice-gap",
}
_MASK_CODES: dict[type[Exception], str] = {
    LabelOverlapError: "mask-overlap",
    MaskValueError: "mask-unknown-value",
    GeometryError: "shape-mismatch",
}
# With more values in a mask, their borders are not those of structures.
_MOST_VALUES = 64

_Pixels = tuple[NDArray[Any], Geometry]


class _MaskFile(NamedTuple):
    """A mask that could be read."""

    path: Path
    label: int | None
    pixels: NDArray[Any]
    geometry: Geometry

    @property
    def plane(self) -> NDArray[Any]:
        """Values `(D, H, W)`, or colors combined into one number."""
        return self.pixels if self.pixels.ndim == 3 else self.pixels.max(axis=0)


@dataclass
class _CaseReader:
    """Reads the files of one case and collects their faults."""

    case_id: str
    headers: dict[Path, FileHeader]
    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str, path: Path) -> None:
        """Add a finding."""
        self.findings.append(_CODES.find(code, message, self.case_id, path))

    def read(self, path: Path, decode: Callable[[], _Pixels]) -> _Pixels | None:
        """Read a file, `None` where it cannot be."""
        try:
            pixels = read_or_diagnose(path, self.headers[path], self.case_id, decode)
        except FaultError as fault:
            self.findings.append(fault.finding)
            return None
        self.findings.extend(check_extension(path, self.headers[path], self.case_id))
        return pixels

    def check_headers(self) -> None:
        """Find what headers say that is easily overlooked."""
        for path, header in self.headers.items():
            if header.times:
                message = f"The fourth axis has {header.times} points in time; they are read as channels."
                self.add("time-axis", message, path)
            if header.unspaced:
                self.add("spacing-unset", "The header gives no spacing.", path)

    def turn(self, path: Path, pixels: _Pixels, first: _Pixels | None) -> _Pixels:
        """Reorient a file as its source does, and note it."""
        if first is None or (turn := find_turn(pixels[1], first[1])) is None:
            return pixels
        codes = [find_file_axes(grid) for grid in (pixels[1], first[1]) if grid.affine is not None]
        self.add("axes-turned", f"Its axes run towards {codes[0]}, those of the image towards {codes[-1]}.", path)
        return turn.apply(pixels[0]), pixels[1].reorient(turn)


def inspect_cases(
    source: Source,
    cases: Sequence[Case],
    labels: LabelMap | None,
    root: Path,
    workers: int,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[CaseFacts]:
    """Read every case once, in order.

    A fault of one case is among its findings and does not stop the others. Threads do the work: decoders and array code
    release the interpreter, and a process would have to import torch first.

    Args:
        source: Reads the cases.
        cases: The cases to read.
        labels: The labels of the masks; `None` to infer them from the masks.
        root: The data set's folder, for links that lead out of it.
        workers: How many cases are read, and in memory, at once.
        advance: Called after each case.
    """
    with open_thread_pool(workers) as pool:
        for facts in pool.map(partial(inspect_case, source, labels=labels, root=root), cases):
            advance()
            yield facts


def inspect_case(source: Source, case: Case, *, labels: LabelMap | None, root: Path) -> CaseFacts:
    """Read one case, and find its faults.

    Args:
        source: Reads the case.
        case: The case.
        labels: The labels of the masks; `None` to infer them from the masks.
        root: The data set's folder, for links that lead out of it.
    """
    links = [found for path in (*case.images, *case.masks) for found in check_links(path, root, case.case_id)]
    if isinstance(source, FileSource) and source.has_value_masks(case):
        facts = _inspect_files(source, case, labels)
    else:
        assert labels is not None, "layouts that are no files name their labels"
        facts = _inspect_volume(source, case, labels)
    return replace(facts, findings=(*links, *facts.findings))


def _inspect_files(source: FileSource, case: Case, labels: LabelMap | None) -> CaseFacts:
    """Read the mask files of a case, and the label of each."""
    shares = source.count_label_files(case)
    if len(case.masks) <= 1 and len(shares) <= 1 and (labels is None or not labels.overlapping):
        return _measure_files(case, [None] * len(case.masks), labels)
    if case.masks and labels is not None and len(shares) != len(labels.names):
        amount = count_noun(len(labels.names), "label")
        message = f"{count_noun(len(case.masks), 'mask file')} for the {amount} {', '.join(labels.names)}."
        facts = _measure_files(replace(case, masks=()), [], labels)
        finding = _CODES.find("mask-count", message, case.case_id, case.masks[0])
        return replace(facts, case=case, findings=(*facts.findings, finding))
    return _measure_files(case, [label for label, share in enumerate(shares) for _ in range(share)], labels)


def _measure_files(case: Case, mask_labels: Sequence[int | None], labels: LabelMap | None) -> CaseFacts:
    """Read and measure images and masks in files of their own."""
    reader = _CaseReader(case.case_id, {path: read_header(path) for path in (*case.images, *case.masks)})
    reader.check_headers()
    channels = [reader.read(path, partial(read_image_file, path)) for path in case.images]
    channels = [
        channel and reader.turn(path, channel, channels[0]) for path, channel in zip(case.images, channels, strict=True)
    ]
    pixels, image = _measure_channels(case, [channel for channel in channels if channel is not None], reader)
    masks = []
    for path, label in zip(case.masks, mask_labels, strict=True):
        mask = reader.read(path, partial(read_any_mask, path, labels))
        masks.extend([] if mask is None else [_MaskFile(path, label, *reader.turn(path, mask, channels[0]))])
    facts = tuple(measure_mask(m.pixels, m.geometry, m.path, reader.headers[m.path], m.label) for m in masks)
    # Overlap and alignment would be misjudged where one of the masks is missing.
    complete = len(masks) == len(case.masks) and len({mask.plane.shape for mask in masks}) == 1
    return CaseFacts(
        case,
        image,
        facts,
        alignment=_align_files(pixels, masks, facts) if complete else None,
        overlap=_count_overlap(masks, labels) if complete else 0,
        findings=tuple(reader.findings),
    )


def _measure_channels(
    case: Case, channels: Sequence[_Pixels], reader: _CaseReader
) -> tuple[NDArray[Any] | None, ImageFacts | None]:
    """Join and measure all channels, unless a file cannot be read."""
    if len(channels) < len(case.images):
        return None, None
    same = len({values.shape[1:] for values, _ in channels}) == 1
    pixels = np.concatenate([values for values, _ in channels]) if len(channels) > 1 and same else channels[0][0]
    grids = [geometry for _, geometry in channels]
    return pixels, measure_image(pixels, grids, case.images, [reader.headers[path] for path in case.images])


def read_any_mask(path: Path, labels: LabelMap | None = None) -> _Pixels:
    """Read a mask's values, or its colors.

    Colors are read where the labels are known by them or the file holds nothing else.
    """
    try:
        return read_mask_file(path, labels)
    except MaskValueError:
        pixels = raster.read_mask_colors(path)[:, None]
        return pixels, Geometry((1, pixels.shape[2], pixels.shape[3]))


def _align_files(
    pixels: NDArray[Any] | None, masks: Sequence[_MaskFile], facts: Sequence[MaskFacts]
) -> Alignment | None:
    if pixels is None or pixels.shape[1:] != masks[0].plane.shape:
        return None
    if not all(mask.finite and mask.distinct <= _MOST_VALUES for mask in facts):
        return None
    if len(masks) == 1:
        return measure_alignment(pixels, masks[0].plane)
    # A bit for each label: borders show wherever any of the masks changes.
    weights = 2.0 ** np.arange(len(masks), dtype=np.float32)
    return measure_alignment(pixels, np.tensordot(weights, [mask.plane != 0 for mask in masks], axes=1))


def _count_overlap(masks: Sequence[_MaskFile], labels: LabelMap | None) -> int:
    """Count the voxels that the files of several labels mark."""
    ignored = None if labels is None else labels.ignore_value
    planes: dict[int | None, NDArray[np.bool_]] = {}
    for mask in masks:
        plane = (mask.plane != 0) & (mask.plane != ignored)
        planes[mask.label] = plane | planes.get(mask.label, False)
    return int((np.sum(list(planes.values()), axis=0) > 1).sum())


def _inspect_volume(source: Source, case: Case, labels: LabelMap) -> CaseFacts:
    """Read a case as its source does, else find the faulty file."""
    try:
        volume = source.read(case, labels)
    except (DataError, *DAMAGE) as error:
        return _diagnose_volume(source, case, labels, error)
    return replace(_measure_volume(source, case, volume), findings=tuple(_find_resampling(source, case)))


def _find_resampling(source: Source, case: Case) -> Iterator[Finding]:
    """Find the resampling of a series with uneven slices."""
    if not isinstance(source, DicomSource) or not source.resamples:
        return
    series = open_series(case.images, resample=True)
    for problem in series.unevenness:
        code, message = "slices-interpolated", strip_remedy(problem.message)
        if problem.code == "uneven" and series.resampling:
            code = "slices-resampled"
            slices = count_noun(series.geometry.shape[0], "slice")
            message += f" Resampled to {slices}, {series.resampling.distance_mm:.2f} mm apart."
        yield _CODES.find(code, message, case.case_id, case.images[0].parent)


def _diagnose_volume(source: Source, case: Case, labels: LabelMap, error: Exception) -> CaseFacts:
    """Find what is wrong with the slices.

    Where they are in order, the mask is at fault, and the image is measured.
    """
    if faults := list(_check_images(source, case)):
        return CaseFacts(case, findings=tuple(faults))
    try:
        volume = source.read(replace(case, masks=()), labels)
    except (DataError, *DAMAGE):
        finding = _CODES.find("unreadable-case", describe_error(error), case.case_id, case.images[0])
        return CaseFacts(case, findings=(finding,))
    code = _MASK_CODES.get(type(error), "unreadable-case") if isinstance(source, FileSource) else "unreadable-case"
    finding = _CODES.find(code, describe_error(error), case.case_id, next(iter(case.masks), None))
    return replace(_measure_volume(source, case, volume), findings=(finding,))


def _measure_volume(source: Source, case: Case, volume: Volume) -> CaseFacts:
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
    several, mask_header = len(volume.mask) > 1, FileHeader("text") if single else header
    masks = [
        measure_mask(plane, volume.geometry, case.masks[0], mask_header, index if several else None, stored=True)
        for index, plane in enumerate(volume.mask)
    ]
    weights = 2.0 ** np.arange(len(volume.mask), dtype=np.float32)
    return CaseFacts(
        case, image, tuple(masks), measure_alignment(volume.image, np.tensordot(weights, volume.mask, axes=1))
    )


def _check_images(source: Source, case: Case) -> Iterator[Finding]:
    if isinstance(source, DicomSource):
        return _check_series(case, resample=source.resamples)
    return _check_readable(case, read_image_file) if isinstance(source, FileSource) else _check_scans(case)


def _check_readable(case: Case, read: Callable[[Path], object]) -> Iterator[Finding]:
    """Find images that cannot be read."""
    for path in case.images:
        try:
            read_or_diagnose(path, read_header(path), case.case_id, partial(read, path))
        except FaultError as fault:
            yield fault.finding


def _check_series(case: Case, *, resample: bool) -> Iterator[Finding]:
    """Find what keeps DICOM files from being one volume."""
    for path in case.images:
        if not path.stat().st_size:
            yield _CODES.find("empty-file", "The file has no byte.", case.case_id, path)
            continue
        try:
            read_dataset(path)
        except DataError as error:
            yield diagnose(path, case.case_id, error)
    for problem in find_series_problems(case.images, resample=resample):
        if problem.code in _SERIES_CODES:
            yield _CODES.find(
                _SERIES_CODES[problem.code], strip_remedy(problem.message), case.case_id, case.images[0].parent
            )


def _check_scans(case: Case) -> Iterator[Finding]:
    """Find slices that cannot be read, and numbers that are missing."""
    yield from _check_readable(case, raster.read_image)
    numbers = [int(path.name.split("_")[1]) for path in case.images]
    for before, after in pairwise(numbers):
        if after != before + 1:
            code = "slice-gap" if after > before else "slices-doubled"
            message = f"Slice {after} follows slice {before}; expected {before + 1}."
            yield _CODES.find(code, message, case.case_id, case.images[0].parent)
