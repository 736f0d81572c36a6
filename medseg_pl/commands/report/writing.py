"""The work of `medseg report`: read the runs, write the page."""

from __future__ import annotations

import argparse
import sys

from medseg_pl.commands.report.cases import case_entries
from medseg_pl.commands.report.comparing import comparisons
from medseg_pl.commands.report.names import names_for
from medseg_pl.commands.report.page import page_of
from medseg_pl.commands.report.reading import read_run
from medseg_pl.core.errors import OutputExistsError
from medseg_pl.io.files import write_text


def write_report(arguments: argparse.Namespace) -> int:
    """Write the page, and say what is not on it.

    Raises:
        OutputExistsError: The page is there already.
    """
    if arguments.output.exists():
        raise OutputExistsError(f"{arguments.output} exists already and is not overwritten. Choose another file.")
    runs = [read_run(folder, arguments.stage) for folder in arguments.runs]
    names = names_for(arguments.runs[0], plain=arguments.names)
    if not names.kept:
        _say(f"Note: {arguments.runs[0]} cannot be written to, so nobody can tell which case a hashed name is of.")
    entries = case_entries(runs, names)
    compared = comparisons(runs)
    for one in compared:
        if one.fault:
            _say(f"Note: A and {one.letter} are not compared. {one.fault}")
    write_text(arguments.output, page_of(runs, entries, compared, hashed=names.record is not None))
    _say(f"Wrote {arguments.output}, {arguments.output.stat().st_size / 1e6:.1f} MB.")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
