"""Summaries of scores: from one row for each case and label to a paper's few numbers, as files and on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medseg_pl.core.errors import count_noun, make_printable
from medseg_pl.io.atomic_files import write_atomically, write_text
from medseg_pl.io.scores import (
    DISTANCES,
    LENGTHS,
    PREDICTIONS,
    Row,
    choose_numbered_paths,
    describe_scored_cases,
    format_summary,
    knows_patients,
    name_group,
    write_rows,
)
from medseg_pl.metrics.case_metric import FALSE_ALARM, MISSED, NOT_ANNOTATED, UNDEFINED, CaseScore
from medseg_pl.metrics.functional.overlap import OverlapCounts, dice
from medseg_pl.metrics.measures import FORMULAS
from medseg_pl.metrics.object_summary import summarize_objects
from medseg_pl.metrics.objects import OBJECT_COLUMNS, ObjectTable
from medseg_pl.metrics.statistics.intervals import (
    RESAMPLES,
    Values,
    bootstrap_means,
    describe,
    format_interval,
    format_number,
    note_few_groups,
)

# What is known of each case, by its id: `{"case_1": {"site": "A"}}`.
Strata = Mapping[str, Mapping[str, str]]

COUNTS = ("tp", "fp", "fn")

SCORES = ("dice", "iou", "precision", "recall", "hd", "hd95", "assd", "nsd")

VOLUMES = ("volume_reference_ml", "volume_prediction_ml")

_OVERLAP = {"Dice": "dice", "IoU": "iou", "precision": "precision", "recall": "recall"}

_WIDTH = 80

# The scores whose mean over labels has an interval: those that the tables print with one.
_HEADLINES = {"dice": "Dice", "hd95": "HD95"}

_EXPLAINED = {
    "dice": "missed: cases with the label in which nothing of it was found",
    "hd95": (
        "HD95: 95 % of the outlines are at most this far apart; ASSD: how far on average; NSD: the share of the "
        "outlines within the tolerance"
    ),
}

_DISTANCES = {"HD95": "hd95", "ASSD": "assd", "NSD": "nsd"}


def summarize(
    scores: Sequence[CaseScore], names: Sequence[str], *, intervals: bool = True, strata: Strata | None = None
) -> dict[str, Any]:
    """Compute the content of `summary_<stage>.json`.

    Per label the mean over cases with its interval, drawn over groups; `foreground_mean` is the mean of the labels'
    means, and `foreground_ci95` its interval for Dice and HD95. Pooled Dice comes from the summed counts and has a name
    of its own: large cases outweigh small ones in it, and leaving a bad case out can improve it.

    Args:
        scores: One for each case and label.
        names: The labels, in their order.
        intervals: Whether the bootstrap intervals are wanted, which take most of the time; `cautions` come with them.
        strata: Where given, `strata.<name>.<value>` summarizes the cases of each value, such as those of each site.
    """
    summary = _summarize(scores, names, intervals)
    for stratum in dict.fromkeys(name for known in (strata or {}).values() for name in known):
        values = {case_id: known[stratum] for case_id, known in (strata or {}).items() if stratum in known}
        summary.setdefault("strata", {})[stratum] = {
            value: _summarize([score for score in scores if values.get(score.case_id) == value], names, intervals)
            for value in sorted({values[score.case_id] for score in scores if score.case_id in values})
        }
    return summary


def average_foreground(labels: dict[str, dict[str, Any]], metric: str) -> float | None:
    """Average the labels' means of one metric.

    Returns:
        `None` where no label has a mean.

    >>> average_foreground({"a": {"dice": {"mean": 0.5}}, "b": {"dice": {"mean": None}}}, "dice")
    0.5
    """
    means = [label[metric]["mean"] for label in labels.values() if metric in label]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known else None


def _summarize(scores: Sequence[CaseScore], names: Sequence[str], intervals: bool) -> dict[str, Any]:
    of_label = {name: [score for score in scores if score.label == name] for name in names}
    metrics = _list_metrics(scores)
    labels = {name: _summarize_label(rows, metrics, intervals) for name, rows in of_label.items()}
    averaged = [metric for metric in metrics if not metric.startswith(("volume_", "objects_"))]
    headlines = [metric for metric in _HEADLINES if intervals and metric in metrics]
    ends = {metric: _compute_mean_interval(of_label.values(), metric) for metric in headlines}
    return {
        "foreground_mean": {metric: average_foreground(labels, metric) for metric in averaged},
        "labels": labels,
        "pooled": {name: {"dice": _pool_dice(rows)} for name, rows in of_label.items()},
        "units": sorted({score.unit for score in scores}),
        "n_cases": len({score.case_id for score in scores}),
        "n_groups": len({score.group for score in scores}),
        "patients_known": _know_patients(scores),
        **(
            {"foreground_ci95": ends, "cautions": list_cautions(scores, names) + _note_cut(scores, labels)}
            if intervals
            else {}
        ),
    }


def _summarize_label(scores: Sequence[CaseScore], metrics: Sequence[str], intervals: bool) -> dict[str, Any]:
    groups = [score.group for score in scores]
    described = {
        metric: describe([float(score.values.get(metric, math.nan)) for score in scores], groups, interval=intervals)
        for metric in metrics
    }
    statuses = Counter(score.status for score in scores)
    counts = {"n_undefined": statuses[UNDEFINED], "n_missed": statuses[MISSED], "n_false_alarm": statuses[FALSE_ALARM]}
    unknown = {"n_not_annotated": statuses[NOT_ANNOTATED]} if statuses[NOT_ANNOTATED] else {}
    return {**described, "counts": {**counts, **unknown}}


def _compute_mean_interval(labels: Iterable[Sequence[CaseScore]], metric: str) -> list[float] | None:
    """Compute the interval of the mean over labels that have a score."""
    known = [
        [(float(value), score.group) for score in rows if not math.isnan(value := score.values.get(metric, math.nan))]
        for rows in labels
    ]
    columns = [Values(*zip(*pairs, strict=True)) for pairs in known if pairs]
    low, high = bootstrap_means(columns, resamples=RESAMPLES, seed=0)
    return None if math.isnan(low) else [low, high]


def _list_metrics(scores: Sequence[CaseScore]) -> list[str]:
    """List the columns that are scores: all but the counts.

    Distances are left out where some cases have them in mm and others in pixels: their mean would mean nothing.
    """
    columns = dict.fromkeys(name for score in scores for name in score.values) if scores else FORMULAS
    left_out = {*OverlapCounts._fields}
    if len({score.unit for score in scores}) > 1:
        left_out |= {*DISTANCES}
    return [name for name in columns if name not in left_out]


def _pool_dice(scores: Sequence[CaseScore]) -> float | None:
    zero = OverlapCounts(0, 0, 0)
    counted = (score.values for score in scores if score.status != NOT_ANNOTATED)
    total = sum((OverlapCounts(*(int(values[key]) for key in OverlapCounts._fields)) for values in counted), zero)
    value = dice(total)
    return None if math.isnan(value) else value


# Misses that are rarer than this change a mean by less than most intervals are wide.
_RARE = 0.05


def list_cautions(scores: Sequence[CaseScore], names: Sequence[str]) -> list[str]:
    """List for which labels an interval says too little, and why.

    There may be few patients, or no miss among them. An interval of a mean knows of misses only where some were seen:
    in simulations with misses, the intervals that do not hold the true mean come nearly all from data sets without a
    miss; see `benchmarks/intervals.py`.

    Args:
        scores: One for each case and label.
        names: The labels, in their order.
    """
    noun = name_group({"patients_known": _know_patients(scores)})
    groups = {name: _count_groups([score for score in scores if score.label == name]) for name in names}
    several = {name: total for name, (total, _) in groups.items() if total >= 2}
    unseen = {name: total for name, total in several.items() if not groups[name][1]}
    said = [
        f"{labels}: {note[0].lower()}{note[1:]}"
        for total, labels in _join_by_total(several).items()
        if (note := note_few_groups(total, noun))
    ]
    said += [
        f"{labels}: found, if only in part, in each of {count_noun(total, noun)} here; up to "
        f"{100 * estimate_most_missed(total):.0f} % of all {noun}s may still be missed altogether (upper 95 % limit). "
        "Quote it with the scores."
        for total, labels in _join_by_total(unseen).items()
        if estimate_most_missed(total) > _RARE
    ]
    return said


def _note_cut(scores: Sequence[CaseScore], labels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Note which intervals end at the best or the worst case, where `bootstrap_means` cuts them off."""
    cut: dict[str, list[str]] = {}
    for metric, title in _HEADLINES.items():
        names = [
            name
            for name, described in labels.items()
            if _is_cut(
                [score.values.get(metric, math.nan) for score in scores if score.label == name], described, metric
            )
        ]
        cut.setdefault(", ".join(names), []).append(title)
    return [
        f"{names}: {_join_titles(titles)} cut off at the best or the worst case. Quote a range."
        for names, titles in cut.items()
        if names
    ]


