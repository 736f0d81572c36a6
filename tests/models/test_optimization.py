"""What the optimizer and the schedule are made of, and what is said where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

from medseg_pl.core.errors import SettingError
from medseg_pl.models.lr_schedulers import WarmupPolynomialLR
from medseg_pl.models.optimization import (
    find_learning_rate,
    include_added_groups,
    make_optimization,
    rescale_schedules,
)

PARAMETER = torch.nn.Parameter(torch.ones(()))


def made(
    optimizer: Callable[..., Any], schedule: Callable[..., Any] | None = None, interval: Any = None
) -> dict[str, Any]:
    return make_optimization(optimizer, schedule, torch.nn.Linear(2, 1).parameters(), interval)


def test_an_optimizer_alone() -> None:
    found = made(partial(SGD, lr=0.5))
    assert list(found) == ["optimizer"]
    assert [group["lr"] for group in found["optimizer"].param_groups] == [0.5]
    assert len(found["optimizer"].param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("schedule", "natural"),
    [
        (WarmupPolynomialLR, "step"),
        (partial(OneCycleLR, max_lr=0.1, total_steps=6), "step"),
        (partial(CyclicLR, base_lr=0.1, max_lr=0.2, cycle_momentum=False), "step"),
        (partial(StepLR, step_size=2), "epoch"),
        (partial(CosineAnnealingLR, T_max=5), "epoch"),
        (partial(ExponentialLR, gamma=0.9), "epoch"),
    ],
)
def test_torchs_schedules_count_epochs_unless_told_otherwise(schedule: Callable[..., Any], natural: str) -> None:
    assert made(partial(SGD, lr=0.5), schedule)["lr_scheduler"]["interval"] == natural
    for interval in ("step", "epoch"):
        assert made(partial(SGD, lr=0.5), schedule, interval)["lr_scheduler"]["interval"] == interval


def test_a_schedule_is_stepped_with_the_optimizer_and_one_that_follows_scores_is_not() -> None:
    found = made(partial(SGD, lr=0.5), partial(WarmupPolynomialLR, warmup_steps=2))["lr_scheduler"]
    assert found["scheduler"].get_last_lr() == [0.25]
    assert found["interval"] == "step"
    found = made(partial(SGD, lr=0.5), ReduceLROnPlateau)["lr_scheduler"]
    assert (found["interval"], found["reduce_on_plateau"]) == ("epoch", False)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (partial(AdamW, lr=-1.0), "Invalid learning rate: -1.0"),
        (partial(AdamW, weight_decay=-1.0), "Invalid weight_decay value: -1.0"),
        (partial(AdamW, betas=(1.5, 0.9)), "Invalid beta parameter at index 0: 1.5"),
        (partial(AdamW, fused=True, foreach=True), "`fused` and `foreach` cannot be `True` together"),
        (partial(SGD, lr=0.1, momentum=-1.0), "Invalid momentum value: -1.0"),
    ],
)
def test_an_optimizer_that_refuses_its_settings(optimizer: Callable[..., Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        made(optimizer)
    assert str(caught.value) == f"model.optimizer cannot be made: {said}. Correct its init_args."


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (partial(ReduceLROnPlateau, factor=2.0), "Factor should be < 1.0"),
        (partial(OneCycleLR, max_lr=0.1), "You must define either total_steps OR"),
        (partial(WarmupPolynomialLR, warmup_steps=-1), "warmup_steps must be at least 0; got -1"),
        (partial(WarmupPolynomialLR, warmup_fraction=1.0), "warmup_fraction must be at least 0 and below 1; got 1.0"),
        (partial(WarmupPolynomialLR, warmup_steps=8, total_steps=8), "warmup_steps (8) must be fewer than total_steps"),
        (partial(WarmupPolynomialLR, power=-0.9), "power must be at least 0; got -0.9"),
    ],
)
def test_a_schedule_that_refuses_its_settings(schedule: Callable[..., Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        made(partial(SGD, lr=0.1), schedule)
    assert str(caught.value).startswith(f"model.lr_scheduler cannot be made: {said}")
    assert str(caught.value).endswith(". Correct its init_args.")


def test_a_factor_multiplies_the_learning_rate_before_it_is_scheduled() -> None:
    made = make_optimization(partial(SGD, lr=0.5), partial(WarmupPolynomialLR, warmup_steps=2), [PARAMETER], factor=0.5)
    assert find_learning_rate(made) == 0.25
    assert made["lr_scheduler"]["scheduler"].base_lrs == [0.25]


def planned_schedule(optimizer: torch.optim.Optimizer) -> WarmupPolynomialLR:
    schedule = WarmupPolynomialLR(optimizer, warmup_steps=0)
    schedule.plan(10)
    return schedule


def test_schedules_follow_a_learning_rate_that_was_found() -> None:
    optimizer = SGD([PARAMETER], lr=0.5)
    schedule = planned_schedule(optimizer)
    rescale_schedules([SimpleNamespace(scheduler=schedule)], 0.5)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * 0.9**0.9)


@pytest.mark.parametrize("schedule", [planned_schedule, partial(CosineAnnealingLR, T_max=9)])
def test_an_added_group_is_scheduled_from_its_own_rate(schedule: Callable[..., Any]) -> None:
    optimizer = SGD([PARAMETER], lr=0.5)
    scheduler = schedule(optimizer)
    optimizer.step()
    scheduler.step()
    first = optimizer.param_groups[0]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(()))], "lr": first["lr"] / 10})
    include_added_groups([SimpleNamespace(scheduler=scheduler)])
    optimizer.step()
    scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[1] == pytest.approx(rates[0] / 10)
