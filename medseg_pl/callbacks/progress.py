"""Progress where there is no terminal: one line for each validation."""

from __future__ import annotations

import sys
import time

from lightning.pytorch import Callback, LightningModule, Trainer


class EpochLines(Callback):
    """Prints one plain line after each validation of a training: for log files, where a bar would be noise."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, steps, loss, scores, rate and time left."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            sys.stdout.write(self._line(trainer) + "\n")
            sys.stdout.flush()

    def _line(self, trainer: Trainer) -> str:
        values = trainer.callback_metrics
        seconds = time.monotonic() - self._started
        rate = trainer.global_step / seconds if seconds else 0.0
        total = trainer.estimated_stepping_batches
        left = (total - trainer.global_step) / rate if rate else float("inf")
        shown = [
            f"{name} {float(values[name]):.4f}" for name in ("train/loss", "val/loss", "val/dice") if name in values
        ]
        where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step} of {total:g}"
        return f"{where}: {', '.join(shown)}; {rate:.2f} steps/s, {left / 60:.1f} min left"
