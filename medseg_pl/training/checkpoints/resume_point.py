"""From which checkpoint a run goes on, and in which folder."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.atomic_files import write_text
from medseg_pl.models.checkpoint import get_run_folder, load_verified, require_local_file
from medseg_pl.training.checkpoints.checkpoint_io import LAST, previous_of

log = logging.getLogger(__name__)

NEWEST = "last"
"""In place of a checkpoint's path: the newest state of the experiment's newest run."""

_COMPLETE = "complete.json"

_RECORDS = ("config.yaml", "hparams.yaml", "splits.json", "environment.json", "metrics.csv")
"""What a training writes before its first save."""


class ResumePoint(NamedTuple):
    """Where training goes on.

    Attributes:
        checkpoint: The state that is restored; `None` where a run was stopped before its first save, and begins again
            in its folder.
        epochs: Epochs that are behind it.
        steps: Steps of the optimizer that are behind it.
        folder: The run folder that is continued, or `None` where a new run begins with another one's state.
    """

    checkpoint: Path | None
    epochs: int
    steps: int
    folder: Path | None

    def __str__(self) -> str:
        """One line for the terminal.

        >>> print(ResumePoint(Path("runs/demo/version_0/checkpoints/last.ckpt"), 3, 120, Path("runs/demo/version_0")))
        Going on from runs/demo/version_0/checkpoints/last.ckpt, epochs done: 3, steps done: 120.
        """
        if self.checkpoint is None:
            return f"{self.folder} was stopped before its first save: the run begins again there."
        return f"Going on from {self.checkpoint}, epochs done: {self.epochs}, steps done: {self.steps}."


def find_resume_point(name: str, experiment: Path) -> ResumePoint | None:
    """Find what `--ckpt_path` means for `fit`.

    Args:
        name: A file, a run folder for its `last.ckpt`, or `last`. The `last.ckpt` of a run folder continues that run;
            any other file begins a new one, so that the steps a run made after its `best.ckpt` are not lost.
        experiment: The folder of the experiment's runs, for `last`.

    Returns:
        Where to go on; `None` if `last` finds no run, or one that has scores but no checkpoints.

    Raises:
        MissingDataError: There is no such file.
        SettingError: The name is a URL.
        UnreadableFileError: The file is damaged, and so is the one before it, or it cannot be gone on from.
    """
    if name != NEWEST and Path(name).is_dir():
        name = str(Path(name, "checkpoints", LAST))
    if name != NEWEST:
        return _first_whole([require_local_file(name), previous_of(Path(name))])
    run = newest_run(experiment)
    if run is None:
        return None
    last = run / "checkpoints" / LAST
    others = {path for path in last.parent.glob("*.ckpt") if path.name[0] != "."} - {last, previous_of(last)}
    # Those of other names are no state that a run was meant to go on from: newest first, and only where there is none.
    rest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    found = _first_whole([last, previous_of(last), *rest])
    if found is None:
        return None if (run / _COMPLETE).is_file() or any(run.glob("scores_*")) else ResumePoint(None, 0, 0, run)
    return found._replace(folder=run)


def newest_run(experiment: Path) -> Path | None:
    """The run folder with the highest number."""
    numbers = [re.fullmatch(r"version_(\d+)", path.name) for path in experiment.glob("version_*") if path.is_dir()]
    runs = [int(match[1]) for match in numbers if match]
    return experiment / f"version_{max(runs)}" if runs else None


def remove_records(run: Path) -> None:
    """Remove what a run that was never saved has noted of itself: settings and split may be others now."""
    for name in _RECORDS:
        (run / name).unlink(missing_ok=True)


def record_complete(run: Path, limits: Mapping[str, Any], epochs: int, steps: int) -> None:
    """Note that a run has trained as long as it was told to, and that its scores are written."""
    record = {"epochs": epochs, "steps": steps, "limits": dict(limits)}
    write_text(run / _COMPLETE, json.dumps(record, indent=1) + "\n", replace=True)


def forget_complete(run: Path) -> None:
    """Take the note away: the run goes on."""
    (run / _COMPLETE).unlink(missing_ok=True)


def is_complete(run: Path, limits: Mapping[str, Any]) -> bool:
    """Whether a run has trained as long as these limits say; with other limits it goes on."""
    path = run / _COMPLETE
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8"))["limits"] == limits)


def _first_whole(candidates: list[Path]) -> ResumePoint | None:
    present = [path for path in candidates if path.is_file()]
    damaged: list[UnreadableFileError] = []
    for path in present:
        try:
            found = _read(path)
        except UnreadableFileError as error:
            damaged.append(error)
            continue
        for passed_over in damaged:
            log.warning("%s Going on from %s instead.", passed_over, path)
        return found
    if damaged:
        names = " and ".join(str(path) for path in present)
        raise UnreadableFileError(f"{damaged[0]} Nothing to go on from: {names} cannot be read.") from damaged[0]
    return None


def _read(path: Path) -> ResumePoint:
    checkpoint = load_verified(path, mmap=True)
    run = get_run_folder(path)
    continued = path.name in (LAST, previous_of(path.with_name(LAST)).name) and (run / "config.yaml").is_file()
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
    return ResumePoint(path, int(epochs), int(steps), run if continued else None)
