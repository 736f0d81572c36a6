"""What became of each input of a prediction, as a table."""

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
    """What became of an input.

    Attributes:
        path: The file, the first of several; or a folder.
        case_id: Empty where the input is no case.
        status: `not read`, `failed` and `not reached` are faults, `not asked for` is beyond
            `trainer.limit_predict_batches`, `no image` is a text and the like.
        reason: Why there is no mask; empty where there is one.
    """

    path: str
    case_id: str
    status: Status
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether there should be a mask and is none."""
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
    """List what became of each input, sorted by its path below the root.

    Args:
        cases: All cases.
        left_out: What is in no case.
        finished: The cases that were there before.
        faults: Why a case could not be predicted, by its name.
        written: The cases that are new.
        root: What `--input` named.
        limited: Whether the settings asked for some of the cases alone.

    >>> a, b = Case("a", "a", (Path("in/a.png"),)), Case("b", "b", (Path("in/b.png"),))
    >>> for found in list_outcomes([a, b], [], frozenset("a"), {"b": "Damaged."}, frozenset(), Path("in")):
    ...     print(*found)
    a.png a finished before
    b.png b failed Damaged.
    """
    outcomes = []
    for case in cases:
        path, name = _shorten(case.images, root), case.case_id
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
    for each in left_out:
        outcomes.append(
            Outcome(_shorten([each.path], root), "", "not read" if each.is_lost else "no image", each.reason)
        )
    return sorted(outcomes)


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table; that of an earlier run is replaced."""
    rows = [
        {"input": each.path, "case_id": each.case_id, "status": each.status, "reason": each.reason} for each in outcomes
    ]
    write_rows(path, rows, replace=True)


def summarize_outcomes(outcomes: Sequence[Outcome], folder: Path) -> str:
    """Count what became of the inputs, in a line.

    >>> summarize_outcomes([Outcome("a.png", "a", "finished before")], Path("out"))
    '0 new cases written to out; 1 finished before'
    """
    counts = Counter(each.status for each in outcomes)
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
