"""Cases of the runs in one table, and each further run beside the first by the statistics of `medseg compare`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from medseg_pl.core.errors import DataError, strip_remedy
from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.io.scores import Row
from medseg_pl.metrics.statistics.comparison import (
    RESAMPLES,
    choose_digits,
    compare_metric,
    conclude,
    count_compared,
    list_notes,
)
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, Table, match
from medseg_pl.reporting.html.figures import draw_differences
from medseg_pl.reporting.run import Run, read_number

# The columns of the table of scores that the page shows, with their names and digits.
SHOWN = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "hd95": ("HD95", 1),
    "assd": ("ASSD", 2),
    "nsd": ("NSD", 3),
    "volume_reference_ml": ("reference, ml", 2),
    "volume_prediction_ml": ("prediction, ml", 2),
}

# The statuses that are faults, as the page calls them: voxels alone are false positives.
_FAULTS = {"missed": "entirely missed", "false_alarm": "invented"}

_COMPARED = ("dice", "hd95", "nsd")


class CaseEntry(NamedTuple):
    """A case on the page.

    Attributes:
        number: Its position, by which the page refers to it.
        case_id: Its id; not for showing.
        name: The name to show.
        group: The name of its patient to show.
        scores: For each run its rows by label; empty where the run did not score the case.
        means: For each run the mean Dice over labels; `None` where no label has one.
    """

    number: int
    case_id: str
    name: str
    group: str
    scores: list[dict[str, Row]]
    means: list[float | None]

    @property
    def faults(self) -> list[str]:
        """What any run missed, or found where there is none: `entirely missed: liver`."""
        faults = {
            (str(row["status"]), label): f"{_FAULTS[str(row['status'])]}: {label}"
            for rows in self.scores
            for label, row in rows.items()
            if str(row["status"]) in _FAULTS
        }
        return list(faults.values())


def list_case_entries(runs: Sequence[Run], names: Names) -> list[CaseEntry]:
    """List the cases of all runs, the first run's worst first."""
    by_run = [_map_cases(run.rows) for run in runs]
    groups = {str(row["case_id"]): str(row["group"]) for run in reversed(runs) for row in run.rows}
    of_runs = [run.means for run in runs]
    means = {case_id: [run_means.get(case_id) for run_means in of_runs] for case_id in groups}
    # Not by id where names are hashed: the order of equal cases would tell something of their ids.
    ranked = sorted(groups, key=lambda case_id: (*map(_rank, means[case_id]), names.case(case_id)))
    return [
        CaseEntry(
            number,
            case_id,
            names.case(case_id),
            names.group(groups[case_id]),
            [of_run.get(case_id, {}) for of_run in by_run],
            means[case_id],
        )
        for number, case_id in enumerate(ranked)
    ]


def to_page_data(entries: Sequence[CaseEntry]) -> list[dict[str, Any]]:
    """Convert names and scores to plain values for the page's script."""
    return [
        {
            "name": entry.name,
            "group": entry.group,
            "scores": [{label: _to_row_data(row) for label, row in rows.items()} for rows in entry.scores],
        }
        for entry in entries
    ]


def _to_row_data(row: Row) -> dict[str, Any]:
    numbers = {column: read_number(row, column) for column in SHOWN if column in row}
    rounded = {column: None if math.isnan(value) else round(value, 5) for column, value in numbers.items()}
    status = str(row["status"])
    return {**rounded, "status": _FAULTS.get(status, status), "unit": str(row.get("unit", ""))}


