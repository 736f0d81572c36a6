"""Results of a cross-validation: its folds' scores and models, checked and put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.errors import DataError, MissingDataError, UnreadableFileError, count_noun
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.config_files import read_json
from medseg_pl.io.scores import (
    Row,
    find_scores,
    format_rows,
    format_summary,
    read_object_texts,
    write_numbered_files,
)
from medseg_pl.metrics.out_of_fold import FoldTable, make_rows, read_fold, summarize_folds
from medseg_pl.models.ensemble_file import ENSEMBLE, write_ensemble
from medseg_pl.reporting import Run
from medseg_pl.reporting.methods import write_paper_notes
from medseg_pl.reporting.paper_tables import format_latex, format_markdown, list_crossval_rows, make_crossval_table

STAGE = "crossval"


class CrossvalResults(NamedTuple):
    """The results of a cross-validation.

    Attributes:
        scores: The table of all cases.
        summary: Its summary.
        ensemble: The models of all folds as one.
    """

    scores: Path
    summary: dict[str, Any]
    ensemble: Path


class FoldSplit(NamedTuple):
    """The cases that one fold trained on and held out, with patients."""

    train: frozenset[str]
    val: frozenset[str]
    groups: dict[str, str]
    origin: str


def collect_folds(folder: Path, runs: Sequence[Path]) -> CrossvalResults:
    """Check the folds; write their scores and their models' ensemble.

    Existing files with the same content stay.

    Args:
        folder: Of the cross-validation.
        runs: The run folder of each fold, below it.

    Raises:
        DataError: Scores or a best checkpoint are missing, or a case was scored by none or two of the folds, or by a
            model that was trained on its patient.
    """
    tables = [read_fold(find_scores(run, "val"), fold) for fold, run in enumerate(runs)]
    splits = [_read_split(run / "splits.json") for run in runs]
    _check_splits(tables, splits)
    members = [run / "checkpoints" / "best.ckpt" for run in runs]
    if missing := [member for member in members if not member.is_file()]:
        raise MissingDataError(f"{missing[0]} is not there. Remove its run folder, and repeat the command.")
    summary = summarize_folds(tables)
    summary["scored"] = {"side": "val", "split": _describe_origin(splits[0].origin)}
    summary["folds"]["runs"] = [run.relative_to(folder).as_posix() for run in runs]
    # The summary first: a table without one counts as left by somebody who was stopped.
    texts = {
        f"summary_{STAGE}.json": format_summary(summary),
        f"scores_{STAGE}.csv": format_rows(make_rows(tables)),
    }
    if any(table.objects for table in tables):
        texts[f"objects_{STAGE}.csv"] = format_rows(_join_objects(runs))
    written = write_numbered_files(folder, texts)
    ensemble = folder / ENSEMBLE
    write_ensemble(ensemble, members, replace=True)
    return CrossvalResults(written[f"scores_{STAGE}.csv"], summary, ensemble)


def write_paper_files(scores: Path, run: Run) -> list[Path]:
    """Write the tables and the notes for a paper beside the scores.

    Existing files stay.

    Args:
        scores: The table of all cases, whose number the files get.
        run: The cross-validation.
    """
    table = make_crossval_table(run)
    texts = {
        "table.tex": format_latex(table),
        "table.md": format_markdown(table),
        "table.csv": format_rows(list_crossval_rows(run)),
        "methods.md": write_paper_notes(run),
    }
    paths = []
    for name, text in texts.items():
        kind, suffix = name.split(".")
        path = scores.with_name(f"{scores.stem.replace('scores_', f'{kind}_', 1)}.{suffix}")
        paths.append(path)
        if not path.exists():
            write_text(path, text)
    return paths


def _join_objects(runs: Sequence[Path]) -> list[Row]:
    """Join the folds' tables of objects digit by digit, sorted by case."""
    rows: list[Row] = [
        {**row, "fold": fold} for fold, run in enumerate(runs) for row in read_object_texts(find_scores(run, "val"))
    ]
    return sorted(rows, key=lambda row: str(row["case_id"]))


def _read_split(path: Path) -> FoldSplit:
    try:
        content = read_json(path)
        groups = {str(name): str(group) for name, group in content["groups"].items()}
        train, val = (frozenset(map(str, content[side])) for side in ("train", "val"))
        return FoldSplit(train, val, groups, str(content.get("origin", "")))
    except OSError:
        raise MissingDataError(
            f"{path} is missing, so the held-out patients are unknown. Train the fold again."
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnreadableFileError(f"{path} is no split that medseg wrote: {error}. Train the fold again.") from None


def _check_splits(tables: Sequence[FoldTable], splits: Sequence[FoldSplit]) -> None:
    """Check that each case is scored once, without its patient in training."""
    for table, split in zip(tables, splits, strict=True):
        scored = {score.case_id for score in table.scores}
        # Somebody may have scored the fold again, with a split of its own.
        if scored != split.val:
            example = sorted(scored ^ split.val)[0]
            raise DataError(
                f"The scores of fold {table.fold} are not of the cases that it held out, {example} among those that "
                "differ. Score it again with medseg validate and its own settings."
            )
        seen = _list_groups(split, split.train) & _list_groups(split, split.val)
        if seen:
            raise DataError(
                f"Fold {table.fold} was trained on {count_noun(len(seen), 'patient')} that it held out. Train it anew."
            )
    held_out = frozenset[str]().union(*(split.val for split in splits))
    never = sorted(frozenset[str]().union(*(split.train for split in splits)) - held_out)
    if never:
        raise DataError(
            f"{count_noun(len(never), 'case was', 'cases were')} trained on by all {count_noun(len(splits), 'fold')} "
            f"and held out by none, {never[0]} among them. Set data.folds to the number of folds that the split has."
        )


def _list_groups(split: FoldSplit, names: frozenset[str]) -> set[str]:
    return {split.groups.get(name, name) for name in names}


def _describe_origin(origin: str) -> str:
    """Describe the origin of all folds' split by that of one.

    >>> _describe_origin("fold 0 of 5 by patient, seed 0")
    'each fold of 5 by patient, seed 0'
    """
    return re.sub(r"\bfold \d+\b", "each fold", origin)


def describe_folds(summary: Mapping[str, Any]) -> str:
    """Describe in a line how much the folds differ, and what to quote.

    >>> print(describe_folds({"folds": {"foreground_mean": {"dice": {"mean": 0.875, "std": 0.0125, "n": 5}}}}))
    Mean Dice over 5 folds: 0.8750 ± 0.0125 (standard deviation). Quote the table's means with their intervals instead.
    """
    dice = summary["folds"]["foreground_mean"].get("dice") or {}
    if dice.get("mean") is None or dice.get("std") is None:
        return "The mean Dice is known of fewer than two folds."
    return (
        f"Mean Dice over {count_noun(dice['n'], 'fold')}: {dice['mean']:.4f} ± {dice['std']:.4f} (standard deviation). "
        "Quote the table's means with their intervals instead."
    )
