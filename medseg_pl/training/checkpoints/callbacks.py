"""Callbacks that keep a run's checkpoints, and the trainer's counters in them.

Lightning 2.6 reads from its counters in which hook a checkpoint was written, and resumes well from some of them. From
others it leaves out a validation that was due (saved after a training batch), the rest of an epoch (saved after
`should_stop`), or a whole epoch (`max_steps`, saved at an epoch's end). So a checkpoint is written with the counters
of one of two hooks from which it resumes well, whatever the hook it is written in: the end of a batch within an epoch,
or the end of an epoch with all its hooks.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from medseg_pl.io.atomic_files import reserve_temporary
from medseg_pl.models.checkpoint import get_run_folder, load_verified
from medseg_pl.training.checkpoints.checkpoint_io import LAST, link_or_copy
from medseg_pl.training.checkpoints.resume_point import forget_complete

State = dict[str, Any]
"""What `Trainer.fit_loop.state_dict()` gives."""


class LoopPosition(NamedTuple):
    """Position of a training in its epochs and batches.

    Attributes:
        epoch: The present epoch, from 0.
        batch: How many batches of this epoch are done; 0 is also the end of the epoch before.
        total: How many batches are done in all epochs.
        last: Whether no batch is left in this epoch, so that only its validation and its end are.
    """

    epoch: int
    batch: int
    total: int
    last: bool


def make_resumable(trainer: Trainer, state: State, validated: int) -> State:
    """Make the counters to keep in a checkpoint that is written now.

    Args:
        trainer: In its `fit`.
        state: Its counters.
        validated: After how many batches, of all epochs, the last validation was complete.
    """
    position = read_position(state, trainer.num_training_batches, trainer.accumulate_grad_batches)
    due = _has_validation(trainer, position)
    # Batches that have to be run again come after a validation that was due where they begin.
    pending = due and validated < position.total
    return make_counters(position, state, steps=trainer.global_step, due=due, pending=pending)


def pending_accumulation_batches(trainer: Trainer) -> int:
    """Count the batches that wait for the optimizer's step.

    A checkpoint written now has to run them again.
    """
    state = trainer.fit_loop.state_dict()
    position = read_position(state, trainer.num_training_batches, trainer.accumulate_grad_batches)
    return int(state["epoch_loop.batch_progress"]["total"]["processed"]) - position.total


def count_done_batches(loop: Any) -> tuple[int, bool]:
    """Count the batches of its epoch that a resumed training has done.

    It is called when the loader is made.

    Args:
        loop: `Trainer.fit_loop`, with the counters that a checkpoint gave it.

    Returns:
        How many, and whether these are all.
    """
    progress = loop.epoch_loop.batch_progress
    return (progress.current.ready, progress.is_last_batch) if loop.restarting else (0, False)


def fix_epoch_restart(trainer: Trainer) -> None:
    """Let an epoch without any done batch begin as usual.

    With `max_steps` Lightning takes it as begun.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarting and not loop.batch_progress.current.ready:
        loop.restarting = False


def read_position(state: State, batches: float, accumulated: int) -> LoopPosition:
    """Read the position of a training from counters of any hook.

    Args:
        state: The counters.
        batches: Batches of an epoch.
        accumulated: Batches for each step of the optimizer. Those that wait for one are not done: their gradients are
            in no checkpoint.
    """
    epochs, counted = state["epoch_progress"]["current"], state["epoch_loop.batch_progress"]
    batch, total = counted["current"]["processed"], counted["total"]["processed"]
    complete = counted["is_last_batch"] and counted["current"]["ready"] == batch
    last = bool(batch) and (complete or batch >= batches)
    ended = epochs["processed"] == epochs["started"]
    if ended and (last or not batch):
        return LoopPosition(epochs["started"], 0, total, last=False)
    waiting = 0 if last else batch % accumulated
    return LoopPosition(epochs["started"] - 1, batch - waiting, total - waiting, last)


def make_counters(position: LoopPosition, state: State, *, steps: int, due: bool, pending: bool) -> State:
    """Make a trainer's counters at the end of a batch or epoch.

    Args:
        position: The position of the training.
        state: All other counters are taken from here.
        steps: Of the optimizer.
        due: Whether this position has a validation.
        pending: Whether it is still to be run.
    """
    state = copy.deepcopy(state)
    within = position.batch > 0
    state["epoch_progress"] = _double(_make_counts(*[position.epoch + within] * 2, *[position.epoch] * 2))
    state["epoch_loop.batch_progress"] = {
        "total": _make_counts(*[position.total] * 4),
        "current": _make_counts(*[position.batch] * 4),
        "is_last_batch": position.last,
    }
    # One batch begun and none done is what Lightning takes for an interrupted validation: it is run from its beginning.
    validation = {"total": _make_counts(int(pending), int(pending), 0, 0), "current": _make_counts(0, 0, 0, 0)}
    state["epoch_loop.val_loop.batch_progress"] = {**validation, "is_last_batch": False}
    # The step in the loggers' files: Lightning counts it up after the validation, run or skipped.
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - (within and due)
    return state