def _join_titles(titles: Sequence[str]) -> str:
    """Name intervals as the subject of a sentence.

    >>> _join_titles(["Dice"]), _join_titles(["Dice", "HD95"])
    ('the interval of Dice is', 'the intervals of Dice and HD95 are')
    """
    return f"the interval of {titles[0]} is" if len(titles) == 1 else f"the intervals of {' and '.join(titles)} are"


def _is_cut(values: Sequence[float], described: Mapping[str, Any], metric: str) -> bool:
    """Tell whether an interval ends at its cases' extremes, and not at those of the metric."""
    ends = described.get(metric, {}).get("ci95")
    known = {value for value in values if not math.isnan(value)}
    if ends is None or len(known) < 2:
        return False
    return (ends[0] == min(known) > 0) or (ends[1] == max(known) and (metric != "dice" or max(known) < 1))


def estimate_most_missed(patients: int) -> float:
    """Compute the upper 95 % limit of the share of missed patients.

    It holds where none of the patients was missed.

    References:
        Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249:1743, 1983.

    >>> [round(estimate_most_missed(patients), 2) for patients in (10, 59)]
    [0.26, 0.05]
    """
    return 1 - math.pow(0.05, 1 / patients)


def _know_patients(scores: Iterable[CaseScore]) -> bool:
    return knows_patients((score.case_id, score.group) for score in scores)


