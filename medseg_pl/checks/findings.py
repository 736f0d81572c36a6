"""One fault of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medseg_pl.checks.codes import KINDS, LEVELS, Level


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Args:
        code: A key of `KINDS`; stays the same from release to release.
        level: That of the kind.
        case_id: The case, or nothing where it is about the whole data set.
        file: The file that is at fault, or `None`.
        message: What was expected, and what came.
        remedy: What to do now.
    """

    code: str
    level: Level
    case_id: str
    file: Path | None
    message: str
    remedy: str


def finding(code: str, message: str, case_id: str = "", file: Path | None = None) -> Finding:
    """A finding of a kind that is declared in `KINDS`."""
    kind = KINDS[code]
    return Finding(code, kind.level, case_id, file, message, kind.remedy)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By level, then in the order of the registry, then by case and file."""
    order = {code: place for place, code in enumerate(KINDS)}
    return sorted(
        findings, key=lambda f: (LEVELS.index(f.level), order[f.code], f.case_id, str(f.file or ""), f.message)
    )
