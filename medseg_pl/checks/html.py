"""The page of `medseg check`: one file that needs no other, to be read without a terminal."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medseg_pl import __version__
from medseg_pl.checks.codes import KINDS, LEVELS
from medseg_pl.checks.findings import Finding
from medseg_pl.checks.run_checks import Report
from medseg_pl.checks.settings import Settings
from medseg_pl.checks.thumbnails import thumbnail
from medseg_pl.checks.wording import described
from medseg_pl.core.errors import make_printable
from medseg_pl.io.atomic_files import write_text

MOST_PICTURES = 24
_MOST_FILES = 200


def write_page(path: Path, report: Report, settings: Settings, facts: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: A new file.
        report: What was found.
        settings: What was checked.
        facts: What the data set is like.
    """
    # Names of files may be a stranger's: whatever stands in them is text and no markup.
    environment = Environment(
        loader=PackageLoader("medseg_pl.checks", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    page = environment.get_template("page.html.j2").render(
        name=make_printable(settings.root.resolve().name),
        version=__version__,
        levels=LEVELS,
        counts=report.counts(),
        notes=report.notes,
        facts=facts,
        groups=_by_code(report.findings, settings.root),
        most_files=_MOST_FILES,
        pictures=_pictures(report, settings),
    )
    write_text(path, page)


def worst_cases(report: Report) -> list[tuple[str, list[Finding]]]:
    """The cases with the gravest findings, then with most of them; notes make no case one of the worst."""
    of_case: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        if finding.case_id and finding.level != "note":
            of_case[finding.case_id].append(finding)
    known = {facts.case.case_id for facts in report.cases}
    ranked = sorted(
        ((name, found) for name, found in of_case.items() if name in known),
        key=lambda item: (min(LEVELS.index(finding.level) for finding in item[1]), -len(item[1]), item[0]),
    )
    return ranked[:MOST_PICTURES]


def _pictures(report: Report, settings: Settings) -> list[dict[str, Any]]:
    cases = {facts.case.case_id: facts for facts in report.cases}
    pictures = []
    for name, findings in worst_cases(report):
        readable = cases[name].image is not None
        jpeg = thumbnail(settings.source, cases[name].case, report.labels) if readable else None
        data = None if jpeg is None else base64.b64encode(jpeg).decode("ascii")
        said = [described(finding, settings.root) for finding in findings]
        pictures.append({"case_id": make_printable(name), "jpeg": data, "findings": said})
    return pictures


def _by_code(findings: Sequence[Finding], root: Path) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for finding in findings:
        groups[finding.code].append(described(finding, root))
    return [{"code": code, "kind": KINDS[code], "findings": found} for code, found in groups.items()]
