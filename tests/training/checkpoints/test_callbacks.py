"""Where a training is, read from the trainer's counters, whichever hook they are written down in."""

from __future__ import annotations

from typing import Any

import pytest

from medseg_pl.training.checkpoints.callbacks import LoopPosition, make_counters, read_position

BATCHES = 10


def counts(ready: int, started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def counters(epochs: tuple[int, int, int, int], batch: tuple[int, int, int, int], total: int, last: bool) -> Any:
    """As Lightning has them: of the epochs, of the epoch's batches, and of all batches."""
    return {
        "epoch_progress": {"total": counts(*epochs), "current": counts(*epochs)},
        "epoch_loop.batch_progress": {
            "total": counts(*[total] * 4),
            "current": counts(*batch),
            "is_last_batch": last,
        },
        "epoch_loop.val_loop.batch_progress": {"total": counts(4, 4, 4, 4), "current": counts(4, 4, 4, 4)},
        "epoch_loop.state_dict": {"_batches_that_stepped": 0},
        "epoch_loop.scheduler_progress": "kept",
    }


HOOKS = {
    "before anything": (counters((0, 0, 0, 0), (0, 0, 0, 0), 0, False), LoopPosition(0, 0, 0, False)),
    "the first epoch has begun": (counters((1, 1, 0, 0), (0, 0, 0, 0), 0, False), LoopPosition(0, 0, 0, False)),
    "a batch is fetched": (counters((3, 3, 2, 2), (5, 4, 4, 4), 24, False), LoopPosition(2, 4, 24, False)),
    "a batch ends": (counters((3, 3, 2, 2), (4, 4, 4, 3), 24, False), LoopPosition(2, 4, 24, False)),
    "the last batch is fetched": (counters((3, 3, 2, 2), (10, 9, 9, 9), 29, True), LoopPosition(2, 9, 29, False)),
    "the last batch ends": (counters((3, 3, 2, 2), (10, 10, 10, 9), 30, True), LoopPosition(2, 10, 30, True)),
    "the last validation ends": (counters((3, 3, 2, 2), (10, 10, 10, 10), 30, True), LoopPosition(2, 10, 30, True)),
    "the epoch ends": (counters((3, 3, 3, 2), (10, 10, 10, 10), 30, True), LoopPosition(3, 0, 30, False)),
    "the next epoch begins": (counters((4, 3, 3, 3), (10, 10, 10, 10), 30, True), LoopPosition(3, 0, 30, False)),
    "the next epoch has begun": (counters((4, 4, 3, 3), (0, 0, 0, 0), 30, False), LoopPosition(3, 0, 30, False)),
    "the training ends": (counters((3, 3, 3, 3), (10, 10, 10, 10), 30, True), LoopPosition(3, 0, 30, False)),
    "an epoch was cut short": (counters((3, 3, 3, 2), (4, 4, 4, 4), 24, False), LoopPosition(2, 4, 24, False)),
    "a resumed training begins": (counters((3, 3, 3, 3), (0, 0, 0, 0), 30, False), LoopPosition(3, 0, 30, False)),
    "batches were larger before": (counters((3, 3, 3, 2), (7, 7, 7, 7), 21, True), LoopPosition(3, 0, 21, False)),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_place_in_each_hook(hook: str) -> None:
    state, place = HOOKS[hook]
    assert read_position(state, BATCHES, accumulated=1) == place


@pytest.mark.parametrize("hook", HOOKS)
def test_what_is_written_down_reads_as_the_same_place(hook: str) -> None:
    state, place = HOOKS[hook]
    written = make_counters(place, state, steps=place.total, due=False, pending=False)
    assert read_position(written, BATCHES, accumulated=1) == place
    assert written["epoch_loop.scheduler_progress"] == "kept"


def test_batches_that_wait_for_the_optimizer_are_not_done() -> None:
    state = counters((3, 3, 2, 2), (7, 7, 7, 6), 27, False)
    assert read_position(state, BATCHES, accumulated=4) == LoopPosition(2, 4, 24, False)
    at_the_end = counters((3, 3, 2, 2), (10, 10, 10, 9), 30, True)
    assert read_position(at_the_end, BATCHES, accumulated=4) == LoopPosition(2, 10, 30, True)  # Lightning steps there


def test_the_counters_that_are_given_stay_as_they_are() -> None:
    state = counters((3, 3, 2, 2), (4, 4, 4, 3), 24, False)
    before = repr(state)
    make_counters(LoopPosition(2, 4, 24, False), state, steps=24, due=True, pending=True)
    assert repr(state) == before


@pytest.mark.parametrize(
    ("due", "pending", "begun", "steps"), [(True, True, 1, 29), (True, False, 0, 29), (False, False, 0, 30)]
)
def test_a_validation_that_was_not_run_is_written_down_as_interrupted(
    due: bool, pending: bool, begun: int, steps: int
) -> None:
    state = counters((3, 3, 2, 2), (10, 10, 10, 9), 30, True)
    written = make_counters(LoopPosition(2, 10, 30, True), state, steps=30, due=due, pending=pending)
    assert written["epoch_loop.val_loop.batch_progress"]["total"] == counts(begun, begun, 0, 0)
    assert written["epoch_loop.state_dict"]["_batches_that_stepped"] == steps
