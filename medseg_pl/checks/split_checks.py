"""Splits that a data set, or a file, declares; read in spite of faults, so that each fault is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.core.types import Case
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.splits import SIDES
from medseg_pl.io.config_files import read_json

Sides = Mapping[str, Sequence[str]]
"""The case ids of `train`, `val` and `test`."""


def declared_sides(cases: Sequence[Case]) -> tuple[list[Sides], list[Finding]]:
    """The splits that the cases themselves declare: one, or one for each fold."""
    declaring = [case for case in cases if case.split is not None or case.fold is not None]
    if not declaring:
        return [], []
    found = []
    if silent := [case.case_id for case in cases if case.split is None and case.fold is None]:
        said = f"{len(silent)} of {len(cases)} cases declare neither split nor fold: {abbreviate(silent)}."
        found.append(finding("split-invalid", said, silent[0]))
    folds = sorted({case.fold for case in declaring if case.split is None and case.fold is not None}) or [0]
    return [_sides_of_fold(declaring, fold) for fold in folds], found


def sides_in_file(path: Path, cases: Sequence[Case]) -> tuple[list[Sides], list[Finding]]:
    """The split of a `splits.json`, or all folds of nnU-Net's."""
    try:
        content = read_json(path)
        splits = [
            {side: [str(name) for name in split.get(side, ())] for side in SIDES}
            for split in (content if isinstance(content, list) else [content])
        ]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return [], [finding("split-invalid", f"The file cannot be read as a split: {error}.", "", path)]
    known = {case.case_id for case in cases}
    named = dict.fromkeys(name for split in splits for names in split.values() for name in names)
    unknown = [name for name in named if name not in known]
    if unknown:
        said = f"The split names {len(unknown)} cases that are not there: {abbreviate(unknown)}."
        return list(splits), [finding("split-invalid", said, "", path)]
    return list(splits), []


def _sides_of_fold(cases: Sequence[Case], fold: int) -> Sides:
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for case in cases:
        held_out = "val" if case.fold == fold else "train"
        sides[case.split or held_out].append(case.case_id)
    return sides
