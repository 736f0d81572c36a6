"""Every case read once, several at a time: what it is like, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.checks.alignment_check import align
from medseg_pl.checks.file_checks import FaultError, extension_findings, link_findings, read_or_fault
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.geometry_checks import axis_codes
from medseg_pl.checks.image_measurement import measure_image
from medseg_pl.checks.mask_measurement import measure_mask
from medseg_pl.checks.measurements import Alignment, CaseFacts, ImageFacts, MaskFacts
from medseg_pl.checks.series_inspection import inspect_stack
from medseg_pl.core.errors import MaskValueError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.threads import open_thread_pool
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FileSource, Source
from medseg_pl.data.sources.files import find_turn, read_image_file, read_mask_file
from medseg_pl.io import raster
from medseg_pl.io.file_header import FileHeader, read_header

_MOST_VALUES = 64
"""With more values in a mask, their borders are not those of structures."""

Read = tuple[NDArray[Any], Geometry]


class _MaskFile(NamedTuple):
    """A mask that could be read."""

    path: Path
    label: int | None
    pixels: NDArray[Any]
    geometry: Geometry

    @property
    def plane(self) -> NDArray[Any]:
        """`(D, H, W)`, of which colors are brought into one number."""
        return self.pixels if self.pixels.ndim == 3 else self.pixels.max(axis=0)


@dataclass
class _Files:
    """Reads the files of one case and collects what is wrong with them."""

    case_id: str
    headers: dict[Path, FileHeader]
    findings: list[Finding] = field(default_factory=list)

    def read(self, path: Path, decode: Callable[[], Read]) -> Read | None:
        try:
            result = read_or_fault(path, self.headers[path], self.case_id, decode)
        except FaultError as fault:
            self.findings.append(fault.found)
            return None
        self.findings.extend(extension_findings(path, self.headers[path], self.case_id))
        return result

    def report_headers(self) -> None:
        """Note what headers say that is easily overlooked."""
        for path, header in self.headers.items():
            if header.times:
                said = f"The fourth axis has {header.times} points in time; they are read as channels."
                self.findings.append(finding("time-axis", said, self.case_id, path))
            if header.unspaced:
                self.findings.append(finding("spacing-unset", "The header gives no spacing.", self.case_id, path))

    def turn(self, path: Path, read: Read, first: Read | None) -> Read:
        """Reorient a file as its source does, and note it."""
        if first is None or (turn := find_turn(read[1], first[1])) is None:
            return read
        codes = [axis_codes(grid.affine) for grid in (read[1], first[1]) if grid.affine is not None]
        said = f"Its axes run towards {codes[0]}, those of the image towards {codes[-1]}."
        self.findings.append(finding("axes-turned", said, self.case_id, path))
        return turn.apply(read[0]), read[1].reoriented(turn)


def inspect_all(
    source: Source,
    cases: Sequence[Case],
    labels: LabelMap | None,
    root: Path,
    workers: int,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[CaseFacts]:
    """Read every case once, in order; a fault of one case is among its findings and stops nothing.

    Threads, since decoders and array code release the interpreter, and a process would have to import torch first.

    Args:
        source: Reads the cases.
        cases: What to read.
        labels: What masks hold; `None` where that is to be seen from the masks.
        root: The data set's folder, for links that lead out of it.
        workers: How many cases are read, and in memory, at once.
        advance: Called after each case.
    """
    with open_thread_pool(workers) as pool:
        for facts in pool.map(partial(inspect_case, source, labels=labels, root=root), cases):
            advance()
            yield facts


def inspect_case(source: Source, case: Case, *, labels: LabelMap | None, root: Path) -> CaseFacts:
    """What one case is like."""
    links = [f for path in (*case.images, *case.masks) for f in link_findings(path, root, case.case_id)]
    if isinstance(source, FileSource) and source.has_value_masks(case):
        facts = _inspect_case_of_files(source, case, labels)
    else:
        assert labels is not None, "layouts that are no files name their labels"
        facts = inspect_stack(source, case, labels)
    return replace(facts, findings=(*links, *facts.findings))


def _inspect_case_of_files(source: FileSource, case: Case, labels: LabelMap | None) -> CaseFacts:
    """See which label each mask file holds, all of them where there is one file for several labels."""
    if len(case.masks) <= 1 and (labels is None or not labels.overlapping):
        return _inspect_files(case, [None] * len(case.masks), labels)
    shares = source.count_label_files(case)
    if case.masks and labels is not None and len(shares) != len(labels.names):
        said = f"{len(case.masks)} mask file(s) for the {len(labels.names)} labels {', '.join(labels.names)}."
        without = _inspect_files(replace(case, masks=()), [], labels)
        count = finding("mask-count", said, case.case_id, case.masks[0])
        return replace(without, case=case, findings=(*without.findings, count))
    return _inspect_files(case, [label for label, share in enumerate(shares) for _ in range(share)], labels)


def _inspect_files(case: Case, held: Sequence[int | None], labels: LabelMap | None) -> CaseFacts:
    """Images and masks in files of their own."""
    files = _Files(case.case_id, {path: read_header(path) for path in (*case.images, *case.masks)})
    files.report_headers()
    channels = [files.read(path, partial(read_image_file, path)) for path in case.images]
    channels = [
        channel and files.turn(path, channel, channels[0]) for path, channel in zip(case.images, channels, strict=True)
    ]
    pixels, image = _image(case, [channel for channel in channels if channel is not None], files)
    masks = []
    for path, label in zip(case.masks, held, strict=True):
        mask = files.read(path, partial(read_any_mask, path, labels))
        masks.extend([] if mask is None else [_MaskFile(path, label, *files.turn(path, mask, channels[0]))])
    facts = tuple(measure_mask(m.pixels, m.geometry, m.path, files.headers[m.path], m.label) for m in masks)
    complete = len(masks) == len(case.masks) and len({mask.plane.shape for mask in masks}) == 1
    return CaseFacts(
        case,
        image,
        facts,
        alignment=_alignment(pixels, masks, facts) if complete else None,
        overlap=_overlap(masks, labels) if complete else 0,
        findings=tuple(files.findings),
    )


def _image(case: Case, channels: Sequence[Read], files: _Files) -> tuple[NDArray[Any] | None, ImageFacts | None]:
    """The pixels of all channels and what they are like; nothing where a file cannot be read."""
    if len(channels) < len(case.images):
        return None, None
    same = len({values.shape[1:] for values, _ in channels}) == 1
    pixels = np.concatenate([values for values, _ in channels]) if len(channels) > 1 and same else channels[0][0]
    grids = [geometry for _, geometry in channels]
    return pixels, measure_image(pixels, grids, case.images, [files.headers[path] for path in case.images])


def read_any_mask(path: Path, labels: LabelMap | None = None) -> Read:
    """Values, or colors where the labels are known by them or the file holds nothing else."""
    try:
        return read_mask_file(path, labels)
    except MaskValueError:
        pixels = raster.read_mask_colors(path)[:, None]
        return pixels, Geometry((1, pixels.shape[2], pixels.shape[3]))


def _alignment(pixels: NDArray[Any] | None, masks: Sequence[_MaskFile], facts: Sequence[MaskFacts]) -> Alignment | None:
    if pixels is None or pixels.shape[1:] != masks[0].plane.shape:
        return None
    if not all(mask.finite and mask.distinct <= _MOST_VALUES for mask in facts):
        return None
    if len(masks) == 1:
        return align(pixels, masks[0].plane)
    weights = 2.0 ** np.arange(len(masks), dtype=np.float32)
    return align(pixels, np.tensordot(weights, [mask.plane != 0 for mask in masks], axes=1))


def _overlap(masks: Sequence[_MaskFile], labels: LabelMap | None) -> int:
    """Voxels that the files of several labels mark."""
    ignored = None if labels is None else labels.ignore_value
    marked: dict[int | None, NDArray[np.bool_]] = {}
    for mask in masks:
        here = (mask.plane != 0) & (mask.plane != ignored)
        marked[mask.label] = here | marked.get(mask.label, False)
    return int((np.sum(list(marked.values()), axis=0) > 1).sum())
