"""Callbacks that keep a run's checkpoints: the best weights, and the state to resume from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from medseg_pl.io.atomic_files import reserve_temporary
from medseg_pl.models.checkpoint import get_run_folder
from medseg_pl.training.checkpoints.checkpoint_io import LAST, link_or_copy
from medseg_pl.training.checkpoints.loop_state import pending_accumulation_batches
from medseg_pl.training.checkpoints.resume_point import forget_complete


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
        """Remember the best so far of this run, wherever its folder is now; another run's best is not ours."""
        folder = Path(str(self.dirpath))
        best = folder / Path(state_dict["best_model_path"]).name
        if not best.is_file():
            return
        scores = {str(folder / Path(name).name): score for name, score in state_dict["best_k_models"].items()}
        moved = {"best_model_path": str(best), "kth_best_model_path": str(best), "best_k_models": scores}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keep `last.ckpt`, the state to resume from: at each epoch's end, and every few minutes in between.

    Args:
        minutes: How much training a crash may cost at most.
    """

    def __init__(self, minutes: float = 10.0) -> None:
        self.minutes = minutes
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run that trains is not complete."""
        self._saved_at = time.monotonic()
        run = get_run_folder(last_checkpoint_path(trainer))
        if trainer.is_global_zero:
            forget_complete(run)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save when the minutes have passed, or training is told to stop in mid-epoch."""
        if not trainer.is_last_batch and (trainer.should_stop or self._is_due(trainer)):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the validation of the epoch, or of as much of it as there is."""
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
    """Find the file of the best weights, wherever their callback stands in the trainer's list.

    Lightning's `trainer.checkpoint_callback` is the first that keeps any checkpoint, `LastCheckpoint` included.

    Returns:
        The file; `None` where no validation was better than another, or no checkpoints are kept.
    """
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
    files = [Path(callback.best_model_path) for callback in kept]
    return next((file for file in files if file.is_file()), None)


def keep_last_as_best(trainer: Trainer) -> Path | None:
    """Keep the newest weights as the best ones, if a training ended in the validation at its end.

    Lightning does not train where nothing is left to train, and so does not validate either. Every rank has to ask.

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


def last_checkpoint_path(trainer: Trainer) -> Path:
    """Return the path of this run's `last.ckpt`; every rank has to call, and gets the same one.

    `trainer.save_checkpoint(last_checkpoint(trainer))` saves the state at a step's end.
    """
    return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / LAST
