"""Find the checkpoint and the run folder that a training goes on from; end well if the run is complete."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from medseg_pl.core.errors import TooShortError, UnreadableFileError
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import find_newest_run, require_run_folder
from medseg_pl.models.checkpoint import get_run_folder, load_verified, require_local_file
from medseg_pl.training.checkpoints.checkpoint_io import LAST, previous_path

log = logging.getLogger(__name__)

NEWEST = "last"
"""In place of a checkpoint's path: the newest state of the experiment's newest run."""

_COMPLETE = "complete.json"

_RECORDS = ("config.yaml", "hparams.yaml", "splits.json", "environment.json", "metrics.csv")
"""What a training writes before its first save."""


class ResumePoint(NamedTuple):
    """The state and the run folder from which training resumes.

    Attributes:
        checkpoint: The state that is restored; `None` if a run was stopped before its first save, and begins again in
            its folder.
        epochs: Epochs that are done.
        steps: Steps of the optimizer that are done.
        folder: The run folder that is continued, or `None` if a new run begins with another one's state.
    """

    checkpoint: Path | None
    epochs: int
    steps: int
    folder: Path | None

    def __str__(self) -> str:
        """Say it in one line for the terminal.

        >>> print(ResumePoint(Path("runs/demo/version_0/checkpoints/last.ckpt"), 3, 120, Path("runs/demo/version_0")))
        Going on from runs/demo/version_0/checkpoints/last.ckpt, epochs done: 3, steps done: 120.
        """
        if self.checkpoint is None:
            return f"{self.folder} was stopped before its first save: the run begins again there."
        return f"Going on from {self.checkpoint}, epochs done: {self.epochs}, steps done: {self.steps}."


class _RunComplete(Exception):  # noqa: N818  an answer and no error
    """A run has trained as long as it should.

    Args:
        message: The text for the reader.
        run: Its folder.
    """

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message)
        self.run = run


def lock_resume_point(name: str, experiment: Path, limits: Mapping[str, Any], locks: FolderLocks) -> ResumePoint | None:
    """Find the checkpoint to resume from, and lock its run folder.

    It is locked before the data is read.

    Args:
        name: The value of `--ckpt_path`: a file, a run folder, or `last`.
        experiment: The folder of the experiment's runs.
        limits: How long training should last; a run that has done so ends the block of `report_complete_run`.
        locks: Lock the run folder for this process.

    Returns:
        The resume point; its checkpoint is `None` if the run begins again in its folder. `None` if a new run begins.

    Raises:
        TooShortError: More is done than the limits allow.
    """
    if name == NEWEST and (run := find_newest_run(experiment)):
        _lock_run(run, locks)  # before anything is saved there, too: whoever has begun it goes on
    point = find_resume_point(name, experiment)
    if point and point.folder:
        _lock_run(point.folder, locks)
    if point:
        _require_long_enough(point, limits)
    if point and point.folder and is_complete(point.folder, limits):
        limit = "max_time" if _read_end(point.folder).get("out_of_time") else "max_epochs"
        raise _RunComplete(
            f"{point.folder} is complete: epochs done: {point.epochs}, steps done: {point.steps}. A higher "
            f"trainer.{limit} goes on with it; without --ckpt_path a new run begins.",
            point.folder,
        )
    if point and point.folder and point.checkpoint is None and _is_first_process():
        remove_records(point.folder)
    _print(str(point or f"There is nothing to go on from in {experiment}: a new run begins."))
    if point and not point.folder:
        _print(f"{point.checkpoint} is not the last.ckpt of a run folder: a new run begins with its state.")
    return point


@contextmanager
def report_complete_run() -> Iterator[list[Path]]:
    """Report a complete run that the block finds, without an error.

    Yields:
        A list that gets the folder of the complete run.
    """
    complete: list[Path] = []
    try:
        yield complete
    except _RunComplete as answer:
        _print(str(answer))
        complete.append(answer.run)


def find_resume_point(name: str, experiment: Path) -> ResumePoint | None:
    """Find what `--ckpt_path` means for `fit`.

    Args:
        name: A file, a run folder for its `last.ckpt`, or `last`. The `last.ckpt` of a run folder continues that run;
            any other file begins a new one, so that the steps a run made after its `best.ckpt` are not lost.
        experiment: The folder of the experiment's runs, for `last`.

    Returns:
        The resume point; `None` if `last` finds no run, or one that has scores but no checkpoints.

    Raises:
        MissingDataError: There is no such file.
        SettingError: The name is a URL.
        UnreadableFileError: The file and the one before it are damaged, or hold no state of a training.
    """
    if name != NEWEST and Path(name).is_dir():
        # No experiment, as elsewhere: the run is gone on with, so it is named, or `last` with --experiment says which.
        require_run_folder(Path(name))
        name = str(Path(name, "checkpoints", LAST))
    if name != NEWEST:
        return _read_first_whole([require_local_file(name), previous_path(Path(name))])
    run = find_newest_run(experiment)
    if run is None:
        return None
    last = run / "checkpoints" / LAST
    others = {path for path in last.parent.glob("*.ckpt") if path.name[0] != "."} - {last, previous_path(last)}
    # Files of other names were not meant to go on from: the newest of them, and only for want of a `last.ckpt`.
    rest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    point = _read_first_whole([last, previous_path(last), *rest])
    if point is None:
        ended = (run / _COMPLETE).is_file() or any(run.glob("scores_*"))
        return None if ended else ResumePoint(None, 0, 0, run)
    return point._replace(folder=run)


def remove_records(run: Path) -> None:
    """Remove the records of a run that was never saved.

    Settings and split may have changed since.
    """
    for name in _RECORDS:
        (run / name).unlink(missing_ok=True)


def record_complete(run: Path, limits: Mapping[str, Any], end: Mapping[str, Any]) -> None:
    """Record that a run has trained as long as `limits` told it.

    Its scores are written by then.

    Args:
        run: Its folder.
        limits: How long it was told to last.
        end: How far it came, see `LengthTracker.describe_end`, and with `best` where its best weights are from.
    """
    record = {**end, "limits": dict(limits)}
    write_text(run / _COMPLETE, json.dumps(record, indent=1) + "\n", replace=True)


def forget_complete(run: Path) -> None:
    """Remove the record of completion: the run goes on."""
    (run / _COMPLETE).unlink(missing_ok=True)


def is_complete(run: Path, limits: Mapping[str, Any]) -> bool:
    """Tell whether a run has trained as long as these limits say.

    With other limits it may go on.
    """
    return (run / _COMPLETE).is_file() and bool(_read_end(run)["limits"] == limits)


def _read_end(run: Path) -> dict[str, Any]:
    """Read how a complete run ended, see `record_complete`."""
    end: dict[str, Any] = json.loads((run / _COMPLETE).read_text(encoding="utf-8"))
    return end


def _read_first_whole(candidates: list[Path]) -> ResumePoint | None:
    """Read the first whole checkpoint, with a warning of damaged ones before."""
    present = [path for path in candidates if path.is_file()]
    damaged: list[UnreadableFileError] = []
    for path in present:
        try:
            point = _read_checkpoint(path)
        except UnreadableFileError as error:
            damaged.append(error)
            continue
        for fault in damaged:
            log.warning("%s Going on from %s instead.", fault, path)
        return point
    if damaged:
        names = " and ".join(str(path) for path in present)
        raise UnreadableFileError(f"{damaged[0]} Nothing to go on from: {names} cannot be read.") from damaged[0]
    return None


def _read_checkpoint(path: Path) -> ResumePoint:
    checkpoint = load_verified(path, mmap=True)  # only counters are looked at: weights stay on the disk
    run = get_run_folder(path)
    continues = path.name in (LAST, previous_path(path.with_name(LAST)).name) and (run / "config.yaml").is_file()
    try:
        if "optimizer_states" not in checkpoint:
            raise KeyError("optimizer_states")
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        steps = checkpoint["global_step"]
    except KeyError as error:
        raise UnreadableFileError(
            f"{path} holds weights, but no state of a training to go on from ({error} is missing). Use last.ckpt of a "
            "run folder, or begin a new run with these weights by model.pretrained."
        ) from error
    return ResumePoint(path, int(epochs), int(steps), run if continues else None)


def _require_long_enough(point: ResumePoint, limits: Mapping[str, Any]) -> None:
    """Check that the limits do not end before the state."""
    for name, done in (("max_epochs", point.epochs), ("max_steps", point.steps)):
        limit = limits.get(name)
        if limit is not None and 0 <= int(limit) < done:
            raise TooShortError(
                f"trainer.{name} is {limit}, but {point.checkpoint} has {done} {name[4:]} behind it. Set it to {done} "
                "or more, or begin anew without --ckpt_path."
            )


def _lock_run(run: Path, locks: FolderLocks) -> None:
    """Lock the run folder in the first process, for all of them."""
    if _is_first_process():
        locks.acquire(run)


def _is_first_process() -> bool:
    return not rank_zero_only.rank and os.environ.get("NODE_RANK", "0") == "0"  # type: ignore[attr-defined]


@rank_zero_only
def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
