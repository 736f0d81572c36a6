"""Optimizer and schedule: made from settings, rates worked out on paper, whatever the length, after a resume."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from medseg_pl.core.errors import SettingError
from medseg_pl.models.optimizers import (
    WarmupPolynomialLR,
    find_learning_rate,
    include_added_groups,
    make_optimization,
    rescale_schedules,
    warmup_polynomial,
)


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates(schedule: WarmupPolynomialLR | PolynomialLR, steps: int) -> list[float]:
    followed = []
    for _ in range(steps):
        followed.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return followed


def test_a_line_up_and_a_line_down() -> None:
    schedule = WarmupPolynomialLR(optimizer(4.0), warmup_steps=4, power=1.0)
    schedule.plan(8)
    assert rates(schedule, 10) == [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_without_warm_up_it_is_torchs_polynomial(power: float) -> None:
    ours = WarmupPolynomialLR(optimizer(0.1), warmup_steps=0, power=power, total_steps=20)
    ours.plan(20)
    torchs = PolynomialLR(optimizer(0.1), total_iters=20, power=power)
    assert rates(ours, 25) == pytest.approx(rates(torchs, 25), abs=1e-12)


def test_the_run_gives_the_length_where_none_is_set() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), warmup_steps=2, power=1.0)
    schedule.plan(6)
    assert rates(schedule, 7) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_length_that_is_set_stays() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), warmup_steps=0, power=1.0, total_steps=4)
    schedule.plan(1000)
    assert rates(schedule, 5) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_parameter_groups_keep_their_proportions() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0, 0.1), warmup_steps=2, total_steps=10)
    schedule.plan(10)
    assert schedule.get_last_lr() == [0.5, pytest.approx(0.05)]


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (1, 0), (3, 3), (3, 10)])
def test_runs_too_short_for_a_schedule_divide_by_nothing(total: int, warmup: int) -> None:
    factors = [warmup_polynomial(step, total, warmup, 0.9) for step in range(12)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] == (1 / warmup if warmup else 1)
    assert factors[11] == 0


def test_a_resumed_schedule_goes_on_as_if_never_stopped() -> None:
    whole = WarmupPolynomialLR(optimizer(1.0), warmup_steps=3)
    whole.plan(12)
    expected = rates(whole, 12)

    first = WarmupPolynomialLR(optimizer(1.0), warmup_steps=3)
    first.plan(12)
    begun = rates(first, 5)
    file = io.BytesIO()
    torch.save({"schedule": first.state_dict(), "optimizer": first.optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = WarmupPolynomialLR(optimizer(1.0), warmup_steps=3)
    second.optimizer.load_state_dict(saved["optimizer"])
    second.load_state_dict(saved["schedule"])
    second.plan(12)  # as every run does when it starts
    assert begun + rates(second, 7) == expected


@pytest.mark.parametrize(("steps", "warmup"), [(40, 2), (400, 20), (10, 0)])
def test_warm_up_is_a_share_of_the_run(steps: int, warmup: int) -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), power=1.0)
    schedule.plan(steps)
    followed = rates(schedule, steps)
    assert followed[:warmup] == [pytest.approx((step + 1) / warmup) for step in range(warmup)]
    assert followed[warmup] == max(followed) == 1.0
    assert followed[-1] == pytest.approx(1 / (steps - warmup))


def resume(schedule: WarmupPolynomialLR, **settings: float) -> WarmupPolynomialLR:
    resumed = WarmupPolynomialLR(optimizer(1.0), **settings)  # type: ignore[arg-type]
    resumed.optimizer.load_state_dict(schedule.optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    return resumed


def test_a_run_made_longer_follows_its_new_length_from_the_next_step_on() -> None:
    done = WarmupPolynomialLR(optimizer(1.0), warmup_steps=0, power=1.0)
    done.plan(10)
    rates(done, 10)
    assert done.get_last_lr() == [0.0]
    longer = resume(done, warmup_steps=0, power=1.0)
    longer.plan(20)
    assert longer.optimizer.param_groups[0]["lr"] == 0.5
    assert rates(longer, 4) == pytest.approx([0.5, 0.45, 0.4, 0.35])


def test_a_warm_up_that_is_over_is_not_repeated_in_a_longer_run() -> None:
    done = WarmupPolynomialLR(optimizer(1.0), warmup_fraction=0.1, power=1.0)
    done.plan(20)
    rates(done, 20)
    longer = resume(done, warmup_fraction=0.1, power=1.0)
    longer.plan(2000)  # of which a tenth are 200
    followed = rates(longer, 3)
    assert followed == sorted(followed, reverse=True)
    assert followed[0] == pytest.approx(1 - 18 / 1998)


def test_time_gives_the_rate_where_it_is_nearer_to_its_end_than_the_steps() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), warmup_fraction=0.05, power=1.0)
    schedule.plan(1000)
    passed = {0: 1 / 50, 1: 0.4, 4: 1.0, 5: 1.0, 52: pytest.approx(48 / 95), 100: 0.0}
    for hundredths, rate in passed.items():
        schedule.pass_time(hundredths)
        schedule.plan(1000)
        assert schedule.get_last_lr() == [rate], hundredths


def test_time_that_is_behind_the_steps_changes_no_bit() -> None:
    with_time, without = (WarmupPolynomialLR(optimizer(0.3)) for _ in range(2))
    for schedule in (with_time, without):
        schedule.plan(200)
    followed = []
    for step in range(200):
        with_time.pass_time(step // 3)
        followed += rates(with_time, 1)
    assert followed == rates(without, 200)


def test_a_run_without_a_number_of_steps_follows_time_alone() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), warmup_steps=2, power=1.0)
    schedule.plan(float("inf"))
    assert rates(schedule, 3) == [0.5, 1.0, 1.0]
    schedule.pass_time(75)
    assert rates(schedule, 2)[1] == 0.25


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
    rescale_schedules([schedule], 0.5)
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
    include_added_groups([scheduler])
    optimizer.step()
    scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[1] == pytest.approx(rates[0] / 10)
