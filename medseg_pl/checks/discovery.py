"""Which cases a data set has, found in spite of faults: one case's missing file hides no other case."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg_pl.checks.file_checks import without_remedy
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.listings import Found, cases_of_dataset_json, cases_of_manifest, group_in
from medseg_pl.checks.naming import make_case
from medseg_pl.checks.trees import cases_of_dicom, cases_of_scans
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    Source,
    UWMadisonSource,
)
from medseg_pl.data.sources.base import shown
from medseg_pl.data.sources.files import is_image
from medseg_pl.io.atomic_files import files_below
from medseg_pl.io.suffixes import name_below, stem


@dataclass(frozen=True)
class Discovered:
    """What was found of a data set before any file is read.

    Args:
        cases: All that have an image; masks may be missing.
        findings: What is wrong with names and lists.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]


def discover(source: Source) -> Discovered:
    """The cases of a source, and why there are not more.

    A source that raises nothing is taken at its word. Otherwise its folder is gone through again, case by case.
    """
    found: list[Finding] = []
    try:
        cases = tuple(source.cases())
    except DataError as error:
        tolerated, found = _tolerant(source)
        cases = tuple(sorted(tolerated, key=lambda case: case.case_id))
        if not any(f.level == "error" for f in found):
            found.append(finding("listing-invalid" if cases else "no-cases", without_remedy(str(error))))
    found.extend(_about_left_out(source))
    if isinstance(source, DecathlonSource):
        found.extend(_unlisted(source.root / "imagesTr", cases))
    found.extend(_differing_by_case(cases))
    if not cases and not any(f.level == "error" for f in found):
        found.append(finding("no-cases", "There is no case."))
    return Discovered(cases, tuple(found))


def _tolerant(source: Source) -> Found:
    if isinstance(source, FolderSource):
        return _cases_of_folder(source)
    if isinstance(source, ManifestSource):
        return cases_of_manifest(source)
    if isinstance(source, DecathlonSource):
        return cases_of_dataset_json(source)
    if isinstance(source, UWMadisonSource):
        return cases_of_scans(source)
    if isinstance(source, DicomSource):
        return cases_of_dicom(source)
    return [], []


def _cases_of_folder(source: FolderSource) -> Found:
    """Pair what can be paired."""
    found: list[Finding] = []
    images = {n: path for n, path in _files(source.root / source.images, found).items() if source.is_image_name(n)}
    places = source.places
    masks = {place.folder: _files(source.root / place.folder, found) for place in places}
    names = {folder: sorted(files) for folder, files in masks.items()}
    of_image = {
        image: [[masks[place.folder][name] for name in place.found(image, names[place.folder])] for place in places]
        for image in images
    }
    taken = Counter(path for found_here in of_image.values() for paths in found_here for path in paths)
    images = {name: path for name, path in images.items() if path not in taken}
    orphans = {path for files in masks.values() for path in files.values()} - set(taken) - set(images.values())
    found.extend(
        finding("shared-mask", f"The mask belongs to {times} images or labels.", "", path)
        for path, times in taken.items()
        if times > 1
    )
    lonely = {name: path for name, path in images.items() if not all(of_image[name])}
    found.extend(_unpaired(lonely, orphans))
    cases: list[Case] = []
    for name, path in images.items():
        complete = name not in lonely
        masks_here = tuple(mask for paths in of_image[name] for mask in paths) if complete else ()
        cases += make_case(found, path, name, group_in(name, source.group, path, found), (path,), masks_here)
    return cases, found


def _files(folder: Path, found: list[Finding]) -> dict[str, Path]:
    """Images below a folder by name; a name that is there twice is reported."""
    files: dict[str, Path] = {}
    for path in filter(is_image, files_below(folder)):
        name = name_below(path, folder)
        if name in files:
            found.append(finding("duplicate-name", f"There is also {files[name].name}.", name, path))
        else:
            files[name] = path
    return files


_CODES = {
    "unread": "unread-file",
    "dead-link": "broken-link",
    "repeated-link": "repeated-link",
    "side-file": "ignored-file",
}


def _about_left_out(source: Source) -> Iterator[Finding]:
    """Report files and links that are in no case: those that may hold an image one by one, the others together.

    What no list names is found by the listings, which go on where a source would raise.
    """
    try:
        left_out = source.left_out()
    except DataError:  # the listing's own fault, which is among the findings
        return
    for kind, code in _CODES.items():
        several = [each for each in left_out if each.kind == kind]
        if kind in ("unread", "dead-link"):
            yield from (finding(code, each.reason, "", each.path) for each in several)
        elif several:
            said = f"{len(several)}: {shown([each.path.name for each in several])}. {several[0].reason}"
            yield finding(code, said, "", several[0].path)


def _unlisted(folder: Path, cases: Iterable[Case]) -> Iterator[Finding]:
    listed = {path for case in cases for path in case.images}
    others = [path for path in files_below(folder) if is_image(path) and path not in listed]
    if others:
        said = f"{len(others)} image(s) are in no entry: {shown([path.name for path in others])}."
        yield finding("unlisted-file", said, "", others[0])


def _unpaired(lonely: Mapping[str, Path], orphans: Iterable[Path]) -> Iterator[Finding]:
    """Images without masks and masks without images; those that differ by capitals alone are named together."""
    by_lower = {stem(path).lower(): path for path in orphans}
    matched = set()
    for name, path in lonely.items():
        other = by_lower.get(stem(path).lower())
        if other is None:
            yield finding("missing-mask", "The image has no mask, or not one for each label.", name, path)
        else:
            matched.add(other)
            said = f"The only mask of nearly this name is {other.name}."
            yield finding("pair-differs-by-case", said, name, path)
    for path in sorted(set(by_lower.values()) - matched):
        yield finding("missing-image", "The mask belongs to no image.", "", path)


def _differing_by_case(cases: Iterable[Case]) -> Iterator[Finding]:
    alike: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[case.case_id.lower()].append(case)
    for same in alike.values():
        if len(same) > 1:
            names = shown([case.case_id for case in same])
            said = f"{names} differ in capitals only."
            yield finding("names-differ-by-case", said, same[0].case_id, same[0].images[0])
