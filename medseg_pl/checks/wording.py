"""How findings and files are named to a reader: below the data set, without paths of this machine."""

from __future__ import annotations

from pathlib import Path

from medseg_pl.checks.findings import Finding
from medseg_pl.checks.run_checks import Report
from medseg_pl.core.errors import make_printable


def verdict(report: Report) -> str:
    """The result in one line."""
    counts, cases = report.counts(), len(report.cases)
    said = ", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items())
    advice = "Correct the errors before training." if counts["error"] else "Nothing here keeps it from training."
    return f"{cases} case{'' if cases == 1 else 's'}: {said}. {advice}"


def described(finding: Finding, root: Path) -> dict[str, str]:
    """A finding as it is shown: files are below the data set, and names are text, whatever bytes they are made of."""
    return {
        "code": finding.code,
        "level": finding.level,
        "case_id": make_printable(finding.case_id),
        "file": make_printable(_relative(finding.file, root)),
        "message": make_printable(finding.message.replace(f"{root}/", "")),
        "remedy": finding.remedy,
    }


def _relative(path: Path | None, root: Path) -> str:
    if path is None:
        return ""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
