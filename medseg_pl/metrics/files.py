"""A table of scores as `scores_<stage>.csv`, as `summary_<stage>.json` and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medseg_pl.core.errors import make_printable
from medseg_pl.core.numbers import format_interval, format_number
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.io.scores import PREDICTIONS, Row, choose_numbered_paths, write_rows, write_summary
from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.metrics.summary import Strata, summarize

COUNTS = ("tp", "fp", "fn")
SCORES = ("dice", "iou", "precision", "recall", "hd_mm", "hd95_mm", "assd_mm", "nsd")
VOLUMES = ("volume_reference_ml", "volume_prediction_ml")
_OVERLAP = {"Dice": "dice", "IoU": "iou", "precision": "precision", "recall": "recall"}
_WIDTH = 80
_DISTANCES = {"HD95": "hd95_mm", "ASSD": "assd_mm", "NSD": "nsd"}


def write_scores(
    directory: Path,
    stage: str,
    table: Sequence[CaseScore],
    names: Sequence[str],
    *,
    strata: Strata | None = None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write the table and its summary side by side.

    Where one of the files is there already, both get the same number: `scores_test_2.csv`.

    Args:
        directory: The run folder, or that of an evaluation.
        stage: What was scored: `val`, `test` or `evaluate`.
        table: One row for each case and label.
        names: The labels, in their order.
        strata: What else is known of the cases; becomes columns, and parts of the summary.
        facts: What else the summary should say, such as the tolerance of NSD.

    Returns:
        The file of the table, and the summary.
    """
    # Masks that are kept have the number of their scores.
    scores, file, *_ = choose_numbered_paths(
        directory, f"scores_{stage}.csv", f"summary_{stage}.json", f"{PREDICTIONS}/{stage}"
    )
    summary = {**summarize(table, names, strata=strata), **(facts or {})}
    # Both whole before either is seen, and the summary first: a table without one was left by whoever was stopped.
    with write_atomically(scores) as rows, write_atomically(file) as described:
        write_rows(rows, [make_row(score, (strata or {}).get(score.case_id, {})) for score in table], replace=True)
        write_summary(described, summary, replace=True)
    return scores, summary


def print_scores(scores: Path, summary: Mapping[str, Any], stage: str) -> None:
    """Print what a reader wants first of what `write_scores` gave."""
    console = Console()
    for part in make_summary_tables(summary, stage):
        console.print(part, width=min(console.width, _WIDTH))
    for caution in summary["cautions"]:
        console.print(Text(make_printable(caution)), width=min(console.width, _WIDTH))
    console.print(f"Scores of every case: {scores}", soft_wrap=True, highlight=False, markup=False)


def make_row(score: CaseScore, strata: Mapping[str, str]) -> Row:
    """One line of the table: the columns that every table has, then those of optional metrics, then strata.

    A stratum that has the name of a column, such as `group`, becomes `stratum_group`.
    """
    always = {name: score.values.get(name, math.nan) for name in (*COUNTS, *SCORES, *VOLUMES)}
    optional = {name: value for name, value in score.values.items() if name not in always}
    where = {"case_id": score.case_id, "group": score.group, "label": score.label}
    columns = {**where, **always, "status": score.status, "unit": score.unit, **optional}
    return {**columns, **{f"stratum_{name}" if name in columns else name: value for name, value in strata.items()}}


def make_summary_tables(summary: Mapping[str, Any], stage: str) -> list[Table]:
    """Make tables of the labels' means that fit 80 columns."""
    title = f"{stage}: {summary['n_cases']} cases of {summary['n_groups']} groups"
    tables = [_make_table(summary, title, _OVERLAP, "dice")]
    if "hd95_mm" in summary["foreground_mean"]:
        tables.append(_make_table(summary, f"distances in {' and '.join(summary['units'])}", _DISTANCES, "hd95_mm"))
    return tables


def _make_table(summary: Mapping[str, Any], title: str, columns: Mapping[str, str], headline: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("label", overflow="fold")
    first, *others = columns
    for name in (first, "95 % interval", *others, "missed"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, described in summary["labels"].items():
        value, *rest = (format_number(described.get(name, {}).get("mean"), 4) for name in columns.values())
        interval = format_interval(described.get(headline, {}).get("ci95"), joint=" – ")
        table.add_row(Text(make_printable(label)), value, interval, *rest, str(described["counts"]["n_missed"]))
    value, *rest = (format_number(summary["foreground_mean"].get(name), 4) for name in columns.values())
    table.add_row("mean", value, "", *rest, "", style="bold")
    return table
