"""Which cases a data set has, found in spite of faults: one case's missing file hides no other case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import signature

from medseg_pl.checks.codes import KINDS
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import OnProblem, Problem, abbreviate, strip_remedy


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
    """List the cases of a source, and why there are not more."""
    problems: list[Problem] = []
    try:
        cases = _list_cases(source, problems.append)
    except DataError as error:
        cases = []
        problems.append(Problem("no-cases", strip_remedy(str(error))))
    if not cases and not any(KINDS[problem.code].level == "error" for problem in problems):
        problems.append(_explain_no_cases(source))
    findings = [finding(*problem) for problem in problems]
    findings += [*_about_left_out(source), *_differing_by_case(cases)]
    return Discovered(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(findings))


def _list_cases(source: Source, on_problem: OnProblem) -> list[Case]:
    """List the cases; of a source that collects no problems the first one is the only one."""
    if "on_problem" in signature(source.cases).parameters:
        return source.cases(on_problem=on_problem)
    return source.cases()


def _explain_no_cases(source: Source) -> Problem:
    """Say why a data set is empty where its listing has reported nothing."""
    try:
        source.cases()
    except DataError as error:
        return Problem("no-cases", strip_remedy(str(error)))
    return Problem("no-cases", "There is no case.")


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
        left_out = source.list_left_out()
    except DataError:  # the listing's own fault, which is among the findings
        return
    for kind, code in _CODES.items():
        several = [each for each in left_out if each.kind == kind]
        if kind in ("unread", "dead-link"):
            yield from (finding(code, each.reason, "", each.path) for each in several)
        elif several:
            said = f"{len(several)}: {abbreviate([each.path.name for each in several])}. {several[0].reason}"
            yield finding(code, said, "", several[0].path)


def _differing_by_case(cases: Iterable[Case]) -> Iterator[Finding]:
    alike: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[case.case_id.lower()].append(case)
    for same in alike.values():
        if len(same) > 1:
            names = abbreviate([case.case_id for case in same])
            said = f"{names} differ in capitals only."
            yield finding("names-differ-by-case", said, same[0].case_id, same[0].images[0])