def _count_groups(scores: Sequence[CaseScore]) -> tuple[int, int]:
    """Count the patients with a score, and those of whom a case has no voxel in common with its reference."""
    scored = [score for score in scores if score.status not in (UNDEFINED, NOT_ANNOTATED)]
    return len({score.group for score in scored}), len({score.group for score in scored if not score.values["tp"]})


def _join_by_total(totals: Mapping[str, int]) -> dict[int, str]:
    """Join labels with equal numbers of patients into one sentence."""
    return {
        total: ", ".join(name for name, own in totals.items() if own == total)
        for total in dict.fromkeys(totals.values())
    }


def write_scores(
    directory: Path,
    stage: str,
    table: Sequence[CaseScore],
    names: Sequence[str],
    *,
    strata: Strata | None = None,
    facts: Mapping[str, Any] | None = None,
    objects: ObjectTable | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write the table of scores with its summary and objects.

    Where one of the files is there already, all get the same number: `scores_test_2.csv`.

    Args:
        directory: The run folder, or that of an evaluation.
        stage: The scored stage: `val`, `test` or `evaluate`.
        table: One row for each case and label.
        names: The labels, in their order.
        strata: Further properties of the cases; they become columns, and parts of the summary.
        facts: Further content of the summary, such as the tolerance of NSD.
        objects: The objects, where `ObjectMetric` kept them; they become `objects_<stage>.csv`.

    Returns:
        The file of the table, and the summary.
    """
    # Masks that are kept have the number of their scores.
    scores, file, listed, *_ = choose_numbered_paths(
        directory, f"scores_{stage}.csv", f"summary_{stage}.json", f"objects_{stage}.csv", f"{PREDICTIONS}/{stage}"
    )
    summary = {**summarize(table, names, strata=strata), **(facts or {})}
    if objects is not None:
        summary["objects"] = summarize_objects(objects, table, names)
    # All whole before one is seen, and the summary first: a table without one was left by whoever was stopped.
    if objects is not None:
        write_rows(listed, objects.rows, columns=OBJECT_COLUMNS)
    with write_atomically(scores) as rows, write_atomically(file) as described:
        write_rows(rows, [make_row(score, (strata or {}).get(score.case_id, {})) for score in table], replace=True)
        write_text(described, format_summary(summary), replace=True)
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
    """Make a row of the table of scores.

    The columns that every table has come first, then those of optional metrics, then strata. A stratum that has the
    name of a column, such as `group`, becomes `stratum_group`.
    """
    always = {name: score.values.get(name, math.nan) for name in (*COUNTS, *SCORES, *VOLUMES)}
    optional = {name: value for name, value in score.values.items() if name not in always}
    where = {"case_id": score.case_id, "group": score.group, "label": score.label}
    columns = {**where, **always, "status": score.status, "unit": score.unit, **optional}
    return {**columns, **{f"stratum_{name}" if name in columns else name: value for name, value in strata.items()}}


def make_summary_tables(summary: Mapping[str, Any], stage: str) -> list[Table]:
    """Make tables of the labels' means that fit 80 columns."""
    title = f"{stage}: {describe_scored_cases(summary, stage)}"
    tables = [_make_table(summary, title, _OVERLAP, "dice")]
    if "hd95" in summary["foreground_mean"]:
        tables.append(_make_table(summary, _name_distances(summary), _DISTANCES, "hd95"))
    return tables


def _name_distances(summary: Mapping[str, Any]) -> str:
    unit, known = " and ".join(summary["units"]), summary.get("nsd_tolerance")
    # Labels may have tolerances of their own.
    lengths: Collection[float] = known.values() if isinstance(known, Mapping) else [] if known is None else [known]
    if not lengths:
        return f"distances in {unit}"
    ends = dict.fromkeys([min(lengths), max(lengths)])
    return f"distances in {unit}, NSD within {' to '.join(f'{end:g}' for end in ends)} {unit}"


def _make_table(summary: Mapping[str, Any], title: str, columns: Mapping[str, str], headline: str) -> Table:
    table = Table(
        title=title, caption=_EXPLAINED[headline], caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    table.add_column("label", overflow="fold")
    first, *others = columns
    interval_digits = 2 if headline in LENGTHS else 3
    for name in (first, "95 % interval", *others, "missed"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, described in summary["labels"].items():
        value, *rest = _format_means({name: described.get(name, {}).get("mean") for name in columns.values()})
        interval = format_interval(described.get(headline, {}).get("ci95"), interval_digits, joint=" – ")
        table.add_row(Text(make_printable(label)), value, interval, *rest, str(described["counts"]["n_missed"]))
    # The mean over one label is that label's.
    if len(summary["labels"]) == 1:
        return table
    value, *rest = _format_means({name: summary["foreground_mean"].get(name) for name in columns.values()})
    interval = format_interval(summary.get("foreground_ci95", {}).get(headline), interval_digits, joint=" – ")
    table.add_row("mean", value, interval, *rest, "", style="bold")
    return table


def _format_means(means: Mapping[str, float | None]) -> list[str]:
    """Format means of metrics: of lengths with two digits, of shares with four."""
    return [format_number(mean, 2 if name in LENGTHS else 4) for name, mean in means.items()]
