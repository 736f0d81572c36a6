"""Each further run beside the first, with the statistics of `medseg compare`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from medseg_pl.core.errors import DataError
from medseg_pl.metrics.statistics.comparison import (
    RESAMPLES,
    compare_metric,
    conclude,
    note_empty_masks,
    note_narrow_intervals,
    note_too_few,
)
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Table, match
from medseg_pl.reporting.html.cases import SHOWN
from medseg_pl.reporting.html.figures import draw_differences
from medseg_pl.reporting.run import Run

METRICS = ("dice", "hd95_mm", "nsd")


class MetricComparison(NamedTuple):
    """One metric of two runs.

    Attributes:
        name: The metric's name for a reader.
        higher_is_better: Whether it is.
        digits: After the point.
        labels: Fields by label, see `medseg_pl.metrics.statistics.comparison.compare_metric`.
        mean: The same of the mean over labels.
        sentences: What it says in plain words.
        drawing: The differences.
    """

    name: str
    higher_is_better: bool
    digits: int
    labels: dict[str, dict[str, Any]]
    mean: dict[str, Any]
    sentences: list[str]
    drawing: Markup


class RunComparison(NamedTuple):
    """The first run, and another one.

    Attributes:
        letter: The other one's letter.
        metrics: What could be compared.
        unpaired: Rows that one of them lacks.
        fault: Why nothing could be compared, for the terminal: it may name cases.
    """

    letter: str
    metrics: list[MetricComparison]
    unpaired: int
    fault: str = ""


def compare_runs(runs: Sequence[Run]) -> list[RunComparison]:
    """Compare every run but the first with the first, on the cases that both have scored."""
    return [_compare(runs[0], other, chr(ord("A") + index)) for index, other in enumerate(runs[1:], start=1)]


def _compare(first: Run, other: Run, letter: str) -> RunComparison:
    tables = [Table("A", first.rows), Table(letter, other.rows)]
    try:
        matched = match(*tables, allow_unpaired=True)
    except DataError as error:
        return RunComparison(letter, [], 0, str(error))
    metrics, faults = [], []
    for metric in METRICS:
        if not all(metric in table.rows[0] for table in tables):
            continue
        try:
            compared = compare_metric(matched, metric, tables, resamples=RESAMPLES, seed=0)
        except DataError as error:  # not measured, or in other units
            faults.append(str(error))
            continue
        metrics.append(_describe(metric, compared, letter))
    return RunComparison(letter, metrics, matched.only_a + matched.only_b, "" if metrics else " ".join(faults))


def _describe(metric: str, compared: dict[str, Any], letter: str) -> MetricComparison:
    name, digits = SHOWN[metric]
    labels = compared["labels"]
    notes = (conclude(name, labels), note_too_few(labels), note_narrow_intervals(labels), note_empty_masks(labels))
    sentences = [line for line in notes if line]
    return MetricComparison(
        name,
        HIGHER_IS_BETTER[metric],
        digits,
        labels,
        compared["mean"],
        [_replace_letter(line, letter) for line in sentences],
        draw_differences(compared, name, f"{metric}-{letter}"),
    )


def _replace_letter(sentence: str, letter: str) -> str:
    """Replace B by the letter of the run that is compared.

    >>> _replace_letter("Dice: B is better for liver (false alarms: 1 of A, 0 of B).", "C")
    'Dice: C is better for liver (false alarms: 1 of A, 0 of C).'
    """
    return re.sub(r"\bB(?= is better)|(?<=\d of )B\b", letter, sentence)
