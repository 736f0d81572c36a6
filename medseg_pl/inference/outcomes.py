"""Outcomes: `predictions.csv`, which lists every input of a prediction and whether it has a mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from medseg_pl.core.types import Case
from medseg_pl.io.paths import LeftOut
from medseg_pl.io.scores import write_rows

Status = Literal["written", "finished before", "failed", "not reached", "not asked for", "not read", "no image"]

_MOST_FILES = 4
"""A case of more files, such as a series, is named by its folder."""


class Outcome(NamedTuple):
    """An input and its status.

    Attributes:
        path: The file, or the folder of many.
        case_id: Empty if the input is no case.
        status: `not read`, `failed` and `not reached` are faults, `not asked for` is beyond
            `trainer.limit_predict_batches`, `no image` is a text and the like.
        reason: Why it has no mask; empty if it has one.
    """

    path: str
    case_id: str
    status: Status
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        """Tell whether a mask should be there and is not."""
        return self.status in ("failed", "not reached", "not read")


def list_outcomes(
    cases: Sequence[Case],
    left_out: Sequence[LeftOut],
    finished: frozenset[str],
    faults: Mapping[str, str],
    written: frozenset[str],
    root: Path,
    *,
    limited: bool = False,
) -> list[Outcome]:
    """List the outcome of each input, sorted by its path below the root.

    Args:
        cases: All cases.
        left_out: Files of no case.
        finished: Cases with masks of an earlier run.
        faults: Error messages of cases that could not be predicted.
        written: Cases with new masks.
        root: The value of `--input`.
        limited: Whether `trainer.limit_predict_batches` left cases out.

    >>> a, b = Case("a", "a", (Path("in/a.png"),)), Case("b", "b", (Path("in/b.png"),))
    >>> for outcome in list_outcomes([a, b], [], frozenset("a"), {"b": "Damaged."}, frozenset(), Path("in")):
    ...     print(*outcome)
    a.png a finished before
    b.png b failed Damaged.
    """
    outcomes = []
    for case in cases:
        path, name = _shorten(case.images, root), case.case_id
        # A fault of this run comes first: the mask of an earlier run may be of other files.
        if name in faults:
            outcomes.append(Outcome(path, name, "failed", faults[name]))
        elif name in finished:
            outcomes.append(Outcome(path, name, "finished before"))
        elif name in written:
            outcomes.append(Outcome(path, name, "written"))
        elif limited:
            outcomes.append(Outcome(path, name, "not asked for", "Beyond trainer.limit_predict_batches."))
        else:
            outcomes.append(Outcome(path, name, "not reached", f"{path} was not reached before the run ended."))
    for file in left_out:
        status: Status = "not read" if file.is_lost else "no image"
        outcomes.append(Outcome(_shorten([file.path], root), "", status, file.reason))
    return sorted(outcomes)


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table in place of that of an earlier run."""
    rows = [
        {"input": outcome.path, "case_id": outcome.case_id, "status": outcome.status, "reason": outcome.reason}
        for outcome in outcomes
    ]
    write_rows(path, rows, replace=True)


def summarize_outcomes(outcomes: Sequence[Outcome], folder: Path) -> str:
    """Count the outcomes, in a line.

    >>> summarize_outcomes([Outcome("a.png", "a", "finished before")], Path("out"))
    '0 new cases written to out; 1 finished before'
    """
    counts = Counter(outcome.status for outcome in outcomes)
    new = "new cases" if counts["finished before"] else "cases"
    others: tuple[Status, ...] = ("finished before", "failed", "not reached", "not asked for", "not read")
    parts = [f"{counts[status]} {status}" for status in others if counts[status]]
    return "; ".join([f"{counts['written']} {new} written to {folder}", *parts])


def _shorten(paths: Sequence[Path], root: Path) -> str:
    """Name files below the root, and the folder of many."""
    base = root.parent if root.is_file() else root
    several = paths if len(paths) <= _MOST_FILES else [paths[0].parent]
    names = [path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path) for path in several]
    return ";".join(names)
