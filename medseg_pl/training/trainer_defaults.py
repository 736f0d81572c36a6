"""Default loggers, callbacks and plug-ins of every Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from medseg_pl.core.errors import SettingError
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.progress import can_redraw
from medseg_pl.training.callbacks import (
    FiniteCheck,
    LearningRates,
    LogBeforeSave,
    LogLines,
    MediaLogger,
    OverlayWriter,
    Preemption,
    ProfileWriter,
    ProgressBar,
    ProvenanceWriter,
    Pseudonyms,
    ScoreWriter,
    check_wandb,
    make_private,
)
from medseg_pl.training.checkpoints import BestCheckpoint, DurableCheckpointIO, LastCheckpoint, ResumePoint
from medseg_pl.training.csv_logger import RunLogger


def make_run_logger(experiment: Path, resumption: ResumePoint | None, locks: FolderLocks) -> RunLogger:
    """Make the logger of a training's run folder.

    Args:
        experiment: The folder of the experiment's runs.
        resumption: The state to resume; a new run folder is made where it has none.
        locks: Lock the run folder for this process.
    """
    if resumption and (run := resumption.folder):
        return RunLogger(run.parent.parent, run.parent.name, locks, run.name, resumption.steps)
    return RunLogger(experiment.parent, experiment.name, locks)


def configure_privacy(loggers: Sequence[Logger], folder: Path | None = None) -> None:
    """Keep personal data from loggers, and let W&B resume its run.

    Args:
        loggers: Loggers of the trainer; in a training the run's log is among them.
        folder: The run folder that is evaluated; by default the one that is trained in.
    """
    check_wandb(loggers)  # on every rank, so that none waits for one that was refused
    hosted = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    if not hosted or rank_zero_only.rank:  # type: ignore[attr-defined]  # only rank zero talks to W&B
        return
    run = folder or next(logger.log_dir for logger in loggers if isinstance(logger, RunLogger))
    record = Pseudonyms.read(Path(run)) if run else None
    for logger in hosted:
        make_private(logger, record.wandb_run_id if record else None)


def make_progress_callbacks() -> list[Callback]:
    """Make a progress bar for a terminal, plain lines elsewhere."""
    # In a log file a bar would be one endless line of control characters.
    return [ProgressBar()] if can_redraw(Console()) else [LogLines()]


def make_fit_callbacks(
    given: Sequence[Callback], stop: StopSignals, *, keeps: bool, save_predictions: bool = True
) -> list[Callback]:
    """Make the callbacks of a training, except for its progress.

    Args:
        given: Callbacks of the settings; they replace our own of the same purpose.
        stop: Signals that ask the training to stop.
        keeps: Whether checkpoints are kept.
        save_predictions: Whether the masks of the validation at the end are kept.
    """
    checkpoints = _make_checkpoint_callbacks(given) if keeps else []
    records = [
        ProvenanceWriter(),
        ProfileWriter(),
        ScoreWriter(save_predictions=save_predictions),
        OverlayWriter(),
        *_make_media_logger(given),
    ]
    return [FiniteCheck(), LogBeforeSave(), *checkpoints, LearningRates(), *records, Preemption(stop)]


def make_eval_callbacks(given: Sequence[Callback], folder: str, *, save_predictions: bool = True) -> list[Callback]:
    """Make the callbacks of `validate` and `test`, except for their progress."""
    return [ScoreWriter(folder, save_predictions), OverlayWriter(directory=folder), *_make_media_logger(given, folder)]


def complete_plugins(given: Sequence[Any]) -> list[Any]:
    """Add our plug-ins of the kinds that are not given."""
    ours: list[Any] = [] if any(isinstance(plugin, CheckpointIO) for plugin in given) else [DurableCheckpointIO()]
    placed = any(isinstance(plugin, ClusterEnvironment) for plugin in given)
    if not placed and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        ours.append(SLURMEnvironment(auto_requeue=False))  # Lightning's way saves in the middle of a step
    return [*given, *ours]


def to_list(value: Any) -> list[Any]:
    """Convert a setting of the trainer to a list.

    Args:
        value: One thing, several, or a switch.
    """
    # Lightning takes a switch where it takes a list: `logger: true` is its own default logger.
    if value in (None, True, False):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _make_media_logger(given: Sequence[Callback], folder: str | None = None) -> list[Callback]:
    """Make a logger of media, unless one is given."""
    own = [callback for callback in given if isinstance(callback, MediaLogger)]
    for callback in own:
        callback.directory = callback.directory or folder
    return [] if own else [MediaLogger(directory=folder)]


def _make_checkpoint_callbacks(given: Sequence[Callback]) -> list[Callback]:
    """Make the callbacks of best weights and last state that are not given.

    Raises:
        SettingError: Another callback would write to the same file.
    """
    for callback in given:
        if isinstance(callback, ModelCheckpoint) and not isinstance(callback, BestCheckpoint):
            _refuse_taken_name(callback)
    best = [callback for callback in given if isinstance(callback, BestCheckpoint)]
    if len(best) > 1:
        raise SettingError("trainer.callbacks: BestCheckpoint is there twice, but there is one best.ckpt. Keep one.")
    last = [] if any(isinstance(callback, LastCheckpoint) for callback in given) else [LastCheckpoint()]
    return [*([] if best else [BestCheckpoint()]), *last]


def _refuse_taken_name(callback: ModelCheckpoint) -> None:
    """Refuse a `ModelCheckpoint` that writes to a file of ours."""
    # Ours are the best weights and the last state.
    if callback.dirpath is None and callback.filename in ("best", "last"):
        raise SettingError(
            f"trainer.callbacks: every run keeps a file {callback.filename!r}; give ModelCheckpoint another filename. "
            "For the best by another score, set medseg_pl.training.checkpoints.BestCheckpoint's monitor and mode."
        )
