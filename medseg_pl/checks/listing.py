"""Listing of a data set's cases, with the problems of its names and lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import signature

from medseg_pl.checks import file_checks, geometry_checks
from medseg_pl.checks.findings import Codes, Finding, error, note, warning
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import OnProblem, Problem, abbreviate, strip_remedy

CODES: Codes = Codes(
    {
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
            "the group pattern does not match, so the patient is unknown",
            "Correct the pattern so that it matches every name.",
        ),
        "shared-mask": error(
            "a mask that belongs to several images or labels", "Make the names, or the pattern, tell them apart."
        ),
        "mask-count": error(
            "another number of mask files than labels need", "Give each label its mask, or name the labels."
        ),
    }
)

# A source's problems may be those of files and of slices, too.
_ALL_CODES = Codes({**file_checks.CODES, **CODES, **geometry_checks.CODES})

_LEFT_OUT = {
    "unread": "unread-file",
    "dead-link": "broken-link",
    "repeated-link": "repeated-link",
    "side-file": "ignored-file",
}


@dataclass(frozen=True)
class CaseListing:
    """The cases of a data set before any file is read.

    Args:
        cases: All that have an image; masks may be missing.
        findings: What is wrong with names and lists.
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
    if not cases and not any(_ALL_CODES[problem.code].level == "error" for problem in problems):
        problems.append(_explain_no_cases(source))
    findings = [_ALL_CODES.find(*problem) for problem in problems]
    findings += [*_report_left_out(source), *_compare_names(cases)]
    return CaseListing(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(findings))


def _list_tolerantly(source: Source, on_problem: OnProblem) -> list[Case]:
    """List the cases; of a source that collects no problems the first one is the only one."""
    if "on_problem" in signature(source.cases).parameters:
        return source.cases(on_problem=on_problem)
    return source.cases()


def _explain_no_cases(source: Source) -> Problem:
    """Say why a data set is empty where its listing has reported nothing."""
    try:
        source.cases()
    except DataError as fault:
        return Problem("no-cases", strip_remedy(str(fault)))
    return Problem("no-cases", "There is no case.")


def _report_left_out(source: Source) -> Iterator[Finding]:
    """Report files and links that are in no case: those that may hold an image one by one, the others together."""
    try:
        left_out = source.list_left_out()
    except DataError:  # the listing's own fault, which is among the findings
        return
    for kind, code in _LEFT_OUT.items():
        several = [each for each in left_out if each.kind == kind]
        if kind in ("unread", "dead-link"):
            yield from (_ALL_CODES.find(code, each.reason, "", each.path) for each in several)
        elif several:
            names = abbreviate([each.path.name for each in several])
            yield _ALL_CODES.find(code, f"{len(several)}: {names}. {several[0].reason}", "", several[0].path)


def _compare_names(cases: Iterable[Case]) -> Iterator[Finding]:
    """Find names that differ in capitals only."""
    alike: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[case.case_id.lower()].append(case)
    for same in alike.values():
        if len(same) > 1:
            message = f"{abbreviate([case.case_id for case in same])} differ in capitals only."
            yield CODES.find("names-differ-by-case", message, same[0].case_id, same[0].images[0])
