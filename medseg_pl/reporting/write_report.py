"""The work of `medseg report`: read the runs, write the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medseg_pl.core.errors import SettingError, make_printable
from medseg_pl.io.atomic_files import require_absent, write_text
from medseg_pl.io.scores import note_newest
from medseg_pl.reporting.html.cases import CaseEntry, choose_names, list_case_entries
from medseg_pl.reporting.html.comparison import compare_runs
from medseg_pl.reporting.html.page import render_page
from medseg_pl.reporting.html.pictures import Pictures, load_pictures
from medseg_pl.reporting.readme import fill_readme
from medseg_pl.reporting.run import Run, read_run

_MOST_NOTES = 5
_MOST_RUNS = 8


def write_report(arguments: argparse.Namespace) -> int:
    """Write the page, fill the README, and say what is missing.

    Raises:
        OutputExistsError: The page is there already.
        SettingError: The page is no HTML, or a README is of several runs.
    """
    if arguments.output is None and arguments.readme is None:
        arguments.output = arguments.runs[0] / "report.html"
    if arguments.output is not None and arguments.output.suffix.lower() not in (".html", ".htm"):
        raise SettingError(
            f"-o {arguments.output} is no .html file, and a page is HTML. Name it .html; a browser prints it as PDF."
        )
    if arguments.readme is not None and len(arguments.runs) > 1:
        raise SettingError(f"A README is of one run; {len(arguments.runs)} are given. Name one with --readme.")
    if len(arguments.runs) > _MOST_RUNS:
        raise SettingError(f"A page shows at most {_MOST_RUNS} runs; {len(arguments.runs)} are given. Name fewer.")
    require_absent(arguments.output)
    runs = [read_run(folder, arguments.stage) for folder in arguments.runs]
    for note in filter(None, (note_newest(run.table) for run in runs)):
        _print(note)
    if arguments.readme is not None:
        _fill_readme(arguments.readme, runs[0])
    if arguments.output is not None:
        _write_page(arguments, runs)
    return 0


def _fill_readme(path: Path, run: Run) -> None:
    changed, without = fill_readme(path, run)
    if without:
        _print(f"Note: {path} has no marks for {', '.join(without)}.")
    _print(f"Filled {path}." if changed else f"{path} says what the run says already.")


def _write_page(arguments: argparse.Namespace, runs: Sequence[Run]) -> None:
    names = choose_names(arguments.runs[0], plain=arguments.names)
    if not names.kept:
        _print(f"Note: {arguments.runs[0]} cannot be written to, so nobody can tell which case a hashed name is of.")
    entries = list_case_entries(runs, names)
    compared = compare_runs(runs)
    for one in compared:
        if one.fault:
            _print(f"Note: A and {one.letter} are not compared. {one.fault}")
    pictures = _load_pictures(arguments, runs, entries)
    write_text(arguments.output, render_page(runs, entries, compared, pictures, hashed=names.record is not None))
    _print(f"Wrote {arguments.output}, {arguments.output.stat().st_size / 1e6:.1f} MB.")


def _load_pictures(arguments: argparse.Namespace, runs: Sequence[Run], entries: Sequence[CaseEntry]) -> Pictures:
    """Load the pictures, and say what is missing."""
    pictures = load_pictures(runs, entries, arguments.pictures) if arguments.pictures else Pictures()
    for note in list(dict.fromkeys(pictures.notes))[:_MOST_NOTES]:
        _print(f"Note: {note}")
    if arguments.pictures:
        _print(f"Pictures: {len(pictures.cases)} of {len(entries)} cases.")
    return pictures


def _print(line: str) -> None:
    sys.stdout.write(f"{make_printable(line)}\n")
