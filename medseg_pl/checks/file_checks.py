"""Rules for files: their contents, and the names and lists by which they become cases."""

from __future__ import annotations

import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TypeVar

from medseg_pl.checks import geometry_checks
from medseg_pl.checks.findings import Codes, Finding, error, note, warning
from medseg_pl.core.errors import DataError, strip_remedy
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import OnProblem, Problem, abbreviate
from medseg_pl.io.file_header import FileHeader, detect_format, is_cut_off
from medseg_pl.io.paths import PICTURES, promised_format

_COPY = "Replace the file with an intact copy."

CODES: Codes = Codes(
    {
        "no-cases": error("no case was found", "Check the folder, or say with --layout how it is laid out."),
        "empty-file": error("a file of zero bytes", _COPY),
        "truncated-png": error("a PNG that ends too early", _COPY),
        "truncated-jpeg": error("a JPEG that ends too early", _COPY),
        "truncated-gzip": error("a compressed file that ends too early", _COPY),
        "truncated-file": error("a file of another format that ends too early", _COPY),
        "foreign-content": error(
            "the content is not what the name says, and cannot be read", "Download or export the file again."
        ),
        "wrong-extension": warning(
            "the content is of another format than the name says", "Rename the file after its content."
        ),
        "decompression-bomb": error(
            "a small file that claims to be huge; it is not decoded", "Remove the file, or tile the image."
        ),
        "unreadable-file": error("a file that cannot be decoded", _COPY),
        "unreadable-case": error("a case that cannot be put together", "Correct what the message says."),
        "multi-page-tiff": error(
            "a TIFF whose pages are of several sizes, or follow each other along several axes",
            "Write each image to a file of its own.",
        ),
        "broken-link": error("a link to a file that is not there", "Restore the file, or remove the link."),
        "link-outside": warning(
            "a link that leads out of the data set",
            "Copy the file into the data set if its pixels are to be used and shown.",
        ),
        "unread-file": warning(
            "a file that may hold an image and is not read", "Convert it, or move it away if it is none."
        ),
        "repeated-link": note(
            "a link to a folder that is read under another name", "Nothing, if the folder is one patient's."
        ),
        "ignored-file": note("a file that holds no image"),
        "missing-mask": error("an image without a mask", "Add the mask, or move the image away."),
        "missing-image": error("a mask without an image", "Add the image, or move the mask away."),
        "bad-name": error("a name that results cannot be written under", "Rename it."),
        "duplicate-name": error("two files, or two rows, with one name", "Keep one of them, or rename it."),
        "pair-differs-by-case": error(
            "an image and a mask whose names differ in capitals only", "Rename one of the two."
        ),
        "names-differ-by-case": warning(
            "names that differ in capitals only, which are one name on Windows and macOS", "Rename one of them."
        ),
        "listed-file-missing": error(
            "a list names a file that does not exist", "Correct the entry, or complete the data."
        ),
        "listed-path-outside": error(
            "a list names a file outside the data set", "Move the file inside, or set the root."
        ),
        "listing-invalid": error("an entry of a list cannot be used", "Correct or remove the entry."),
        "unlisted-file": note("an image that no list names", "Add it to the list, or move it away."),
        "group-unknown": error(
            "a name in which the pattern finds no patient",
            "Correct data.source.group so that it matches every name, or leave it out.",
        ),
        "shared-mask": error(
            "a mask that belongs to several images or labels", "Make the names, or the pattern, tell them apart."
        ),
        "mask-count": error(
            "another number of mask files than labels need", "Give each label its mask, or name the labels."
        ),
    }
)

Read = TypeVar("Read")

DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, zlib.error),
)
"""What decoders may raise on bytes that make no sense, beyond what the readers foresee."""

_TRUNCATED = {"PNG": "truncated-png", "JPEG": "truncated-jpeg", "gzip": "truncated-gzip"}

# A source's problems may be those of slices, too.
_LISTED_CODES = Codes({**CODES, **geometry_checks.CODES})

_LEFT_OUT = {
    "unread": "unread-file",
    "dead-link": "broken-link",
    "repeated-link": "repeated-link",
    "side-file": "ignored-file",
}


