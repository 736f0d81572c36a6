"""Validation of the weights that a training ends with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from medseg_pl.core.errors import SettingError
from medseg_pl.models.lr_schedulers import follows_scores

log = logging.getLogger(__name__)


def require_validation(trainer: Trainer, schedulers: Iterable[Any]) -> None:
    """Refuse a training without validation where something waits for scores, and warn of any other.

    Args:
        trainer: When its `fit` starts.
        schedulers: Of the learning rate.

    Raises:
        SettingError: Early stopping or a schedule would find no scores.
    """
    if trainer.enable_validation or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    waiting = [type(callback).__name__ for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    waiting += [type(scheduler).__name__ for scheduler in schedulers if follows_scores(scheduler)]
    if waiting:
        raise SettingError(
            f"{waiting[0]} waits for scores, but trainer.limit_val_batches is 0: there is no validation. Leave out one "
            "of them."
        )
    log.warning(
        "trainer.limit_val_batches is 0: without a validation there is no best.ckpt, and there are no scores. "
        "last.ckpt has the weights."
    )


def validate_at_end(trainer: Trainer, validated: int) -> None:
    """Validate where training ends, unless the last validation saw these weights.

    Lightning validates where its intervals say so, and a run may end between two of them, or before the first. To be
    called when an epoch ends, or what there is of it, before anyone saves or looks at scores.

    Args:
        trainer: In its `fit`.
        validated: After how many batches, of all epochs, the last validation was complete.
    """
    loop = trainer.fit_loop
    if validated > loop.total_batch_idx or not trainer.enable_validation or not _ends(trainer):
        return
    # As every validation, this one belongs to the last step and to the epoch that ends: Lightning counts both up after
    # it, and what is saved in it goes on from there.
    _count(trainer, -1)
    trainer.validating = True
    loop.epoch_loop.val_loop.run()
    trainer.training = True
    _count(trainer, 1)


def _ends(trainer: Trainer) -> bool:
    """Tell whether training ends with this epoch."""
    # Lightning's answer counts the epoch as completed as well, which comes later.
    current = trainer.fit_loop.epoch_progress.current
    completed = current.completed
    ends = trainer.fit_loop.done
    current.completed = completed
    return ends


def _count(trainer: Trainer, change: int) -> None:
    """Change the counters of steps for the loggers, and of epochs."""
    progress = trainer.fit_loop.epoch_progress
    progress.total.processed += change  # type: ignore[attr-defined]
    progress.current.processed += change  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop._batches_that_stepped += change
