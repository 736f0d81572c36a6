"""Learning rates over a run: worked out on paper, whatever the length, and after a resume."""

from __future__ import annotations

import io

import pytest
import torch
from torch.optim.lr_scheduler import PolynomialLR

from medseg_pl.schedules import WarmupPolynomialLR, warmup_polynomial


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
    schedule = WarmupPolynomialLR(optimizer(4.0), warmup_steps=4, power=1.0, total_steps=8)
    assert rates(schedule, 10) == [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_without_warm_up_it_is_torchs_polynomial(power: float) -> None:
    ours = WarmupPolynomialLR(optimizer(0.1), power=power, total_steps=20)
    torchs = PolynomialLR(optimizer(0.1), total_iters=20, power=power)
    assert rates(ours, 25) == pytest.approx(rates(torchs, 25), abs=1e-12)


def test_the_run_gives_the_length_where_none_is_set() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), warmup_steps=2, power=1.0)
    schedule.plan(6)
    assert rates(schedule, 7) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_length_that_is_set_stays() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0), power=1.0, total_steps=4)
    schedule.plan(1000)
    assert rates(schedule, 5) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_parameter_groups_keep_their_proportions() -> None:
    schedule = WarmupPolynomialLR(optimizer(1.0, 0.1), warmup_steps=2, total_steps=10)
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
    assert begun + rates(second, 7) == expected