class FaultError(Exception):
    """Reading stopped at a fault that a finding describes.

    It never leaves this package.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def read_or_diagnose(
    path: Path, header: FileHeader, case_id: str, read: Callable[[], Read], memory_bytes: int | None = None
) -> Read:
    """Return what `read` returns, or raise a finding.

    Args:
        path: The file.
        header: Its header.
        case_id: The case.
        read: Decodes the file.
        memory_bytes: Files that claim more are not decoded; the machine's memory by default.

    Raises:
        FaultError: The file cannot be read; it holds the finding.
    """
    size = path.stat().st_size
    claimed = f"{header.claimed_bytes:,} bytes" if header.claimed_bytes else "too many pixels"
    too_large = f"A file of {size:,} bytes claims {claimed} once decoded."
    if memory_bytes is None:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if header.content == "nothing":
        raise FaultError(CODES.find("empty-file", "The file has no byte.", case_id, path))
    # Before anything is decoded: a bomb of some kilobytes would fill the memory.
    if header.too_large or header.claimed_bytes > memory_bytes:
        raise FaultError(CODES.find("decompression-bomb", too_large, case_id, path))
    if header.cut_off:
        message = f"The {header.content} file of {size:,} bytes ends before its data does."
        raise FaultError(CODES.find("truncated-file", message, case_id, path))
    if header.stacked:
        message = "The TIFF holds several images that make no volume."
        raise FaultError(CODES.find("multi-page-tiff", message, case_id, path))
    try:
        return read()
    except (DataError, *DAMAGE) as fault:
        raise FaultError(diagnose(path, case_id, fault)) from fault
    except MemoryError as fault:
        raise FaultError(CODES.find("decompression-bomb", too_large, case_id, path)) from fault


def diagnose(path: Path, case_id: str, fault: Exception) -> Finding:
    """Find the fault of a file that its reader could not read."""
    content, promised = detect_format(path), promised_format(path)
    size = path.stat().st_size
    if content == "nothing":
        return CODES.find("empty-file", "The file has no byte.", case_id, path)
    if promised is not None and content not in (promised, "unknown") and not _is_read_anyway(content, promised):
        message = f"The name says {promised}, the content is {content} ({size:,} bytes)."
        return CODES.find("foreign-content", message, case_id, path)
    if is_cut_off(path):
        message = f"The {content} file of {size:,} bytes ends before its data does."
        return CODES.find(_TRUNCATED.get(content, "truncated-file"), message, case_id, path)
    return CODES.find("unreadable-file", describe_error(fault), case_id, path)


def check_extension(path: Path, header: FileHeader, case_id: str) -> Iterator[Finding]:
    """Find a file that was read although its name says something else."""
    promised = promised_format(path)
    if promised is not None and header.content not in (promised, "unknown", "nothing"):
        message = f"The name says {promised}, the content is {header.content}."
        yield CODES.find("wrong-extension", message, case_id, path)


def check_links(path: Path, root: Path, case_id: str) -> Iterator[Finding]:
    """Find a link that leads out of the data set.

    It may be the file, or a folder on the way to it.
    """
    above = [parent for parent in path.parents if parent.is_relative_to(root) and parent != root]
    if any(each.is_symlink() for each in (path, *above)) and not path.resolve().is_relative_to(root.resolve()):
        yield CODES.find("link-outside", "A link leads out of the data set.", case_id, path)


def describe_error(fault: Exception) -> str:
    """Say what went wrong, in a sentence without advice."""
    if isinstance(fault, DataError):
        return strip_remedy(str(fault))
    return f"Decoding fails: {type(fault).__name__}: {' '.join(str(fault).split())[:200]}."


def _is_read_anyway(content: str, promised: str) -> bool:
    """Tell whether readers open this content under this name."""
    # The damage is then elsewhere.
    return content in PICTURES.values() and promised in set(PICTURES.values()) - {"TIFF"}


@dataclass(frozen=True)
class CaseListing:
    """The cases of a data set before any file is read.

    Args:
        cases: All that have an image; masks may be missing.
        findings: Faults of names and lists.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]


def list_cases(source: Source) -> CaseListing:
    """List the cases of a source, and why there are not more."""
    problems: list[Problem] = []
    try:
        cases = _list_tolerantly(source, problems.append)
    except DataError as fault:
        cases = []
        problems.append(Problem("no-cases", strip_remedy(str(fault))))
    if not cases and not any(_LISTED_CODES[problem.code].level == "error" for problem in problems):
        problems.append(_explain_no_cases(source))
    findings = [_LISTED_CODES.find(*problem) for problem in problems]
    findings += [*_report_left_out(source), *_compare_names(cases)]
    return CaseListing(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(findings))


def _list_tolerantly(source: Source, on_problem: OnProblem) -> list[Case]:
    """List the cases, and report problems.

    A source that collects no problems reports only the first one.
    """
    if "on_problem" in signature(source.cases).parameters:
        return source.cases(on_problem=on_problem)
    return source.cases()


def _explain_no_cases(source: Source) -> Problem:
    """Explain why a data set without reported problems is empty."""
    try:
        source.cases()
    except DataError as fault:
        return Problem("no-cases", strip_remedy(str(fault)))
    return Problem("no-cases", "There is no case.")


def _report_left_out(source: Source) -> Iterator[Finding]:
    """Report files and links that belong to no case."""
    # Files that may hold an image are reported one by one, the others together.
    try:
        left_out = source.list_left_out()
    except DataError:  # the listing's own fault, which is among the findings
        return
    for kind, code in _LEFT_OUT.items():
        several = [each for each in left_out if each.kind == kind]
        if kind in ("unread", "dead-link"):
            yield from (_LISTED_CODES.find(code, each.reason, "", each.path) for each in several)
        elif several:
            names = abbreviate([each.path.name for each in several])
            yield _LISTED_CODES.find(code, f"{len(several)}: {names}. {several[0].reason}", "", several[0].path)


def _compare_names(cases: Iterable[Case]) -> Iterator[Finding]:
    """Find names that differ in capitals only."""
    alike: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[case.case_id.lower()].append(case)
    for same in alike.values():
        if len(same) > 1:
            message = f"{abbreviate([case.case_id for case in same])} differ in capitals only."
            yield CODES.find("names-differ-by-case", message, same[0].case_id, same[0].images[0])
