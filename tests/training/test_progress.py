"""Steps that a run has, and schedules that are planned for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from medseg_pl.core.errors import SettingError
from medseg_pl.models.optimizers import WarmupPolynomialLR
from medseg_pl.training.progress import (
    LengthTracker,
    count_run_steps,
    get_passed_hundredths,
    plan_schedules,
    restore_accumulation,
    step_schedule,
)


def trainer(**settings: Any) -> Any:
    """A trainer that starts, as far as the length of its run is concerned."""
    schedule: LRScheduler | None = settings.pop("schedule", None)
    configured = [SimpleNamespace(scheduler=schedule, interval=settings.pop("interval", "step"))] if schedule else []
    epoch, batch = settings.pop("epoch", 0), settings.pop("batch", 0)
    progress = SimpleNamespace(current=SimpleNamespace(processed=epoch))
    batches = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=batch)))
    usual = {
        "callbacks": [],
        "accumulate_grad_batches": 1,
        "max_epochs": 4,
        "max_steps": -1,
        "num_training_batches": 6,
        "global_step": 0,
        "current_epoch": epoch,
        "fast_dev_run": False,
        "lr_scheduler_configs": configured,
        "fit_loop": SimpleNamespace(epoch_progress=progress, epoch_loop=batches),
        "strategy": SimpleNamespace(broadcast=lambda value: value),
    }
    run = Mock(spec=Trainer)
    run.configure_mock(**{**usual, **settings})
    return run


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


ACCUMULATED = [GradientAccumulationScheduler({0: 1, 2: 4})]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 24),
        ({"accumulate_grad_batches": 4}, 8),  # the last step of an epoch has fewer batches
        ({"callbacks": ACCUMULATED}, 6 + 6 + 2 + 2),
        ({"callbacks": ACCUMULATED, "epoch": 2, "global_step": 12}, 16),
        ({"callbacks": ACCUMULATED, "epoch": 2, "batch": 4, "global_step": 13}, 16),
        ({"max_steps": 9}, 9),
        ({"max_steps": 90}, 24),
        ({"max_epochs": -1, "max_steps": 90}, 90),
        ({"max_epochs": -1}, math.inf),
        ({"num_training_batches": math.inf}, math.inf),
        ({"epoch": 4, "global_step": 24}, 24),
        ({"epoch": 1, "batch": 2, "global_step": 8}, 24),
        ({"accumulate_grad_batches": 4, "batch": 4, "global_step": 1}, 8),
        ({"accumulate_grad_batches": 4, "batch": 6, "global_step": 2}, 8),  # all batches of the epoch, not yet its end
        # Batches were half as large before: what is done counts as it was done.
        ({"epoch": 2, "global_step": 24}, 24 + 12),
    ],
)
def test_steps_are_counted_as_they_are_done(settings: dict[str, Any], steps: float) -> None:
    assert count_run_steps(trainer(**settings)) == steps


def test_accumulation_is_that_of_the_epoch_that_goes_on() -> None:
    resumed = trainer(callbacks=ACCUMULATED, epoch=3)
    restore_accumulation(resumed)
    assert resumed.accumulate_grad_batches == 4


def test_accumulation_by_epochs_lets_the_rate_end_at_zero() -> None:
    schedule = WarmupPolynomialLR(sgd(), warmup_steps=0, power=1.0)
    run = trainer(schedule=schedule, callbacks=ACCUMULATED)
    plan_schedules(run)
    for _ in range(16):
        schedule.optimizer.step()
        step_schedule(run, schedule)
    assert schedule.get_last_lr() == [0.0]


def test_a_longer_run_is_planned_anew_and_told(caplog: pytest.LogCaptureFixture) -> None:
    schedule = WarmupPolynomialLR(sgd(), warmup_steps=0, power=1.0)
    plan_schedules(trainer(schedule=schedule))
    assert not caplog.text
    schedule.last_epoch = 24
    plan_schedules(trainer(schedule=schedule, max_epochs=8, epoch=4, global_step=24))
    assert schedule.get_last_lr() == [0.5]
    assert "planned for 48 steps now, no longer for 24 steps" in caplog.text


@pytest.mark.parametrize("warmup", [24, 100])
def test_a_warm_up_longer_than_the_run_is_refused(warmup: int) -> None:
    run = trainer(schedule=WarmupPolynomialLR(sgd(), warmup_steps=warmup))
    with pytest.raises(SettingError, match=rf"warms up for {warmup} steps, but the run has 24.* Set warmup_fraction"):
        plan_schedules(run)
    run.fast_dev_run = True
    plan_schedules(run)


def test_a_warm_up_of_most_of_the_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    plan_schedules(trainer(schedule=WarmupPolynomialLR(sgd(), warmup_steps=12)))
    assert not caplog.text
    plan_schedules(trainer(schedule=WarmupPolynomialLR(sgd(), warmup_steps=13)))
    assert "warms up for 13 of the run's 24 steps" in caplog.text


def test_steps_at_a_rate_of_zero_are_told(caplog: pytest.LogCaptureFixture) -> None:
    plan_schedules(trainer(schedule=WarmupPolynomialLR(sgd(), total_steps=20)))
    assert "total_steps 20" in caplog.text


def test_a_run_without_an_end_cannot_be_planned() -> None:
    with pytest.raises(SettingError, match=r"no end .* trainer\.max_epochs"):
        plan_schedules(trainer(schedule=WarmupPolynomialLR(sgd()), max_epochs=-1))


def test_time_ends_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Timer(duration="00:00:01:40")
    monkeypatch.setattr(timer, "time_elapsed", lambda stage="train": 60.5)
    schedule = WarmupPolynomialLR(sgd(), warmup_steps=0, power=1.0)
    run = trainer(schedule=schedule, callbacks=[timer, Timer()], max_epochs=-1)
    assert get_passed_hundredths(run) == 60
    plan_schedules(run)
    assert schedule.get_last_lr() == [pytest.approx(0.4)]
    monkeypatch.setattr(timer, "time_elapsed", lambda stage="train": 170.0)
    schedule.optimizer.step()
    step_schedule(run, schedule)
    assert schedule.get_last_lr() == [0.0]


@pytest.mark.parametrize(("make", "told"), [(lambda made: StepLR(made, 2), True), (ReduceLROnPlateau, False)])
def test_a_schedule_that_does_not_follow_time_says_so(
    make: Callable[[Any], LRScheduler], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plan_schedules(trainer(schedule=make(sgd()), callbacks=[Timer(duration="00:00:01:00")], interval="epoch"))
    assert ("StepLR does not follow the time limit" in caplog.text) == told


@pytest.mark.parametrize(("interval", "needed"), [("step", 24), ("epoch", 4)])
def test_one_cycle_as_long_as_the_run(interval: str, needed: int) -> None:
    short = OneCycleLR(sgd(), max_lr=1.0, total_steps=needed - 1)
    with pytest.raises(SettingError, match=f"ends after {needed - 1} {interval}s.* total_steps to {needed}"):
        plan_schedules(trainer(schedule=short, interval=interval))
    plan_schedules(trainer(schedule=OneCycleLR(sgd(), max_lr=1.0, total_steps=needed), interval=interval))


def test_one_cycle_that_is_over_before_the_time_is_a_sentence() -> None:
    schedule = OneCycleLR(sgd(), max_lr=1.0, total_steps=2)
    run = trainer(schedule=schedule)
    with pytest.raises(SettingError, match=r"OneCycleLR is over after 2 steps.*total_steps"):
        for _ in range(4):
            schedule.optimizer.step()
            step_schedule(run, schedule)


def describe_end(seconds_left: float, **settings: Any) -> dict[str, Any]:
    """The end of a training of 24 steps, after which a timer has so much left."""
    timer = Mock(spec=Timer, time_remaining=Mock(return_value=seconds_left))
    tracker = LengthTracker()
    tracker.on_train_start(trainer(), Mock(spec=LightningModule))
    return tracker.describe_end(trainer(callbacks=[timer], **settings))


def test_a_run_that_time_ended_knows_its_planned_steps() -> None:
    cut = {"epochs": 3, "steps": 14, "planned_steps": 24, "out_of_time": True}
    assert describe_end(-0.5, global_step=14, current_epoch=3) == cut
    # Early stopping leaves time, and the last validation may outlast the limit.
    assert not describe_end(9, global_step=14, current_epoch=3)["out_of_time"]
    assert not describe_end(-0.5, global_step=24, current_epoch=4)["out_of_time"]


def test_a_run_that_only_time_ends_has_no_planned_steps() -> None:
    tracker = LengthTracker()
    tracker.on_train_start(trainer(max_epochs=-1), Mock(spec=LightningModule))
    assert tracker.describe_end(trainer(current_epoch=1))["planned_steps"] is None


def test_a_resume_with_nothing_left_keeps_its_plan() -> None:
    timer = Mock(spec=Timer, time_remaining=Mock(return_value=-0.5))
    before, resumed, old = LengthTracker(), LengthTracker(), LengthTracker()
    before.on_train_start(trainer(), Mock(spec=LightningModule))
    resumed.load_state_dict(before.state_dict())
    complete, cut = (trainer(callbacks=[timer], global_step=steps) for steps in (24, 14))
    ends = [tracker.describe_end(run) for tracker, run in ((resumed, complete), (resumed, cut), (old, complete))]
    assert [end["planned_steps"] for end in ends] == [24, 24, None]
    # A checkpoint of an earlier release has no plan, so nobody knows what ended its training.
    assert [end["out_of_time"] for end in ends] == [False, True, False]