def _map_cases(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(str(row["case_id"]), {})[str(row["label"])] = row
    return cases


def _rank(mean: float | None) -> float:
    return math.inf if mean is None else mean


class Names(NamedTuple):
    """Converts ids to the names to show.

    Attributes:
        record: The key to hashed names; `None` shows the ids.
        kept: Whether the key is in the run folder, so that its owner can find a case by its hashed name.
    """

    record: Pseudonyms | None
    kept: bool = True

    def case(self, case_id: str) -> str:
        """Return what a case is called on the page."""
        return self.record.pseudonym("case", case_id) if self.record else case_id

    def group(self, group: str) -> str:
        """Return what a patient is called on the page."""
        return self.record.pseudonym("group", group) if self.record else group


def choose_names(folder: Path, *, plain: bool) -> Names:
    """Choose the names for a page whose first run is in `folder`.

    Hashed names are those of the run's dashboards. A run without a dashboard gets a key now, which stays in its folder;
    where nothing can be written there, the names hold for this page alone.
    """
    if plain:
        return Names(None)
    if record := Pseudonyms.read(folder):
        return Names(record)
    record = Pseudonyms.new()
    try:
        record.write(folder)
    except OSError:
        return Names(record, kept=False)
    return Names(record)


METRICS = {"brier": "Brier score", "ece": "calibration error", "entropy": "entropy, nats"}


class Calibration(NamedTuple):
    """A label with mean and interval of each metric.

    Attributes:
        label: The name.
        values: `(mean, interval)` of each of `METRICS`, `None` where it was not measured.
    """

    label: str
    values: list[tuple[float, Any] | None]


def list_calibration(run: Run) -> list[Calibration]:
    """List the calibration of each label, if it was measured."""
    if not any(metric in run.summary.get("foreground_mean", {}) for metric in METRICS):
        return []
    return [Calibration(label, [_read_metric(run, label, metric) for metric in METRICS]) for label in run.labels]


def _read_metric(run: Run, label: str, metric: str) -> tuple[float, Any] | None:
    described = run.summary["labels"][label].get(metric) or {}
    return None if described.get("mean") is None else (float(described["mean"]), described.get("ci95"))


class MetricComparison(NamedTuple):
    """Comparison of two runs by one metric.

    Attributes:
        name: The metric's name for a reader.
        higher_is_better: Whether it is.
        digits: After the point.
        labels: Fields by label, see `medseg_pl.metrics.statistics.comparison.compare_metric`.
        mean: The fields of the mean over labels.
        counted: On how many cases it is known, and of how many patients.
        sentences: What it says in plain words.
        drawing: The differences.
    """

    name: str
    higher_is_better: bool
    digits: int
    labels: dict[str, dict[str, Any]]
    mean: dict[str, Any]
    counted: str
    sentences: list[str]
    drawing: Markup


class RunComparison(NamedTuple):
    """Comparison of the first run with another one.

    Attributes:
        letter: The other one's letter.
        metrics: The metrics that could be compared.
        unpaired: Rows that one of them lacks.
        fault: Why a metric could not be compared, for the terminal: it may name cases.
    """

    letter: str
    metrics: list[MetricComparison]
    unpaired: int
    fault: str = ""


def compare_runs(runs: Sequence[Run]) -> list[RunComparison]:
    """Compare each later run with the first on their common cases."""
    return [_compare(runs[0], other, chr(ord("A") + index)) for index, other in enumerate(runs[1:], start=1)]


def _compare(first: Run, other: Run, letter: str) -> RunComparison:
    tables = [Table("A", first.rows), Table(letter, other.rows)]
    try:
        matched = match(*tables, allow_unpaired=True)
    except DataError as error:
        return RunComparison(letter, [], 0, str(error))
    metrics, faults = [], []
    for metric in _COMPARED:
        if not all(_is_measured(table, metric) for table in tables):
            continue
        try:
            compared = compare_metric(matched, metric, tables, resamples=RESAMPLES, seed=0)
        except DataError as error:  # not measured in some cases, or in other units
            faults.append(strip_remedy(str(error)))
            continue
        metrics.append(_describe(metric, compared, letter))
    return RunComparison(letter, metrics, matched.only_a + matched.only_b, " ".join(faults))


def _is_measured(table: Table, metric: str) -> bool:
    """Tell whether a table has any score of a metric: the column of one that was left out is empty."""
    return any(not math.isnan(read_number(row, metric)) for row in table.rows)


def _describe(metric: str, compared: dict[str, Any], letter: str) -> MetricComparison:
    name, labels = SHOWN[metric][0], compared["labels"]
    sentences = [conclude(name, labels), *list_notes(compared)]
    return MetricComparison(
        name,
        HIGHER_IS_BETTER[metric],
        choose_digits(metric),
        labels,
        compared["mean"],
        count_compared(compared),
        [_replace_letter(line, letter) for line in sentences],
        draw_differences(compared, name, f"{metric}-{letter}"),
    )


def _replace_letter(sentence: str, letter: str) -> str:
    """Replace B by the letter of the run that is compared.

    >>> _replace_letter("Dice: B is better for liver (false alarms: 1 of A, 0 of B).", "C")
    'Dice: C is better for liver (false alarms: 1 of A, 0 of C).'
    """
    return re.sub(r"\bB(?= is better)|(?<=\d of )B\b", letter, sentence)
