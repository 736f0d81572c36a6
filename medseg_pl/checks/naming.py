"""Cases with names that results can be written under; others become findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.core.errors import DataError
from medseg_pl.core.text import printable
from medseg_pl.core.types import Case


def make_case(found: list[Finding], path: Path, *fields: Any) -> list[Case]:
    """Make a case, or add a finding where its name leads out of a folder or cannot be printed.

    Args:
        found: Takes the finding.
        path: Where the name stands.
        fields: Those of `Case`, the name first.

    Returns:
        The case, or nothing.
    """
    try:
        return [Case(*fields)]
    except DataError as error:
        found.append(finding("bad-name", str(error).removesuffix(" Rename it."), printable(str(fields[0])), path))
        return []
