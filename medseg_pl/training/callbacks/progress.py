"""Progress of a run: a bar on a terminal, lines in a log file, and the phase that it is in."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from medseg_pl.training.training_length import count_run_steps, estimate_seconds_left

Phase = Literal["preparation", "training", "validation", "test", "prediction"]

_WIDTHS = {"epoch": 7, "step": 17, "train/loss": 12, "val/loss": 10, "val/dice": 10, "steps/s": 10, "min left": 10}
_LINES_TO_A_HEADER = 20


class PhaseTracker(Callback):
    """Track the phase of the current batch, so that an error can say where it happened.

    Lightning's own state forgets that as soon as something fails.

    Attributes:
        phase: `preparation` before the first batch; the end of a phase, where scores are merged, belongs to it.
    """

    def __init__(self) -> None:
        self.phase: Phase = "preparation"

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter training."""
        self.phase = "training"

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter validation, during a training or by itself."""
        self.phase = "validation"

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter the test."""
        self.phase = "test"

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter prediction."""
        self.phase = "prediction"


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, which ends before results are printed, and leaves out the number of the run."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal, unless training goes on."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            self.teardown(trainer, pl_module, "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal."""
        super().on_test_end(trainer, pl_module)
        self.teardown(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal."""
        super().on_predict_end(trainer, pl_module)
        self.teardown(trainer, pl_module, "predict")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values beside the bar."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class LogLines(Callback):
    """Print one plain line after each validation of a training: for log files, where a bar would be noise.

    Lines are 78 characters long, under a header that comes again and again, since logs are read from their end.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._first_step = 0
        self._steps = math.inf
        self._lines = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_step = time.monotonic(), trainer.global_step
        self._steps = count_run_steps(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, steps, losses, score, rate and time left."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            header = _align({name: name for name in _WIDTHS}) if self._lines % _LINES_TO_A_HEADER == 0 else ""
            sys.stdout.write(header + _align(self._read_values(trainer)))
            sys.stdout.flush()  # log files are buffered, and someone may be watching them
            self._lines += 1

    def _read_values(self, trainer: Trainer) -> dict[str, str]:
        seconds = time.monotonic() - self._started
        rate = (trainer.global_step - self._first_step) / seconds if seconds else 0.0
        left = estimate_seconds_left(trainer, (self._steps - trainer.global_step) / rate if rate else math.inf)
        total = f"/{self._steps:.0f}" if math.isfinite(self._steps) else ""
        metrics = {name: f"{float(value):.4f}" for name, value in trainer.callback_metrics.items() if name in _WIDTHS}
        return {
            "epoch": f"{trainer.current_epoch + 1}",
            "step": f"{trainer.global_step}{total}",
            **metrics,
            "steps/s": f"{rate:.2f}",
            "min left": f"{left / 60:.1f}",
        }


def _align(values: dict[str, str]) -> str:
    """Align a line of the table; a dash stands for a value that is missing."""
    return "".join(f"{values.get(name, '–'):>{width}}" for name, width in _WIDTHS.items()) + "\n"
