"""`medseg compare`: the scores of two runs case by case, by how much they differ and how sure that is.

A and B are run folders, experiments for their newest run, folders of an evaluation, or tables of scores. Rows are
paired by case and label, differences are B minus A, and what is drawn or flipped are whole patients.

`--json` prints

- `a`, `b`: `{file, stage, unpaired}`, the last being how many of its rows have no partner and were left out;
- `resamples`, `seed`;
- `metrics.<metric>`: `higher_is_better`, `unit` (mm or px, null for a score without one), `labels.<label>`, and `mean`,
  the mean over labels. Labels and mean have the fields of `medseg_pl.metrics.statistics.comparison.Comparison`; a label
  has besides `undefined`, `false_alarms_a` and `false_alarms_b`, see
  `medseg_pl.metrics.statistics.paired_scores.PairedScores`, and `better`: `a`, `b`, or null where no difference is
  shown, the corrected p being 0.05 or more. What cannot be said is null.

`--latex` and `--markdown` write a table for a paper: means with intervals, and the better run in bold only where the
corrected p is below 0.05. `--format` prints one of them.

The file of `--csv` has the same as `--json`, a line for each metric and label; its column `row` is `label` or `mean`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from medseg_pl.cli.arguments import add_json, make_whole_number_type, print_json
from medseg_pl.core.errors import SettingError, count_noun, make_printable
from medseg_pl.io.atomic_files import require_absent, write_text
from medseg_pl.io.config_files import read_mapping
from medseg_pl.io.scores import (
    Row,
    choose_scored_run,
    find_scores,
    format_rows,
    list_tables,
    locate_summary,
    parse_stage,
    read_rows,
)
from medseg_pl.metrics.statistics.comparison import (
    RESAMPLES,
    choose_digits,
    compare_metric,
    conclude,
    count_compared,
    list_notes,
)
from medseg_pl.metrics.statistics.intervals import format_interval, format_number, format_p
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Matched, Table, match
from medseg_pl.reporting.paper_tables import format_latex, format_markdown, make_comparison_table

_LEGEND = (
    "B − A: mean difference, with its 95 % interval. p: sign-flip test over patients, or cases of unknown ones; Holm: "
    "corrected for the labels. w/t/l: cases that B wins, ties, loses. needed: cases that would show this difference, "
    "if it is the true one, in 80 of 100 studies, with as many of each patient as here."
)
_NO_EDGE = 100_000
_WIDTH = 80


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add, default = parser.add_argument, "default: %(default)s"
    run_help = "run folder, runs/EXPERIMENT (its newest run), folder of an evaluation, or table of scores (.csv)"
    add("a", type=Path, metavar="A", help=run_help)
    add("b", type=Path, metavar="B", help="the same of the run to compare with it")
    add(
        "--metric", action="append", metavar="NAME", help="column to compare; can be given several times, default: dice"
    )
    add("--csv", type=Path, metavar="FILE", help="write everything to a new table")
    add("--latex", type=Path, metavar="FILE", help="write a new table for a paper, with booktabs")
    add("--markdown", type=Path, metavar="FILE", help="the same in Markdown")
    printed = "what is printed, default: %(default)s"
    add("--format", choices=["text", "latex", "markdown", "csv"], default="text", help=printed)
    add("--allow_unpaired", action="store_true", help="leave out what only one of the runs has scored")
    add("--resamples", type=make_whole_number_type(100, 1_000_000), default=RESAMPLES, metavar="N", help=default)
    add("--seed", type=make_whole_number_type(0, 2**32 - 1), default=0, metavar="S", help=default)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Compare two tables, print the result, and write requested files.

    Raises:
        OutputExistsError: A file to be written is there already.
    """
    require_absent(arguments.csv, arguments.latex, arguments.markdown)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to fold sentences for
        console = Console(width=_NO_EDGE)
    files = [find_scores(choose_scored_run(path)) for path in (arguments.a, arguments.b)]
    tables = [Table(str(file), read_rows(file)) for file in files]
    metrics = [check_metric(name, tables) for name in dict.fromkeys(arguments.metric or ["dice"])]
    matched = match(*tables, allow_unpaired=arguments.allow_unpaired)
    how = {"resamples": arguments.resamples, "seed": arguments.seed}
    result = {
        **_sides(files, matched),
        **how,
        "metrics": {name: compare_metric(matched, name, tables, **how) for name in metrics},
    }
    made = make_comparison_table(result["metrics"], matched, tables, [_name_run(file) for file in files])
    texts = {"latex": format_latex(made), "markdown": format_markdown(made), "csv": format_rows(csv_rows(result))}
    if arguments.json:
        print_json(result)
    elif arguments.format != "text":
        sys.stdout.write(texts[arguments.format])
    else:
        for line in introduce(files):
            console.print(Text(line), soft_wrap=True)  # a path that is folded cannot be copied
        print_comparison(console, result)
    for kind, text in texts.items():
        if arguments[kind] is not None:
            write_text(arguments[kind], text)
            # What is printed for a program or a paper stays as it is.
            if not arguments.json and arguments.format == "text":
                sys.stdout.write(f"Wrote {make_printable(str(arguments[kind]))}\n")
    return 0


