"""Cases of data sets that are trees of slices, folder by folder: one that cannot be used hides no other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from medseg_pl.checks.file_checks import without_remedy
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.listings import Found, group_in
from medseg_pl.checks.naming import make_case
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import DicomSource, UWMadisonSource
from medseg_pl.io.atomic_files import files_below
from medseg_pl.io.dicom.headers import Entry, read_entry
from medseg_pl.io.dicom.stack import mixed_series
from medseg_pl.io.dicom.tree import IMAGES, name_series


def cases_of_scans(source: UWMadisonSource) -> Found:
    """One case for each folder of scans whose names can be read."""
    cases: dict[str, Case] = {}
    found: list[Finding] = []
    files = files_below(source.root / "train")
    for scans in sorted({path.parent for path in files if path.parent.name == "scans" and path.suffix == ".png"}):
        try:
            (case,) = source.unlabeled(scans.parent).cases()
        except DataError as error:
            found.append(finding("listing-invalid", without_remedy(str(error)), scans.parent.name, scans))
            continue
        if case.case_id in cases:
            found.append(finding("duplicate-name", "Two folders have this name.", case.case_id, scans.parent))
            continue
        cases[case.case_id] = Case(case.case_id, case.group, case.images, (source.root / "train.csv",))
    return list(cases.values()), found


def cases_of_dicom(source: DicomSource) -> Found:
    """One case for each series or projection, and the references that were drawn on it."""
    found: list[Finding] = []
    entries = list(_entries(source.root, found))
    images = [entry for entry in entries if entry.kind in IMAGES]
    references = [entry for entry in entries if _is_reference(entry, source)]
    for entry in references:
        if not any(_drawn_on(entry, image) for image in images):
            found.append(finding("missing-image", "It was drawn on a series that is not there.", "", entry.path))
    folders: dict[Path, list[Entry]] = defaultdict(list)
    for entry in images:
        folders[entry.path.parent].append(entry)
    cases = []
    named: dict[str, list[Entry]] = {}
    for folder, members in folders.items():
        place = folder.relative_to(source.root).as_posix() if folder != source.root else source.root.resolve().name
        named |= name_series(place, members)
    for name, members in named.items():
        folder = members[0].path.parent
        if not fnmatchcase(name, source.images):
            continue
        if message := mixed_series([(entry.series, entry.path) for entry in members]):
            found.append(finding("mixed-series", without_remedy(message), name, folder))
            continue
        drawn = tuple(entry.path for entry in references if _drawn_on(entry, members[0]))
        if not drawn and source.references is not None and not source.skip_unreferenced:
            found.append(finding("missing-mask", "Nothing was drawn on the series.", name, members[0].path))
        group = group_in(name, source.group, folder, found) if source.group else name.split("/")[0]
        cases += make_case(found, members[0].path, name, group, tuple(entry.path for entry in members), drawn)
    return cases, found


def _entries(root: Path, found: list[Finding]) -> Iterator[Entry]:
    """Every DICOM file below a folder; one that cannot be read is reported."""
    for path in files_below(root):
        try:
            entry = read_entry(path)
        except DataError as error:
            found.append(finding("unreadable-file", without_remedy(str(error)), "", path))
            continue
        if entry is not None:
            yield entry


def _is_reference(entry: Entry, source: DicomSource) -> bool:
    if source.references is None or entry.kind not in ("segmentation", "structures"):
        return False
    return fnmatchcase(entry.path.relative_to(source.root).as_posix(), source.references)


def _drawn_on(entry: Entry, image: Entry) -> bool:
    if entry.refers_to:
        return image.series in entry.refers_to
    return bool(set(entry.frame_of_reference) & set(image.frame_of_reference))
