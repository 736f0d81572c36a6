"""What was changed on purpose wins over what a checkpoint restores; what was not changed stays as it is."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR, StepLR

from medseg_pl.core.errors import SettingError
from medseg_pl.models.optimizers import WarmupPolynomialLR, make_optimization
from medseg_pl.training.restored_settings import (
    apply_changed_numbers,
    apply_changed_optimization,
    describe_optimization,
    has_same_learning_rate,
)

Factory = Callable[..., Any]
PER_EPOCH = 3  # steps
DONE = 4  # epochs


class Training:
    """An optimizer and a schedule that are stepped as Lightning steps them."""

    def __init__(self, optimizer: Factory, schedule: Factory | None, interval: Any = None) -> None:
        self.make = lambda: make_optimization(optimizer, schedule, [torch.nn.Parameter(torch.ones(2))], interval)
        self.settings = describe_optimization(self.make())
        made = self.make()
        self.optimizer = made["optimizer"]
        self.schedule = made["lr_scheduler"]["scheduler"] if schedule else None
        self.interval = made["lr_scheduler"]["interval"] if schedule else None
        self.steps = 0

    def run(self, epochs: int) -> list[float]:
        rates = []
        for step in range(self.steps, self.steps + epochs * PER_EPOCH):
            rates.append(float(self.optimizer.param_groups[0]["lr"]))
            self.optimizer.step()
            ends = (step + 1) % PER_EPOCH == 0
            if isinstance(self.schedule, ReduceLROnPlateau):
                _ = ends and self.schedule.step(1.0)
            elif self.schedule and (self.interval == "step" or ends):
                self.schedule.step()
        self.steps += epochs * PER_EPOCH
        return rates

    def save(self) -> dict[str, Any]:
        loop = {
            "epoch_progress": {"current": {"processed": self.steps // PER_EPOCH}},
            "epoch_loop.batch_progress": {"current": {"processed": 0}, "is_last_batch": True},
        }
        checkpoint = {
            "optimization": self.settings,
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [self.schedule.state_dict()] if self.schedule else [],
            "global_step": self.steps,
            "loops": {"fit_loop": loop},
        }
        file = io.BytesIO()
        torch.save(checkpoint, file)
        file.seek(0)
        return dict(torch.load(file, weights_only=True))

    def resume(self, checkpoint: dict[str, Any]) -> list[str]:
        changes = apply_changed_optimization(checkpoint, self.settings, self.make)
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        for state in checkpoint["lr_schedulers"]:
            assert self.schedule is not None
            self.schedule.load_state_dict(state)
        self.steps = checkpoint["global_step"]
        return changes


adamw, sgd = partial(AdamW, lr=0.1, weight_decay=0.01), partial(SGD, lr=0.1, momentum=0.9)
plateau = partial(ReduceLROnPlateau, monitor="val/loss", patience=0, factor=0.5)
step = partial(StepLR, step_size=2, gamma=0.1)
cycle = partial(OneCycleLR, max_lr=0.2, total_steps=DONE * PER_EPOCH)
warmup = partial(WarmupPolynomialLR, warmup_steps=2, total_steps=30)


@pytest.mark.parametrize("optimizer", [adamw, sgd])
@pytest.mark.parametrize("schedule", [None, step, plateau, cycle, warmup, partial(CosineAnnealingLR, T_max=5)])
def test_what_was_not_changed_stays_to_the_last_bit(optimizer: Factory, schedule: Factory | None) -> None:
    done = Training(optimizer, schedule)
    done.run(DONE)
    checkpoint = done.save()
    before = copy.deepcopy(checkpoint)
    assert apply_changed_optimization(checkpoint, Training(optimizer, schedule).settings, done.make) == []
    assert checkpoint == before


CHANGES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], list[str]]] = {
    # The settings then and now, and what is told.
    "rate": ((adamw, step), (partial(AdamW, lr=0.5, weight_decay=0.01), step), ["optimizer.lr 0.1 → 0.5"]),
    "step size": ((sgd, step), (sgd, partial(step, step_size=3)), ["lr_scheduler.step_size 2 → 3"]),
    "gamma": ((sgd, step), (sgd, partial(step, gamma=0.5)), ["lr_scheduler.gamma 0.1 → 0.5"]),
    "interval": ((sgd, step), (sgd, step, "step"), ["interval epoch → step"]),
    "class": ((sgd, step), (sgd, partial(PolynomialLR, total_iters=9)), ["scheduler StepLR → PolynomialLR"]),
    "from scores to epochs": ((sgd, plateau), (sgd, step), ["scheduler ReduceLROnPlateau → StepLR"]),
    "none before": ((sgd, None), (sgd, step), ["scheduler None → StepLR", "interval None → epoch"]),
    "none now": ((sgd, step), (sgd, None), ["scheduler StepLR → None", "interval epoch → None"]),
    "longer cycle": ((adamw, cycle), (adamw, partial(cycle, total_steps=40)), ["lr_scheduler.total_steps 12 → 40"]),
    "longer decay": ((sgd, warmup), (sgd, partial(warmup, total_steps=60)), ["lr_scheduler.total_steps 30 → 60"]),
    "warm-up": ((sgd, warmup), (sgd, partial(warmup, warmup_steps=20)), ["lr_scheduler.warmup_steps 2 → 20"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_schedule_goes_on_as_if_it_had_been_so_from_the_beginning(change: str) -> None:
    then, now, told = CHANGES[change]
    done, whole, resumed = Training(*then), Training(*now), Training(*now)
    done.run(DONE)
    expected = whole.run(2 * DONE)[DONE * PER_EPOCH :]
    assert resumed.resume(done.save()) == told or set(told) <= set(resumed.resume(done.save()))
    assert resumed.run(DONE) == expected


def test_a_cycle_that_is_over_is_a_sentence() -> None:
    done = Training(sgd, step)
    done.run(DONE)
    with pytest.raises(SettingError, match=r"OneCycleLR is over before .* Give it the length"):
        Training(sgd, partial(cycle, total_steps=5)).resume(done.save())


def test_settings_of_the_optimizer_alone_change_nothing_else() -> None:
    done = Training(adamw, step)
    done.run(DONE)
    checkpoint = done.save()
    schedule = copy.deepcopy(checkpoint["lr_schedulers"])
    resumed = Training(partial(AdamW, lr=0.1, weight_decay=0.5), step)
    assert resumed.resume(checkpoint) == ["optimizer.weight_decay 0.01 → 0.5"]
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert checkpoint["lr_schedulers"] == schedule


def test_groups_that_a_callback_added_keep_their_rates() -> None:
    done = Training(adamw, step)
    thawed = torch.nn.Parameter(torch.ones(3))
    done.optimizer.add_param_group({"params": [thawed], "lr": 0.02})
    done.schedule.base_lrs.append(0.02)
    checkpoint = done.save()
    resumed = Training(partial(AdamW, lr=0.3), step)
    resumed.optimizer.add_param_group({"params": [thawed], "lr": 0.02})
    assert resumed.resume(checkpoint) == ["optimizer.lr 0.1 → 0.3"]
    assert [group["lr"] for group in resumed.optimizer.param_groups] == [0.3, 0.02]
    assert resumed.schedule.base_lrs == [0.3, 0.02]


def test_a_rate_that_was_searched_for_stays_without_a_schedule() -> None:
    done = Training(adamw, None)
    done.optimizer.param_groups[0]["lr"] = 0.05
    resumed = Training(partial(AdamW, lr=0.1, weight_decay=0.5), None)
    resumed.resume(done.save())
    assert resumed.optimizer.param_groups[0]["lr"] == 0.05


def test_another_rate_is_told_from_the_same() -> None:
    checkpoint = Training(adamw, step).save()
    assert has_same_learning_rate(checkpoint, Training(partial(AdamW, lr=0.1, weight_decay=0.5), step).settings)
    assert not has_same_learning_rate(checkpoint, Training(partial(AdamW, lr=0.2), step).settings)
    assert not has_same_learning_rate({}, Training(adamw, step).settings)


def test_another_optimizer_begins_with_an_empty_memory() -> None:
    done = Training(sgd, step)
    done.run(DONE)
    resumed = Training(adamw, step)
    assert resumed.resume(done.save()) == ["optimizer SGD → AdamW"]
    assert resumed.run(1) == pytest.approx([0.1 * 0.1**2] * PER_EPOCH)


def test_a_schedule_that_follows_scores_keeps_its_reductions() -> None:
    done = Training(sgd, plateau)
    assert done.run(DONE)[-1] == 0.1 * 0.5**2
    resumed = Training(partial(SGD, lr=0.4, momentum=0.9), partial(plateau, patience=3, factor=0.1))
    told = resumed.resume(done.save())
    assert told == ["optimizer.lr 0.1 → 0.4", "lr_scheduler.factor 0.5 → 0.1", "lr_scheduler.patience 0 → 3"]
    assert resumed.schedule is not None
    assert (resumed.schedule.patience, resumed.schedule.best) == (3, 1.0)
    assert resumed.run(1)[0] == pytest.approx(0.4 * 0.5**3)
    assert Training(sgd, partial(plateau, monitor="val/dice")).resume(done.save()) == [
        "lr_scheduler.monitor val/loss → val/dice"
    ]


def test_numbers_of_callbacks_win_and_their_memory_stays() -> None:
    done = EarlyStopping("val/dice", patience=1)
    done.wait_count = 1
    checkpoint = {"callbacks": {done.state_key: done.state_dict()}}
    assert apply_changed_numbers(checkpoint, [EarlyStopping("val/dice", patience=1)]) == []
    resumed = EarlyStopping("val/dice", patience=10)
    assert apply_changed_numbers(checkpoint, [resumed]) == ["EarlyStopping.patience 1 → 10"]
    resumed.load_state_dict(checkpoint["callbacks"][resumed.state_key])
    assert (resumed.patience, resumed.wait_count) == (10, 1)


def test_a_checkpoint_that_notes_no_settings_is_left_alone() -> None:
    assert apply_changed_optimization({}, Training(sgd, step).settings, Training(sgd, step).make) == []