def _name_run(file: Path) -> str:
    """Name a run for a caption by its folders or its table.

    >>> _name_run(Path("runs/demo/version_0/scores_test.csv")), _name_run(Path("ours.csv"))
    ('demo, version_0', 'ours')
    """
    if parse_stage(file) is None:
        return file.stem
    folders = file.resolve().parent.parts
    return ", ".join(folders[-1:] if parse_stage(file) == "crossval" else folders[-2:])


def check_metric(name: str, tables: Sequence[Table]) -> str:
    """Return a metric that both tables can be compared by.

    Raises:
        SettingError: It does not say which run is better, or a table lacks it.
    """
    lacking = [table for table in tables if name not in table.rows[0]]
    comparable = [column for column in HIGHER_IS_BETTER if all(column in table.rows[0] for table in tables)]
    choice = f"Choose from {', '.join(comparable) or 'nothing: no other column of both can be compared'}."
    if len(lacking) < len(tables) and name not in HIGHER_IS_BETTER:
        raise SettingError(f"--metric {name}: neither higher nor lower is better, so it cannot rank runs. {choice}")
    if lacking:
        near = difflib.get_close_matches(name, comparable, n=1)
        hint = f"Did you mean {near[0]}?" if near and near[0] != name else choice
        raise SettingError(
            f"--metric {name}: there is no such column in {' and '.join(t.name for t in lacking)}. {hint}"
        )
    return name


def csv_rows(result: Mapping[str, Any]) -> list[Row]:
    """Make the rows of `--csv`, with unknown fields empty."""
    rows: list[Row] = []
    for metric, compared in result["metrics"].items():
        labels = [("label", name, fields) for name, fields in compared["labels"].items()]
        for kind, name, fields in [*labels, ("mean", "", compared["mean"])]:
            low, high = fields["interval"] or (None, None)
            flat = {**fields, "interval_low": low, "interval_high": high}
            known = {key: "" if value is None else value for key, value in flat.items() if key != "interval"}
            rows.append({"metric": metric, "unit": compared["unit"] or "", "row": kind, "label": name, **known})
    return rows


def introduce(files: Sequence[Path]) -> list[str]:
    """Name the compared tables, and what a reader should know of them."""
    lines = [f"A  {files[0]}", f"B  {files[1]}"]
    a, b = (_name_scored_cases(file) for file in files)
    if a and b and a != b:
        lines.append(f"Note: A holds scores of {a}, B of {b}.")
    for side, file in zip("AB", files, strict=True):
        tables = list_tables(file.parent, stage) if (stage := parse_stage(file)) else []
        if others := sorted(other.name for other in tables if other != file):
            which = "the newest of several" if file == tables[-1] else "not the newest"
            lines.append(
                f"Note: {file.name} of {side} is {which}, beside {', '.join(others)}; name a file to compare it."
            )
    return [*lines, *_note_lengths(files)]


