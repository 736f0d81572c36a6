"""Which fault a file has that cannot be read, or is not what its name says."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.core.errors import DataError
from medseg_pl.data.sources.base import strip_remedy
from medseg_pl.io.file_header import FileHeader, detect_format, is_cut_off
from medseg_pl.io.paths import PICTURES, promised_format

Read = TypeVar("Read")

DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, zlib.error),
)
"""What decoders may raise on bytes that make no sense, beyond what the readers foresee."""

_TRUNCATED = {"PNG": "truncated-png", "JPEG": "truncated-jpeg", "gzip": "truncated-gzip"}


class FaultError(Exception):
    """Reading stopped at a fault that a finding describes; never leaves this package."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.message)
        self.found = found


def read_or_fault(
    path: Path, header: FileHeader, case_id: str, read: Callable[[], Read], memory_bytes: int | None = None
) -> Read:
    """What `read` returns.

    Args:
        path: The file.
        header: What it says of itself.
        case_id: The case.
        read: Decodes the file.
        memory_bytes: Files that claim more are not decoded; what the machine has by default.

    Raises:
        FaultError: The file cannot be read; it holds the finding.
    """
    limit = physical_memory_bytes() if memory_bytes is None else memory_bytes
    if header.content == "nothing":
        raise FaultError(finding("empty-file", "The file has no byte.", case_id, path))
    if header.too_large or header.claimed_bytes > limit:
        raise FaultError(_bomb(path, header, case_id))
    if header.cut_off:
        said = f"The {header.content} file of {path.stat().st_size:,} bytes ends before its data does."
        raise FaultError(finding("truncated-file", said, case_id, path))
    if header.stacked:
        said = "The TIFF holds several images that make no volume."
        raise FaultError(finding("multi-page-tiff", said, case_id, path))
    try:
        return read()
    except (DataError, *DAMAGE) as error:
        raise FaultError(diagnose(path, case_id, error)) from error
    except MemoryError as error:
        raise FaultError(_bomb(path, header, case_id)) from error


def diagnose(path: Path, case_id: str, error: Exception) -> Finding:
    """The fault of a file at which a reader gave up."""
    content, promised = detect_format(path), promised_format(path)
    size = path.stat().st_size
    if content == "nothing":
        return finding("empty-file", "The file has no byte.", case_id, path)
    if promised is not None and content not in (promised, "unknown") and not _readable_anyway(content, promised):
        said = f"The name says {promised}, the content is {content} ({size:,} bytes)."
        return finding("foreign-content", said, case_id, path)
    if is_cut_off(path):
        said = f"The {content} file of {size:,} bytes ends before its data does."
        return finding(_TRUNCATED.get(content, "truncated-file"), said, case_id, path)
    return finding("unreadable-file", said_of(error), case_id, path)


def extension_findings(path: Path, header: FileHeader, case_id: str) -> Iterator[Finding]:
    """A file that could be read although its name says something else."""
    promised = promised_format(path)
    if promised is not None and header.content not in (promised, "unknown", "nothing"):
        said = f"The name says {promised}, the content is {header.content}."
        yield finding("wrong-extension", said, case_id, path)


def link_findings(path: Path, root: Path, case_id: str) -> Iterator[Finding]:
    """A link that leads out of the data set: the file, or a folder on the way to it."""
    above = [parent for parent in path.parents if parent.is_relative_to(root) and parent != root]
    if any(each.is_symlink() for each in (path, *above)) and not path.resolve().is_relative_to(root.resolve()):
        yield finding("link-outside", "A link leads out of the data set.", case_id, path)


def physical_memory_bytes() -> int:
    """What the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def said_of(error: Exception) -> str:
    """What went wrong, in a sentence without advice."""
    if isinstance(error, DataError):
        return strip_remedy(str(error))
    return f"Decoding fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}."


def _bomb(path: Path, header: FileHeader, case_id: str) -> Finding:
    claimed = f"{header.claimed_bytes:,} bytes" if header.claimed_bytes else "too many pixels"
    said = f"A file of {path.stat().st_size:,} bytes claims {claimed} once decoded."
    return finding("decompression-bomb", said, case_id, path)


def _readable_anyway(content: str, promised: str) -> bool:
    """Whether the readers open this content under this name: then the damage is elsewhere."""
    return content in PICTURES.values() and promised in set(PICTURES.values()) - {"TIFF"}
