"""What DICOM files are and whom they refer to, from their headers alone, and which series lie in a folder."""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydicom import config, uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info, read_partial

from medseg_pl.core.errors import DataError, MissingDataError, UnreadableFileError
from medseg_pl.io.paths import DICOM, list_files
from medseg_pl.io.progress import open_thread_pool

FileKind = Literal["image", "projection", "segmentation", "structures", "other"]

LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"  # of 2024, and unknown to pydicom 3.0

_KINDS: dict[str, FileKind] = {
    **dict.fromkeys(
        (
            uid.CTImageStorage,
            uid.EnhancedCTImageStorage,
            uid.LegacyConvertedEnhancedCTImageStorage,
            uid.MRImageStorage,
            uid.EnhancedMRImageStorage,
            uid.LegacyConvertedEnhancedMRImageStorage,
            uid.PositronEmissionTomographyImageStorage,
            uid.EnhancedPETImageStorage,
            uid.LegacyConvertedEnhancedPETImageStorage,
        ),
        "image",
    ),
    **dict.fromkeys(
        (
            uid.ComputedRadiographyImageStorage,
            uid.DigitalXRayImageStorageForPresentation,
            uid.DigitalXRayImageStorageForProcessing,
            uid.DigitalMammographyXRayImageStorageForPresentation,
            uid.DigitalMammographyXRayImageStorageForProcessing,
        ),
        "projection",
    ),
    uid.SegmentationStorage: "segmentation",
    LABELMAP_STORAGE: "segmentation",
    uid.RTStructureSetStorage: "structures",
}

_MAGIC = slice(128, 132)

# What pydicom and the decoders raise on bytes that make no sense
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError),
    *(RecursionError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
    *(BytesLengthException, InvalidDicomError),
)

_FIRST_ELEMENTS = {(group, element) for group in (0x0002, 0x0008) for element in (0, 1, 5, 8, 0x12, 0x16)}

_FIRST_KINDS = (b"UL", b"CS", b"DA", b"UI")

_GROUP = (0x0002, 0x0008)

_FRAME_OF_REFERENCE = 0x00200052

_REFERENCED_FRAMES_OF_REFERENCE = 0x30060010  # of structure sets

IMAGES = ("image", "projection")

_REFERENCES = ("segmentation", "structures")

# A network drive answers slowly, but several at once
_THREADS = 8


