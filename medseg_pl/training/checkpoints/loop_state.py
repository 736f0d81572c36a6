"""Where a training that stops goes on: the trainer's counters, written down so that nothing is skipped or done twice.

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
    """The counters to keep in a checkpoint that is written now.

    Args:
        trainer: In its `fit`.
        state: Its counters.
        validated: After how many batches, of all epochs, the last validation was complete.
    """
    place = read_position(state, trainer.num_training_batches, trainer.accumulate_grad_batches)
    due = _validates_at(trainer, place)
    # Batches that have to be run again come after a validation that was due where they begin.
    pending = due and validated < place.total
    return make_counters(place, state, steps=trainer.global_step, due=due, pending=pending)


def pending_accumulation_batches(trainer: Trainer) -> int:
    """How many batches wait for the optimizer's step: what a checkpoint written now has to run again."""
    state = trainer.fit_loop.state_dict()
    place = read_position(state, trainer.num_training_batches, trainer.accumulate_grad_batches)
    return int(state["epoch_loop.batch_progress"]["total"]["processed"]) - place.total


def count_done_batches(loop: Any) -> tuple[int, bool]:
    """How many batches of its epoch a resumed training has had when the loader is made, and whether these are all.

    Args:
        loop: `Trainer.fit_loop`, with the counters that a checkpoint gave it.
    """
    progress = loop.epoch_loop.batch_progress
    return (progress.current.ready, progress.is_last_batch) if loop.restarting else (0, False)


def fix_epoch_restart(trainer: Trainer) -> None:
    """Let an epoch of which nothing is done begin as any other; with `max_steps` Lightning would take it as begun."""
    loop = trainer.fit_loop.epoch_loop
    if loop.restarting and not loop.batch_progress.current.ready:
        loop.restarting = False


def read_position(state: State, batches: float, accumulated: int) -> LoopPosition:
    """Read the counters, from whichever hook they are.

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


def make_counters(place: LoopPosition, state: State, *, steps: int, due: bool, pending: bool) -> State:
    """The counters of a trainer that stands at a place, at the end of a batch or of an epoch.

    Args:
        place: Where.
        state: The counters that are not about it are taken from here.
        steps: Of the optimizer.
        due: Whether this place has a validation.
        pending: Whether it is still to be run.
    """
    state = copy.deepcopy(state)
    within = place.batch > 0
    state["epoch_progress"] = _both(_counts(place.epoch + within, place.epoch + within, place.epoch, place.epoch))
    state["epoch_loop.batch_progress"] = {
        "total": _counts(*[place.total] * 4),
        "current": _counts(*[place.batch] * 4),
        "is_last_batch": place.last,
    }
    # One batch begun and none done is what Lightning takes for an interrupted validation: it is run from its beginning.
    validation = {"total": _counts(1, 1, 0, 0) if pending else _counts(0, 0, 0, 0), "current": _counts(0, 0, 0, 0)}
    state["epoch_loop.val_loop.batch_progress"] = {**validation, "is_last_batch": False}
    # The step in the loggers' files: Lightning counts it up after the validation, run or skipped.
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - (within and due)
    return state


def _validates_at(trainer: Trainer, place: LoopPosition) -> bool:
    """Whether the trainer validates after the last batch that is done, by its own rule."""
    every = trainer.val_check_batch
    if not place.batch or not trainer.enable_validation or every is None or math.isinf(every):
        return False
    if trainer.check_val_every_n_epoch is None:
        return place.total % every == 0
    return (place.epoch + 1) % trainer.check_val_every_n_epoch == 0 and place.batch % every == 0


def _counts(ready: int, started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def _both(counts: dict[str, int]) -> State:
    return {"total": dict(counts), "current": counts}
