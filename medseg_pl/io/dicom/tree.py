"""A folder of DICOM files: which series lie where, and which references were drawn on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

from medseg_pl.core.errors import DataError
from medseg_pl.core.threads import open_thread_pool
from medseg_pl.io.dicom.headers import DicomFile, read_entry
from medseg_pl.io.paths import list_files

IMAGES = ("image", "projection")
_REFERENCES = ("segmentation", "structures")
# A network drive answers slowly, but several at once
_THREADS = 8


class DicomTree:
    """What the headers below a folder say, each read once.

    Args:
        root: The folder, or a single file.
        patients: Whether to read who was scanned.

    Attributes:
        entries: The DICOM files.
        damaged: Files that should be DICOM and cannot be read, and why.
        others: Files that are no DICOM.
    """

    def __init__(self, root: Path, *, patients: bool = False) -> None:
        self.root = root.parent if root.is_file() else root
        paths = [root] if root.is_file() else list(list_files(root))
        with open_thread_pool(_THREADS) as pool:
            found = list(pool.map(partial(_read_or_explain, patient=patients), paths))
        self.entries = tuple(entry for entry in found if isinstance(entry, DicomFile))
        self.damaged = {path: error for path, error in zip(paths, found, strict=True) if isinstance(error, DataError)}
        self.others = tuple(path for path, entry in zip(paths, found, strict=True) if entry is None)

    @cached_property
    def images(self) -> dict[str, list[DicomFile]]:
        """The images of each folder, by its path below the root; the root's own by its name."""
        folders: dict[str, list[DicomFile]] = defaultdict(list)
        for entry in self.entries:
            if entry.kind in IMAGES:
                relative = entry.path.parent.relative_to(self.root).as_posix()
                folders[self.root.resolve().name if relative == "." else relative].append(entry)
        return dict(folders)

    @cached_property
    def series(self) -> dict[str, list[DicomFile]]:
        """The images of each case, by its name; see `name_series`."""
        named: dict[str, list[DicomFile]] = {}
        for folder, entries in self.images.items():
            named |= name_series(folder, entries)
        return named

    @cached_property
    def references(self) -> dict[str, DicomFile]:
        """Segmentations and structure sets by their path below the root."""
        return {e.path.relative_to(self.root).as_posix(): e for e in self.entries if e.kind in _REFERENCES}

    def drawn_on(self, reference: DicomFile) -> set[str]:
        """Find the series that a reference names, or else those in its coordinate system."""
        if reference.refers_to:
            return self._series & set(reference.refers_to)
        return {series for name in reference.frame_of_reference for series in self._placed.get(name, ())}

    @cached_property
    def _series(self) -> set[str]:
        return {entry.series for entries in self.images.values() for entry in entries}

    @cached_property
    def _placed(self) -> dict[str, set[str]]:
        """The series in each coordinate system."""
        placed: dict[str, set[str]] = defaultdict(set)
        for entries in self.images.values():
            for entry in entries:
                for name in entry.frame_of_reference:
                    placed[name].add(entry.series)
        return dict(placed)


def _read_or_explain(path: Path, *, patient: bool) -> DicomFile | DataError | None:
    try:
        return read_entry(path, patient=patient)
    except DataError as error:
        return error


def name_series(folder: str, entries: Sequence[DicomFile]) -> dict[str, list[DicomFile]]:
    """Part the images of a folder into cases: a series each, and each projection by itself.

    A folder's only series is called after the folder, several are `<folder>/series_<number>`; without numbers that
    tell them apart they stay together, to be refused as mixed. A projection is `<folder>/<file>`.
    """
    series: dict[str, list[DicomFile]] = defaultdict(list)
    for entry in entries:
        if entry.kind == "image":
            series[entry.series].append(entry)
    flat = [entry for entry in entries if entry.kind == "projection"]
    stems = [entry.path.stem for entry in flat]
    named = {f"{folder}/{e.path.stem if stems.count(e.path.stem) == 1 else e.path.name}": [e] for e in flat}
    numbers = {min(entry.number for entry in members) for members in series.values()}
    if len(series) > 1 and len(numbers) == len(series) and "" not in numbers:
        return named | {f"{folder}/series_{members[0].number}": members for members in series.values()}
    together = [entry for entry in entries if entry.kind == "image"]
    return named | ({folder: together} if together else {})