def _has_validation(trainer: Trainer, position: LoopPosition) -> bool:
    """Tell whether the trainer validates after the last batch done."""
    every = trainer.val_check_batch
    if not position.batch or not trainer.enable_validation or every is None or math.isinf(every):
        return False
    if trainer.check_val_every_n_epoch is None:
        return position.total % every == 0
    return (position.epoch + 1) % trainer.check_val_every_n_epoch == 0 and position.batch % every == 0


def _make_counts(ready: int, started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def _double(counts: dict[str, int]) -> State:
    return {"total": dict(counts), "current": counts}


class BestCheckpoint(ModelCheckpoint):
    """Keep `best.ckpt`, the weights with the best validation score.

    Args:
        monitor: The score, by the name under which it is logged.
        mode: `max` where more of it is better, `min` for losses and distances.
    """

    def __init__(self, monitor: str = "val/dice", mode: Literal["min", "max"] = "max") -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename="best",
            auto_insert_metric_name=False,
            enable_version_counter=False,  # replaced by renaming: it is never missing, and never there twice
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoint of this run, wherever its folder is now.

        Another run's best is ignored.
        """
        folder = Path(str(self.dirpath))
        best = folder / Path(state_dict["best_model_path"]).name
        if not best.is_file():
            return
        scores = {str(folder / Path(name).name): score for name, score in state_dict["best_k_models"].items()}
        moved = {"best_model_path": str(best), "kth_best_model_path": str(best), "best_k_models": scores}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keep `last.ckpt`, the state to resume from.

    It is written at each epoch's end, and every few minutes in between.

    Args:
        minutes: How much training a crash may cost at most.
    """

    def __init__(self, minutes: float = 10.0) -> None:
        self.minutes = minutes
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and mark the run as not complete."""
        self._saved_at = time.monotonic()
        run = get_run_folder(last_checkpoint_path(trainer))
        if trainer.is_global_zero:
            forget_complete(run)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save after some minutes, or when training stops in mid-epoch."""
        if not trainer.is_last_batch and (trainer.should_stop or self._is_due(trainer)):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the validation of an epoch, even a partial one."""
        self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        # All ranks save or none, and to agree on it they wait for each other: not at every step.
        every = trainer.log_every_n_steps or 50  # type: ignore[attr-defined]  # 0 logs nothing, and saves all the same
        if trainer.world_size > 1 and trainer.global_step % every:
            return False
        # Gradients that wait for a step are in no checkpoint: their batches would run twice.
        if pending_accumulation_batches(trainer):
            return False
        due = time.monotonic() - self._saved_at >= 60 * self.minutes
        return bool(trainer.strategy.broadcast(due))

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(last_checkpoint_path(trainer))
        self._saved_at = time.monotonic()


def find_best_weights(trainer: Trainer) -> Path | None:
    """Find the file of the best weights.

    Lightning's `trainer.checkpoint_callback` is the first that keeps any checkpoint, `LastCheckpoint` included.

    Returns:
        The file; `None` where no validation was better than another, or no checkpoints are kept.
    """
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
    files = [Path(callback.best_model_path) for callback in kept]
    return next((file for file in files if file.is_file()), None)


def keep_last_as_best(trainer: Trainer) -> Path | None:
    """Keep the newest weights as the best, after a stop in validation.

    It was the validation at the end of the training. Lightning does not train where nothing is left to train, and so
    does not validate either. Each rank must call it.

    Returns:
        `best.ckpt`; `None` where the trainer keeps no best weights, or has no validation.
    """
    last = last_checkpoint_path(trainer)
    best = last.with_name(f"best{last.suffix}")
    keeps = any(isinstance(callback, BestCheckpoint) for callback in trainer.checkpoint_callbacks)
    if not keeps or not trainer.enable_validation or not trainer.strategy.broadcast(last.is_file()):
        return None
    if trainer.is_global_zero:
        with reserve_temporary(best) as new:
            link_or_copy(last, new)
            new.replace(best)
    trainer.strategy.barrier()
    return best


def locate_weights(checkpoint: Path) -> dict[str, int]:
    """Read the `step` and the `epoch`, both from 1, after which weights were saved."""
    state = load_verified(checkpoint, mmap=True)  # only counters are looked at
    return {"step": int(state["global_step"]), "epoch": int(state["epoch"]) + 1}


def last_checkpoint_path(trainer: Trainer) -> Path:
    """Return the path of this run's `last.ckpt`, the same on each rank.

    Each rank must call it. `trainer.save_checkpoint(last_checkpoint(trainer))` saves the state at a step's end.
    """
    return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / LAST
