"""Tables for a paper, as LaTeX and Markdown: what is best is bold only where the difference is beyond chance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medseg_pl.core.errors import count_noun, make_printable
from medseg_pl.io.scores import LENGTHS, SCORED_BY_FOLD, Row, describe_scored_cases, name_group
from medseg_pl.metrics.statistics.comparison import ALPHA, choose_digits, list_notes
from medseg_pl.metrics.statistics.intervals import NOTHING, RESAMPLES, Values, bootstrap_means, format_number, format_p
from medseg_pl.metrics.statistics.paired_scores import Matched, Table, pair_scores
from medseg_pl.reporting.markdown import escape, format_table
from medseg_pl.reporting.run import Run
from medseg_pl.reporting.summary import compute_mean_interval

METRICS = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "hd95": ("HD95", 1),
    "assd": ("ASSD", 2),
    "nsd": ("NSD", 3),
}
"""What a paper calls a metric, and its digits."""


class Cell(NamedTuple):
    """A field of a table, in bold where a difference is shown."""

    text: str
    bold: bool = False


class PaperTable(NamedTuple):
    """A table with a row for each label.

    Attributes:
        name: Of its reference, `tab:<name>` in LaTeX.
        caption: Says what the numbers are.
        header: Names of the columns.
        groups: Rows; a rule separates the groups.
    """

    name: str
    caption: str
    header: list[str]
    groups: list[list[list[Cell]]]


def format_latex(table: PaperTable) -> str:
    """Format a table for LaTeX with the package booktabs.

    The cells that all rows of a group begin with become its heading.
    """
    # A column that says the same in each row would push the last one off the page of an article.
    headed = len(table.header) > 2 and all(len({row[0] for row in group}) == 1 for group in table.groups)
    columns = table.header[1:] if headed else table.header
    header = " & ".join(escape_latex(name) for name in columns)
    groups = [_format_latex_group(group, len(columns) if headed else None) for group in table.groups]
    # Written out and not by a package for tables: a paper's own style may redefine these commands.
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}.",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{escape_latex(table.caption)}}}",
            f"  \\label{{tab:{table.name}}}",
            "  \\footnotesize\\setlength{\\tabcolsep}{4pt}",
            f"  \\begin{{tabular}}{{@{{}}l{'r' * (len(columns) - 1)}@{{}}}}",
            "    \\toprule",
            f"    {header} \\\\",
            "    \\midrule",
            "\n    \\midrule\n".join(groups),
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def _format_latex_group(group: Sequence[Sequence[Cell]], headed: int | None) -> str:
    """Format the rows of a group, under a heading across columns."""
    rows = [row[1:] if headed else row for row in group]
    lines = [f"    {' & '.join(map(_to_latex, row))} \\\\" for row in rows]
    heading = [f"    \\multicolumn{{{headed}}}{{@{{}}l}}{{{_to_latex(group[0][0])}}} \\\\"] if headed else []
    return "\n".join([*heading, *lines])


def format_markdown(table: PaperTable) -> str:
    """Format a table for Markdown, its caption below."""
    rows = [[_to_markdown(cell) for cell in row] for group in table.groups for row in group]
    return "\n".join([*format_table([escape(name) for name in table.header], rows), "", escape(table.caption), ""])


_APART = "\0"
_LATEX = {
    _APART: "{}",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "–": "--",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
}


def escape_latex(text: str) -> str:
    r"""Escape a stranger's text, so that LaTeX prints it without obeying.

    >>> print(escape_latex(r"50% of large_bowel & \input{x} ± 1"))
    50\% of large\_bowel \& \textbackslash{}input\{x\} $\pm$ 1
    """
    printable = make_printable(" ".join(text.split()))
    # Between signs that TeX would join to one, such as two hyphens.
    apart = re.sub(r"(?<=[-`'?!,])(?=[-`',])", _APART, printable)
    return "".join(_LATEX.get(each, each) for each in apart)


def _to_latex(cell: Cell) -> str:
    # Before a number a hyphen is a minus, which is as long as a plus.
    text = escape_latex(re.sub(r"(?<![^\s\[])-(?=[\d.])", "−", cell.text))
    # A bracket after the end of a row would be taken for its height.
    text = f"{{{text}}}" if text.startswith("[") else text
    return f"\\textbf{{{text}}}" if cell.bold else text


def _to_markdown(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.bold else escape(cell.text)


def make_crossval_table(run: Run) -> PaperTable:
    """Make the table of a cross-validation.

    It holds pooled means with intervals, and their spread over folds.

    Args:
        run: A cross-validation, see `medseg_pl.reporting.run.read_run`.
    """
    summary = run.summary
    shown = _select_metrics(summary)
    spread = (summary.get("folds") or {}).get("foreground_mean", {}), (summary.get("folds") or {}).get("labels", {})
    unit = " and ".join(summary.get("units", []))
    names = [_name_metric(metric, unit) for metric in shown]
    rows = [
        [
            Cell(label),
            *(Cell(_format_mean(described.get(metric) or {}, METRICS[metric][1])) for metric in shown),
            Cell(_format_spread((spread[1].get(label) or {}).get("dice"))),
            Cell(str((described.get("dice") or {}).get("n", NOTHING))),
            Cell(str((described.get("counts") or {}).get("n_missed", NOTHING))),
        ]
        for label, described in summary["labels"].items()
    ]
    means = summary.get("foreground_mean", {})
    # Of the other metrics the summary has intervals by label alone.
    pooled = {**summary.get("foreground_ci95", {}), "dice": compute_mean_interval(run)}
    last = [
        Cell("mean"),
        *(
            Cell(_format_mean({"mean": means.get(metric), "ci95": pooled.get(metric)}, METRICS[metric][1]))
            for metric in shown
        ),
        Cell(_format_spread(spread[0].get("dice"))),
        Cell(str(summary.get("n_cases", NOTHING))),
        Cell(""),
    ]
    caption = (
        f"Out-of-fold scores of {describe_scored_cases(summary, run.stage)} in {count_noun(len(run.folds), 'fold')}: "
        f"mean over cases [95 % bootstrap interval over {name_group(summary)}s]; each case is scored by the model that "
        f"was not trained on its patient. {SCORED_BY_FOLD} Over folds: mean ± standard deviation of the folds' mean "
        "Dice, which is no confidence interval: quote the means over cases."
    )
    header = ["label", *names, "Dice over folds", "cases", "missed"]
    return PaperTable(run.stage, caption, header, [rows, [last]])


def list_crossval_rows(run: Run) -> list[Row]:
    """List the numbers of `make_crossval_table` for a program.

    There is a row for each label and metric.
    """
    folds = (run.summary.get("folds") or {}).get("labels", {})
    rows: list[Row] = []
    for label, described in run.summary["labels"].items():
        for metric in _select_metrics(run.summary):
            fields, spread = described.get(metric) or {}, (folds.get(label) or {}).get(metric) or {}
            low, high = fields.get("ci95") or (None, None)
            numbers = {"mean": fields.get("mean"), "interval_low": low, "interval_high": high}
            numbers |= {"folds_mean": spread.get("mean"), "folds_std": spread.get("std"), "cases": fields.get("n")}
            known = {name: math.nan if value is None else value for name, value in numbers.items()}
            rows.append({"label": label, "metric": metric, **known})
    return rows


def make_comparison_table(
    metrics: Mapping[str, Mapping[str, Any]], matched: Matched, tables: Sequence[Table], names: Sequence[str]
) -> PaperTable:
    """Make the table of two runs.

    The better one is bold where its corrected p is below 0.05.

    Args:
        metrics: The results of `compare_metric`, by the metric's name.
        matched: The paired rows.
        tables: Both tables, as `compare_metric` took them.
        names: The caption's names of both runs.
    """
    groups = []
    for metric, compared in metrics.items():
        digits = choose_digits(metric)
        scores = pair_scores(matched, metric, *(table.name for table in tables))
        name = _name_metric(metric, " and ".join(sorted({str(pair[0].get("unit", "")) for pair in matched.pairs})))
        rows = []
        for label, fields in [*compared["labels"].items(), ("mean", compared["mean"])]:
            paired = [scores[label]] if label in scores else [each for each in scores.values() if each.a]
            ends = [_compute_interval([Values(getattr(each, side), each.groups) for each in paired]) for side in "ab"]
            better = fields.get("better") if "better" in fields else _find_better(fields, compared["higher_is_better"])
            cells = [
                Cell(_format_mean({"mean": fields[f"mean_{side}"], "ci95": interval}, digits), better == side)
                for side, interval in zip("ab", ends, strict=True)
            ]
            difference = _format_mean({"mean": fields["difference"], "ci95": fields["interval"]}, digits)
            p = fields["p_holm"] if label in scores else fields["p"]
            rows.append(
                [Cell(name), Cell(label), *cells, Cell(difference), Cell(format_p(p)), Cell(str(fields["cases"]))]
            )
        groups.append(rows)
    (noun,) = {name_group(compared) for compared in metrics.values()}  # all of the same pairs
    notes = dict.fromkeys(note for compared in metrics.values() for note in list_notes(compared))
    caption = (
        f"A: {names[0]}; B: {names[1]}. Mean over cases [95 % bootstrap interval over {noun}s], and the paired "
        f"difference B − A. p: sign-flip test over {noun}s, corrected for the number of labels by Holm's method, but "
        "for the mean of labels. The better run is bold where p < 0.05, and none is where chance explains the "
        "difference."
    )
    caption = " ".join([caption, *notes])
    return PaperTable("comparison", caption, ["metric", "label", "A", "B", "B − A", "p", "cases"], groups)


def _select_metrics(summary: Mapping[str, Any]) -> list[str]:
    return [metric for metric in METRICS if summary.get("foreground_mean", {}).get(metric) is not None]


def _name_metric(metric: str, unit: str) -> str:
    name = METRICS.get(metric, (metric, 3))[0]
    return f"{name} ({unit})" if metric in LENGTHS and unit else name


def _find_better(mean: Mapping[str, Any], higher_is_better: bool) -> str | None:
    """Find the run with the better mean over labels.

    `None` where the difference may be chance.
    """
    # The mean over labels is one hypothesis, which needs no correction for their number.
    if mean["p"] is None or mean["p"] >= ALPHA or not mean["difference"]:
        return None
    return "b" if (mean["difference"] > 0) == higher_is_better else "a"


def _compute_interval(columns: Sequence[Values]) -> tuple[float, float] | None:
    # A label that no case has in both runs has no values, and would leave the mean without an interval.
    low, high = bootstrap_means([each for each in columns if each.values], resamples=RESAMPLES, seed=0)
    return None if math.isnan(low) else (low, high)


def _format_mean(fields: Mapping[str, Any], digits: int) -> str:
    mean, ends = fields.get("mean"), fields.get("ci95")
    inside = "" if ends is None else f" [{', '.join(format_number(end, digits) for end in ends)}]"
    return f"{format_number(mean, digits)}{inside}"


def _format_spread(fields: Mapping[str, Any] | None) -> str:
    if not fields or fields.get("mean") is None or fields.get("std") is None:
        return NOTHING
    return f"{fields['mean']:.3f} ± {fields['std']:.3f}"
