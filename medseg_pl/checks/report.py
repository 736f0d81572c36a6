"""The work of `medseg check`: look, report, and write what was asked for."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medseg_pl.checks.codes import KINDS, Level
from medseg_pl.checks.discovery import discover
from medseg_pl.checks.findings import Finding
from medseg_pl.checks.html import write_page
from medseg_pl.checks.inspection import inspect_all
from medseg_pl.checks.mask_checks import Claims
from medseg_pl.checks.measurements import CaseFacts
from medseg_pl.checks.run_checks import Report, report_on
from medseg_pl.checks.settings import Settings, settings_of
from medseg_pl.checks.wording import described, verdict
from medseg_pl.core.errors import DataError, SettingError, make_printable
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import Source
from medseg_pl.io.atomic_files import require_absent
from medseg_pl.io.progress import show_progress

_WIDTH = 80
_SHOWN = 3
_STYLES: dict[Level, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}


def check(arguments: argparse.Namespace) -> int:
    """Check a data set.

    Returns:
        1 where there is an error in the data, else 0.

    Raises:
        OutputExistsError: A file to be written is there already.
        SettingError: Wrong use.
    """
    require_absent(arguments.html)
    if arguments.patch and min(arguments.patch) < 1:
        raise SettingError(f"--patch needs a height and a width of at least 1 pixel; got {arguments.patch}.")
    settings = settings_of(arguments)
    report = look(settings, arguments.num_workers)
    if arguments.json:
        sys.stdout.write(f"{json.dumps(as_json(report, settings), indent=1)}\n")
    else:
        show(Console(width=_width()), report, settings.root)
    if arguments.html is not None:
        write_page(arguments.html, report, settings, facts(report, settings))
    return 1 if report.counts()["error"] else 0


def look(settings: Settings, workers: int) -> Report:
    """Find the cases, read each, and compare them."""
    found = discover(settings.source)
    with warnings.catch_warnings(), show_progress("Checking cases", len(found.cases)) as advance:
        warnings.simplefilter("ignore")  # decoders warn of damage, of which the findings speak
        labeling = settings.find_labels(found.cases)
        cases = list(inspect_all(settings.source, found.cases, labeling.labels, settings.root, workers, advance))
    _try_as_fit_does(settings.source, labeling.labels, cases)
    report = report_on(
        cases,
        found.findings,
        labeling.labels,
        modalities=settings.opened.modalities,
        tolerated=bool(labeling.labels.tolerance)
        and settings.opened.labels is None
        and settings.said.tolerance is None,
        patch=settings.patch,
        split=partial(settings.sides, found.cases),
    )
    return replace(report, notes=(*labeling.notes, *settings.opened.notes, *report.notes))


def _try_as_fit_does(source: Source, labels: LabelMap, cases: Sequence[CaseFacts]) -> None:
    """Read one intact case through its source, which refuses labels that are not those of its files."""
    intact = next((facts for facts in cases if facts.image and facts.masks and not facts.findings), None)
    if intact is not None:
        with suppress(DataError):  # which the findings tell in detail
            source.read(intact.case, labels)


def show(console: Console, report: Report, root: Path) -> None:
    """Print a table with a row for each code, and the verdict."""
    for note in report.notes:
        console.print(Text(f"Note: {note}."))
    if report.findings:
        console.print(_table(report.findings, root))
    console.print(Text(verdict(report), style="bold"), soft_wrap=True)


def as_json(report: Report, settings: Settings) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "directory": make_printable(str(settings.root)),
        "notes": list(report.notes),
        "data": facts(report, settings),
        "counts": report.counts(),
        "codes": dict(Counter(finding.code for finding in report.findings)),
        "findings": [described(finding, settings.root) for finding in report.findings],
    }


def facts(report: Report, settings: Settings) -> dict[str, Any]:
    """What the data set is like."""
    images = [case.image for case in report.cases if case.image is not None]
    claims = Claims(report.labels)
    held = np.array([claims.voxels(case.masks) for case in report.cases if case.masks], dtype=bool)
    shapes = np.array([image.geometry.shape for image in images])
    spacings = np.array([image.geometry.spacing_mm for image in images if image.geometry.spacing_mm is not None])
    return {
        "source": type(settings.source).__name__,
        "cases": len(report.cases),
        "patients": len({case.case.group for case in report.cases}),
        "labels": dict(zip(report.labels.names, report.labels.file_values, strict=True)),
        "cases_with_label": dict(zip(report.labels.names, held.sum(axis=0).tolist(), strict=True)) if len(held) else {},
        "channels": sorted({image.channels for image in images}),
        "types": dict(Counter(image.dtype for image in images)),
        "shapes": _extent(shapes),
        "spacings_mm": _extent(spacings),
    }


def _extent(lengths: Any) -> Mapping[str, list[float]]:
    """The smallest, the middle and the largest along each axis."""
    if not len(lengths):
        return {}
    ends = {"least": lengths.min(axis=0), "median": np.median(lengths, axis=0), "most": lengths.max(axis=0)}
    return {name: values.tolist() for name, values in ends.items()}


def _table(findings: Sequence[Finding], root: Path) -> Table:
    by_code: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_code[finding.code].append(finding)
    table = Table(box=box.SIMPLE, width=_width(), pad_edge=False)
    table.add_column("found", justify="right")
    table.add_column("level", no_wrap=True)
    table.add_column("code, what, where, and what to do", overflow="fold")
    for code, several in by_code.items():
        level = several[0].level
        table.add_row(str(len(several)), Text(level, _STYLES[level]), _description(code, several, root))
    return table


def _description(code: str, findings: Sequence[Finding], root: Path) -> Text:
    said = [described(finding, root) for finding in findings]
    named = list(dict.fromkeys(one["file"] or one["case_id"] for one in said if one["file"] or one["case_id"]))
    text = Text(code, style="bold").append(f": {KINDS[code].meaning}\n", style="not bold")
    text.append(f"{said[0]['message']}\n" if len(said) == 1 else "", style="dim not bold")
    for place in named[:_SHOWN]:
        text.append(f"{place}\n", style="cyan not bold")
    text.append(f"and {len(named) - _SHOWN} more\n" if len(named) > _SHOWN else "", style="cyan not bold")
    return text.append(f"→ {KINDS[code].remedy}", style="not bold")


def _width() -> int:
    """That of the terminal, but no wider than can be read with ease; the same for files and pipes."""
    console = Console()
    return min(_WIDTH, console.width) if console.is_terminal else _WIDTH
