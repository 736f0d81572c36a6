"""A training that goes on: from which checkpoint, in which run folder, and what to say where it is complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from medseg_pl.core.errors import TooShortError
from medseg_pl.io.locks import FolderLocks
from medseg_pl.training.checkpoints import (
    NEWEST,
    ResumePoint,
    find_resume_point,
    is_complete,
    newest_run,
    remove_records,
)


class _RunIsComplete(Exception):  # noqa: N818  an answer and no error
    """A run that is to be gone on with has trained as long as it was told to."""


def go_on(name: str, experiment: Path, limits: Mapping[str, Any], locks: FolderLocks) -> ResumePoint | None:
    """Find the checkpoint, and have the run that it belongs to; better now than after the data is read.

    Args:
        name: What `--ckpt_path` says: a file, or `last`.
        experiment: The folder of the experiment's runs.
        limits: How long training was told to last; within `complete_runs`, a run that has done so ends the block.
        locks: Takes the run folder for this process.

    Returns:
        Where training goes on, in a folder without checkpoints from its beginning; `None` where a new run begins.

    Raises:
        TooShortError: More is done than the limits allow.
    """
    if name == NEWEST and (run := newest_run(experiment)):
        _take(run, locks)  # before anything is saved there, too: whoever has begun it goes on
    found = find_resume_point(name, experiment)
    if found and found.folder:
        _take(found.folder, locks)
    if found:
        _require_not_lowered(found, limits)
    if found and found.folder and is_complete(found.folder, limits):
        raise _RunIsComplete(
            f"{found.folder} is complete: epochs done: {found.epochs}, steps done: {found.steps}. A higher "
            "trainer.max_epochs goes on with it; without --ckpt_path a new run begins."
        )
    if found and found.folder and found.checkpoint is None and _is_first():
        remove_records(found.folder)
    _say(str(found or f"There is nothing to go on from in {experiment}: a new run begins."))
    if found and not found.folder:
        _say(f"{found.checkpoint} is not the last.ckpt of a run folder: a new run begins with its state.")
    return found


@contextmanager
def complete_runs() -> Iterator[None]:
    """Say that there is nothing to train, and end well."""
    try:
        yield
    except _RunIsComplete as answer:
        _say(str(answer))


def _require_not_lowered(found: ResumePoint, limits: Mapping[str, Any]) -> None:
    """Refuse a length of training that is behind the state already."""
    for name, done in (("max_epochs", found.epochs), ("max_steps", found.steps)):
        limit = limits.get(name)
        if limit is not None and 0 <= int(limit) < done:
            raise TooShortError(
                f"trainer.{name} is {limit}, but {found.checkpoint} has {done} {name[4:]} behind it. Set it to {done} "
                "or more, or begin anew without --ckpt_path."
            )


def _take(run: Path, locks: FolderLocks) -> None:
    """Have a run folder for this training; the first of its processes has it for all of them."""
    if _is_first():
        locks.take(run)


def _is_first() -> bool:
    return not rank_zero_only.rank and os.environ.get("NODE_RANK", "0") == "0"  # type: ignore[attr-defined]


@rank_zero_only
def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
