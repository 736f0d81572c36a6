"""Scores of all folds in one table: each case by the model that was not trained on its patient."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg_pl.core.errors import DataError, UnreadableFileError
from medseg_pl.io.config_files import read_json
from medseg_pl.io.scores import Row, locate_summary, read_objects, read_texts
from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.metrics.object_summary import summarize_objects
from medseg_pl.metrics.objects import ObjectTable
from medseg_pl.metrics.summary import make_row, summarize

_NAMES = ("case_id", "group", "label", "status", "unit")


class FoldTable(NamedTuple):
    """The scores of the cases that one fold held out.

    Attributes:
        fold: Its number.
        scores: One for each case and label.
        strata: Further properties of the cases, such as their site.
        summary: The fold's own summary.
        objects: The objects of the cases, where they were kept.
    """

    fold: int
    scores: list[CaseScore]
    strata: dict[str, dict[str, str]]
    summary: Mapping[str, Any]
    objects: Sequence[Row] = ()


def read_fold(table: Path, fold: int) -> FoldTable:
    """Read the scores of one fold, and the summary beside them.

    Raises:
        MissingDataError: There is no such table.
        UnreadableFileError: The table or its summary is damaged.
    """
    path = locate_summary(table)
    try:
        summary = read_json(path)
        strata = list(summary.get("strata") or {})
        if not isinstance(summary["labels"], dict):
            raise ValueError("it has no labels")
    except (ValueError, KeyError, AttributeError) as error:
        raise UnreadableFileError(f"{path} is no summary of scores: {error}. Score the fold again.") from None
    rows = read_texts(table)  # as text, so that the joined table has the very digits of the folds
    # A stratum with the name of a column has another one in the table, see `make_row`.
    columns = {name: f"stratum_{name}" if f"stratum_{name}" in rows[0] else name for name in strata}
    known = {row["case_id"]: {name: row[column] for name, column in columns.items() if row.get(column)} for row in rows}
    scores = [_parse_score(table, row, {*_NAMES, *columns.values()}) for row in rows]
    strata_by_case = {case_id: each for case_id, each in known.items() if each}
    return FoldTable(fold, scores, strata_by_case, summary, read_objects(table))


def join_folds(folds: Sequence[FoldTable]) -> list[CaseScore]:
    """Join the scores of all folds, sorted by case.

    Raises:
        DataError: Folds scored a case twice, or other labels than the first fold.
    """
    scored: dict[str, int] = {}
    labels = list(folds[0].summary["labels"])
    for fold in folds:
        if list(fold.summary["labels"]) != labels:
            raise DataError(
                f"Fold {fold.fold} has the labels {', '.join(fold.summary['labels'])}, and fold {folds[0].fold} has "
                f"{', '.join(labels)}. Train all folds with the same model.labels."
            )
        for case_id in dict.fromkeys(score.case_id for score in fold.scores):
            if case_id in scored:
                raise DataError(
                    f"Case {case_id} was scored by folds {scored[case_id]} and {fold.fold}: they are not of one "
                    "split. Choose a new --experiment for other folds."
                )
            scored[case_id] = fold.fold
    return sorted(
        (score for fold in folds for score in fold.scores), key=lambda each: (each.case_id, labels.index(each.label))
    )


def make_rows(folds: Sequence[FoldTable]) -> list[Row]:
    """Make the rows of `scores_crossval.csv`, each with its fold."""
    strata = {case_id: known for fold in folds for case_id, known in fold.strata.items()}
    fold_by_case = {score.case_id: fold.fold for fold in folds for score in fold.scores}
    return [
        {**make_row(score, strata.get(score.case_id, {})), "fold": fold_by_case[score.case_id]}
        for score in join_folds(folds)
    ]


def summarize_folds(folds: Sequence[FoldTable]) -> dict[str, Any]:
    """Compute the content of `summary_crossval.json`.

    Scores of all folds are pooled, so that intervals are over all patients; `objects` likewise, by quartiles of their
    size. `folds` has the mean of each fold, and their mean and standard deviation. The latter says how much trainings
    differ, and is no interval: folds share their training cases (Bengio and Grandvalet, JMLR 5:1089, 2004).

    Args:
        folds: At least two.
    """
    names = list(folds[0].summary["labels"])
    strata = {case_id: known for fold in folds for case_id, known in fold.strata.items()}
    joined = join_folds(folds)
    pooled = summarize(joined, names, strata=strata)
    if all("objects" in fold.summary for fold in folds):
        pooled["objects"] = summarize_objects(
            ObjectTable([row for fold in folds for row in fold.objects]), joined, names
        )
    shared = {
        key: value
        for key, value in folds[0].summary.items()
        if key not in {*pooled, "strata", "scored"} and all(fold.summary.get(key) == value for fold in folds)
    }
    return {**pooled, **shared, "folds": _describe_folds(folds, names)}


def _describe_folds(folds: Sequence[FoldTable], names: Sequence[str]) -> dict[str, Any]:
    # Anew and not from the folds' files: an interval of one fold is of no use here, and takes most of the time.
    summaries = [summarize(fold.scores, names, intervals=False) for fold in folds]
    foreground = [summary["foreground_mean"] for summary in summaries]
    labels = {name: [_get_means(summary["labels"][name]) for summary in summaries] for name in names}
    return {
        "scores": [
            {
                "fold": fold.fold,
                "n_cases": summary["n_cases"],
                "n_groups": summary["n_groups"],
                "foreground_mean": summary["foreground_mean"],
                "labels": {name: means[index] for name, means in labels.items()},
            }
            for index, (fold, summary) in enumerate(zip(folds, summaries, strict=True))
        ],
        "foreground_mean": _describe_spread(foreground),
        "labels": {name: _describe_spread(means) for name, means in labels.items()},
    }


def _get_means(label: Mapping[str, Any]) -> dict[str, float | None]:
    return {metric: fields["mean"] for metric, fields in label.items() if "mean" in fields}


def _describe_spread(means: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Compute mean and sample standard deviation over folds with a mean.

    >>> _describe_spread([{"dice": 0.5}, {"dice": 0.75}, {"dice": None}])
    {'dice': {'mean': 0.625, 'std': 0.1767766952966369, 'n': 2}}
    """
    spread = {}
    for metric in dict.fromkeys(name for each in means for name in each):
        known = np.array([value for each in means if (value := each.get(metric)) is not None], dtype=np.float64)
        spread[metric] = {
            "mean": float(known.mean()) if len(known) else None,
            "std": float(known.std(ddof=1)) if len(known) > 1 else None,
            "n": len(known),
        }
    return spread


def _parse_score(table: Path, row: Mapping[str, str], others: set[str]) -> CaseScore:
    try:
        values = {name: _parse_number(text) for name, text in row.items() if name not in others}
    except ValueError as error:
        raise UnreadableFileError(
            f"{table}: case {row['case_id']} has a score that is no number ({error}). Score the fold again."
        ) from None
    return CaseScore(row["case_id"], row["group"], row["label"], values, row["status"], row.get("unit", ""))


def _parse_number(text: str) -> float | int:
    """Parse a field; counts stay whole numbers, to be written unchanged.

    >>> _parse_number("3"), _parse_number("0.25"), _parse_number("")
    (3, 0.25, nan)
    """
    if not text:
        return math.nan
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
