"""No checkpoint is ahead of the log."""

from __future__ import annotations

from typing import Any

from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.training.loggers.csv_logger import RunLogger


class LogBeforeSave(Callback):
    """Writes everything that was logged to disk before a checkpoint is, whoever saves it.

    Lightning logs a step's values after the hooks of that step, in which checkpoints are saved. A process that is
    killed in between would leave no row of the step: whoever goes on from the checkpoint does not make it again.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Log what is about to be logged, and write it."""
        if _is_pending(trainer):
            metrics = convert_tensors_to_scalars(trainer._logger_connector.metrics["log"])
            step = metrics.pop("step", trainer.global_step - 1)  # as Lightning's logger connector has it
            for log in trainer.loggers:
                if isinstance(log, RunLogger) and metrics:
                    log.log_metrics({**metrics, "epoch": trainer.current_epoch}, int(step))
        for log in trainer.loggers:
            log.save()


def _is_pending(trainer: Trainer) -> bool:
    """Whether this is a hook after which Lightning logs: the end of a batch with a logged step, or of an epoch."""
    if not trainer.training:
        return False
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if batches.processed == batches.completed:
        return bool(epochs.processed != epochs.completed)
    return trainer._logger_connector.should_update_logs and not trainer.fit_loop._should_accumulate()
