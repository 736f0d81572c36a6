"""Why a file is not read as an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg_pl.io.file_header import content_of
from medseg_pl.io.paths import DETACHED, PICTURES, VOLUMES, LeftOut, find_suffix

_SIDE_FILES = ("thumbs.db", "dicomdir")
"""What Windows and DICOM media put beside images."""
_TEXTS = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".log")
"""Names that promise no image, of files that may as well be empty."""
_HEADERS = (".mhd", ".nhdr")


def explain_unread(path: Path) -> LeftOut:
    """Say why a file is no image here, by its first bytes.

    Args:
        path: A file that its source does not read.
    """
    if path.name.lower() in _SIDE_FILES:
        return LeftOut(path, "A file of the system, no image.", "side-file")
    raw = find_suffix(path, DETACHED)
    if raw and any(path.with_name(path.name[: -len(raw)] + header).is_file() for header in _HEADERS):
        return LeftOut(path, "The voxels of the header beside it.", "side-file")
    content = content_of(path)
    empty_text = content == "nothing" and path.suffix.lower() in _TEXTS
    if empty_text or (content == "text" and path.suffix.lower() != ".svg"):
        return LeftOut(path, "A text, no image.", "side-file")
    if content == "DICOM":
        return LeftOut(path, "A DICOM file, which data.source DicomSource reads.")
    if content in {*PICTURES.values(), *VOLUMES.values()} - {"gzip"}:
        return LeftOut(path, f"The content is {content}, but the name says otherwise. Rename it.")
    what = {"nothing": "The file is empty.", "unknown": "It is of no format that is read."}
    return LeftOut(path, what.get(content, f"The content is {content}, which is not read here."))


def name_other_source(left_out: Iterable[LeftOut], source: str) -> str:
    """Say how a folder is read by another source, where its files are of the other's kind; empty where they are not.

    Args:
        left_out: What one source did not read.
        source: The other one.
    """
    if not any(source in each.reason for each in left_out):
        return ""
    return f"{source} reads such a folder: add --data.source={source} --data.source.root=. to the command. "


def describe_left_out(left_out: Iterable[LeftOut], most: int = 3) -> str:
    """Name what is left out, with its reasons, in a few sentences.

    >>> describe_left_out([LeftOut(Path("a.heic"), "It is of no format that is read.")])
    'a.heic: It is of no format that is read.'
    """
    lost: Sequence[LeftOut] = [each for each in left_out if each.is_lost]
    sentences = [f"{each.path}: {each.reason}" for each in lost[:most]]
    return " ".join([*sentences, *([f"And {len(lost) - most} more."] if len(lost) > most else [])])