class DicomFile(NamedTuple):
    """Header fields that sort a file among others.

    Attributes:
        path: The file.
        kind: What it holds.
        series: The series it belongs to; of a projection, which is a case of its own, the image.
        frame_of_reference: The coordinate systems that it names.
        refers_to: The series it was drawn on.
        patient_id: Empty unless it was asked for.
        number: Of the series in its study; empty where the file does not say.
        content: What the standard calls such files.
    """

    path: Path
    kind: FileKind
    series: str
    frame_of_reference: tuple[str, ...]
    refers_to: tuple[str, ...]
    patient_id: str
    number: str = ""
    content: str = ""


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM, with or without a preamble."""
    with explain_damage(path), path.open("rb") as file:
        begin = file.read(_MAGIC.stop)
    return begin[_MAGIC] == b"DICM" or _lacks_preamble(begin)


def _lacks_preamble(begin: bytes) -> bool:
    r"""Tell whether bytes begin with the first element of a data set.

    Its length must be what it says.

    >>> begin = bytes.fromhex("0800 0500 4353 0a00") + b"ISO_IR 100" + b"\x08\0" * 9
    >>> _lacks_preamble(begin), _lacks_preamble(bytes(132))
    (True, False)
    """
    if len(begin) < 16:
        return False
    group, element = struct.unpack_from("<2H", begin)
    if (group, element) not in _FIRST_ELEMENTS:
        return False
    explicit = begin[4:6] in _FIRST_KINDS
    length = struct.unpack_from("<H", begin, 6)[0] if explicit else struct.unpack_from("<I", begin, 4)[0]
    following = (8 + length, *_GROUP) if 8 + length + 2 <= len(begin) else None
    return length <= 64 and (following is None or struct.unpack_from("<H", begin, following[0])[0] in _GROUP)


def read_entry(path: Path, *, patient: bool = False) -> DicomFile | None:
    """Read the header fields that sort a DICOM file.

    Args:
        path: The file.
        patient: Whether to read the PatientID too.

    Returns:
        `None` for other files that do not claim to be DICOM.

    Raises:
        UnreadableFileError: The file should be DICOM, and is not or is damaged.
    """
    if path.suffix.lower() not in DICOM and not is_dicom(path):
        return None
    _check_readable(path)
    with explain_damage(path):
        dataset = _read_until(path, _FRAME_OF_REFERENCE)
        if (kind := get_kind(dataset)) == "structures":
            dataset = _read_until(path, _REFERENCED_FRAMES_OF_REFERENCE)
        return DicomFile(
            path=path,
            kind=kind,
            series=get_text(dataset, "SOPInstanceUID" if kind == "projection" else "SeriesInstanceUID"),
            frame_of_reference=tuple(_list_reference_frames(dataset)),
            refers_to=tuple(_list_references(dataset)),
            patient_id=get_text(dataset, "PatientID") if patient else "",
            number=get_text(dataset, "SeriesNumber"),
            content=uid.UID(get_text(dataset, "SOPClassUID")).name,
        )


def read_dataset(path: Path, *, pixels: bool = False) -> Dataset:
    """Read the header of a file, with its pixels on request.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: It is no DICOM, or it is damaged.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist.")
    _check_readable(path)
    with explain_damage(path):
        dataset = dcmread(path, stop_before_pixels=not pixels, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble nothing else says it
            implicit, _ = dataset.original_encoding
            syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = syntax
        return dataset


def get_kind(dataset: Dataset) -> FileKind:
    """Return the kind of content by the SOP class."""
    return _KINDS.get(get_text(dataset, "SOPClassUID"), "other")


def get_text(dataset: Dataset, keyword: str) -> str:
    """Return an element's value as text without padding, empty if missing.

    >>> get_text(Dataset(), "Modality")
    ''
    """
    return str(dataset.get(keyword) or "").strip()


def read_modality(path: Path) -> str:
    """Read a file's modality, such as `CT`; empty if it is missing."""
    return get_text(read_dataset(path), "Modality")


def get_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, none if it is missing."""
    return list(dataset.get(keyword) or ())


def require_element(dataset: Dataset, keyword: str, path: Path) -> Any:
    """Return the value of an element that the file must have.

    Raises:
        UnreadableFileError: It is missing or empty.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        raise UnreadableFileError(
            f"{path} has no {keyword}, without which it cannot be read. Export it again as a whole."
        )
    return value


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Convert pydicom's errors on damaged bytes to one that names the file.

    The original text stays out of the message, since it may quote any element of the header.

    Raises:
        UnreadableFileError: The bytes are damaged.
    """
    try:
        yield
    except _DAMAGE as error:
        raise UnreadableFileError(
            f"{path} ({_format_size(path)}) cannot be read as DICOM: its content is damaged or cut off "
            f"({type(error).__name__}). Replace it with an intact copy."
        ) from error


def _check_readable(path: Path) -> None:
    """Require DICOM of a kind that is not inflated without a bound."""
    if not is_dicom(path):
        raise UnreadableFileError(
            f"{path} ({_format_size(path)}) is no DICOM file: expected 'DICM' behind the first 128 bytes. Replace it "
            "with an intact copy, convert it (dcmconv of DCMTK adds what old files lack), or move it away."
        )
    # Values that break a rule of the standard are common and harmless, and a warning would quote them.
    config.settings.reading_validation_mode = config.IGNORE
    with explain_damage(path):
        with path.open("rb") as file:
            bare = _lacks_preamble(file.read(_MAGIC.stop))
        meta = Dataset() if bare else read_file_meta_info(path)
        deflated = get_text(meta, "TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian
    if deflated:
        raise UnreadableFileError(
            f"{path} is deflated as a whole, so its size is unknown before it is unpacked. Convert it to Explicit VR "
            "Little Endian, for example with dcmconv +te of DCMTK."
        )


def _read_until(path: Path, last: int) -> Dataset:
    """Read the elements up to a tag, and leave the rest unparsed."""
    with path.open("rb") as file:
        return read_partial(file, stop_when=lambda tag, vr, length: tag > last, force=True)


def _format_size(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "no file"


def _list_references(dataset: Dataset) -> Iterator[str]:
    """List the series that a segmentation or a structure set names."""
    for series in get_items(dataset, "ReferencedSeriesSequence"):
        yield get_text(series, "SeriesInstanceUID")
        for image in get_items(series, "ReferencedInstanceSequence"):
            if _KINDS.get(get_text(image, "ReferencedSOPClassUID")) == "projection":
                yield get_text(image, "ReferencedSOPInstanceUID")
    for frame in get_items(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in get_items(frame, "RTReferencedStudySequence"):
            for series in get_items(study, "RTReferencedSeriesSequence"):
                yield get_text(series, "SeriesInstanceUID")


def _list_reference_frames(dataset: Dataset) -> Iterator[str]:
    own = get_text(dataset, "FrameOfReferenceUID")
    others = (
        get_text(item, "FrameOfReferenceUID") for item in get_items(dataset, "ReferencedFrameOfReferenceSequence")
    )
    yield from dict.fromkeys(name for name in (own, *others) if name)


class DicomTree:
    """Headers of the DICOM files below a folder, each read once.

    Args:
        root: The folder, or a single file.
        patients: Whether to read the PatientID.

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
        """Images of each folder, by its path below the root.

        Those of the root itself have the root's name.
        """
        folders: dict[str, list[DicomFile]] = defaultdict(list)
        for entry in self.entries:
            if entry.kind in IMAGES:
                folders[self.name_folder(entry)].append(entry)
        return dict(folders)

    def name_folder(self, entry: DicomFile) -> str:
        """Return the folder of a file, by which its case is called."""
        relative = entry.path.parent.relative_to(self.root).as_posix()
        return self.root.resolve().name if relative == "." else relative

    @cached_property
    def series(self) -> dict[str, list[DicomFile]]:
        """The images of each case, by its name; see `name_series`."""
        named: dict[str, list[DicomFile]] = {}
        for folder, entries in self.images.items():
            for name, members in name_series(folder, entries).items():
                named[find_free_name(name, named)] = members
        return named

    @cached_property
    def references(self) -> dict[str, DicomFile]:
        """Segmentations and structure sets by their path below the root."""
        return {e.path.relative_to(self.root).as_posix(): e for e in self.entries if e.kind in _REFERENCES}

    def drawn_on(self, reference: DicomFile) -> set[str]:
        """Find the series that a reference names, else those sharing its coordinates."""
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


def find_free_name(name: str, taken: Container[str]) -> str:
    """Append a number to a name that another case has.

    >>> find_free_name("p1/left", {"p1/left"})
    'p1/left_2'
    """
    if name not in taken:
        return name
    return next(free for number in count(2) if (free := f"{name}_{number}") not in taken)


def name_series(folder: str, entries: Sequence[DicomFile]) -> dict[str, list[DicomFile]]:
    """Divide a folder's images into cases: one for each series or projection.

    A folder's only series is called after the folder, several are `<folder>/series_<number>`; without numbers that
    tell them apart they stay together, to be refused as mixed. A projection is `<folder>/<file>`.

    Returns:
        The images of each case, by its name.
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
        return named | {
            find_free_name(f"{folder}/series_{min(entry.number for entry in members)}", named): members
            for members in series.values()
        }
    together = [entry for entry in entries if entry.kind == "image"]
    return named | ({folder: together} if together else {})