def _note_lengths(files: Sequence[Path]) -> list[str]:
    """Note that one run was trained for more steps than the other."""
    steps = [(read_mapping(file.parent / "complete.json") or {}).get("steps") for file in files]
    if None in steps or steps[0] == steps[1]:
        return []
    return [f"Note: A was trained for {steps[0]} steps, B for {steps[1]}."]


_SCORED = {"val": "validation cases", "test": "test cases", "crossval": "cases out of fold", "evaluate": "given masks"}


def _name_scored_cases(table: Path) -> str:
    """Name the cases of a run's table, which in a test without test cases are those of validation."""
    stage = parse_stage(table)
    if stage == "test":
        summary = read_mapping(locate_summary(table)) or {}
        stage = (summary.get("scored") or {}).get("side", stage)
    return _SCORED.get(stage or "", "")


def print_comparison(console: Console, result: Mapping[str, Any]) -> None:
    """Print a table and a plain sentence for each metric of `--json`."""
    unpaired = [result[side]["unpaired"] for side in "ab"]
    if any(unpaired):
        _say(console, f"Left out: {count_noun(unpaired[0], 'row')} that only A has, {unpaired[1]} that only B has.")
    for metric, compared in result["metrics"].items():
        better = "higher" if compared["higher_is_better"] else "lower"
        unit = f" in {compared['unit']}" if compared["unit"] else ""
        _say(
            console,
            f"\n{metric}{unit} ({better} is better): {count_compared(compared)}",
        )
        table = comparison_table(compared, choose_digits(metric), ruled=console.is_terminal)
        console.print(table, width=min(console.width, _WIDTH))
        _say(console, conclude(metric, compared["labels"]))
        for line in list_notes(compared):
            _say(console, line)
    _say(console, f"\n{_LEGEND}")


def comparison_table(compared: Mapping[str, Any], decimals: int, *, ruled: bool) -> Grid:
    """Make a table of one metric that fits 80 columns.

    It has a row for each label, and one for the mean of several.

    Args:
        compared: As `compare_metric` gives it.
        decimals: Digits after the point.
        ruled: Whether a line separates the header.
    """
    frame, padding = (box.SIMPLE_HEAD, 0) if ruled else (None, (0, 1))
    table = Grid(box=frame, padding=padding, pad_edge=False, show_edge=False)
    table.add_column("label", overflow="fold")
    for name in ("A", "B", "B − A", "95 % interval", "p", "Holm", "w/t/l", "needed"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, fields in compared["labels"].items():
        table.add_row(Text(make_printable(label)), *_cells(fields, decimals))
    if len(compared["labels"]) > 1:
        table.add_row("mean", *_cells(compared["mean"], decimals), style="bold")
    return table


def _cells(fields: Mapping[str, Any], decimals: int) -> list[str]:
    """Format numbers as they are printed, unknown ones as a dash."""
    numbers = [format_number(fields[name], decimals) for name in ("mean_a", "mean_b", "difference")]
    ends = format_interval(fields["interval"], decimals)
    by_case = "–" if fields["wins"] is None else f"{fields['wins']}/{fields['ties']}/{fields['losses']}"
    needed = "–" if fields["cases_needed"] is None else f"{fields['cases_needed']}"
    return [*numbers, ends, format_p(fields["p"]), format_p(fields["p_holm"]), by_case, needed]


def _sides(files: Sequence[Path], matched: Matched) -> dict[str, Any]:
    """Describe both sides of the comparison."""
    sides = zip("ab", files, (matched.only_a, matched.only_b), strict=True)
    return {side: {"file": str(file), "stage": parse_stage(file), "unpaired": only} for side, file, only in sides}


def _say(console: Console, text: str) -> None:
    """Lines of plain words, of which nothing is taken for markup."""
    console.print(Text("\n".join(make_printable(line) for line in text.split("\n"))))
