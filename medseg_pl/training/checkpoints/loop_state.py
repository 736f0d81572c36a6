"""The trainer's counters in a checkpoint, written so that a resumed training skips and repeats nothing.

Lightning 2.6 reads from its counters in which hook a checkpoint was written, and resumes well from some of them. From
others it leaves out a validation that was due (saved after a training batch), the rest of an epoch (saved after
`should_stop`), or a whole epoch (`max_steps`, saved at an epoch's end). So a checkpoint is written with the counters
of one of two hooks from which it resumes well, whatever the hook it is written in: the end of a batch within an epoch,
or the end of an epoch with all its hooks.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

State = dict[str, Any]
"""What `Trainer.fit_loop.state_dict()` gives."""


class LoopPosition(NamedTuple):
    """How far a training has come.

    Attributes:
        epoch: Which epoch it is in, from 0.
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
    """Count the batches that wait for the optimizer's step: a checkpoint written now has to run them again."""
    state = trainer.fit_loop.state_dict()
    position = read_position(state, trainer.num_training_batches, trainer.accumulate_grad_batches)
    return int(state["epoch_loop.batch_progress"]["total"]["processed"]) - position.total


def count_done_batches(loop: Any) -> tuple[int, bool]:
    """Count the batches of its epoch that a resumed training has done when the loader is made.

    Args:
        loop: `Trainer.fit_loop`, with the counters that a checkpoint gave it.

    Returns:
        How many, and whether these are all.
    """
    progress = loop.epoch_loop.batch_progress
    return (progress.current.ready, progress.is_last_batch) if loop.restarting else (0, False)


def fix_epoch_restart(trainer: Trainer) -> None:
    """Let an epoch without any done batch begin as usual; with `max_steps` Lightning takes it as begun."""
    loop = trainer.fit_loop.epoch_loop
    if loop.restarting and not loop.batch_progress.current.ready:
        loop.restarting = False


def read_position(state: State, batches: float, accumulated: int) -> LoopPosition:
    """Read the position from counters, whichever hook they are of.

    Args:
        state: The counters.
        batches: Of an epoch.
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
    """Make the counters of a trainer that stands at the end of a batch or of an epoch.

    Args:
        position: Where it stands.
        state: The counters that are not about it are taken from here.
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
    """Tell whether the trainer validates after the last batch that is done, by its own rule."""
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
