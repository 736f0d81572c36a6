"""The check of finite numbers alone: what it lets pass, and after how many steps it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from medseg_pl.core.errors import DivergedError
from medseg_pl.core.types import Batch
from medseg_pl.training.callbacks import FiniteCheck

NOTHING = torch.zeros(2, 1, 1, 1)
BATCH = Batch(NOTHING, NOTHING.byte(), torch.zeros(2, 1, 4), ("case_7", "case_7"))
NO_MODULE: Any = Mock(spec=LightningModule)


def trainer(step: int, scale: float | None = None) -> Any:
    scaler = None if scale is None else SimpleNamespace(_scale=torch.tensor(scale))
    return Mock(spec=Trainer, global_step=step, precision_plugin=SimpleNamespace(scaler=scaler))


def after(check: FiniteCheck, step: int, loss: float, scale: float | None = None) -> None:
    check.on_train_batch_end(trainer(step, scale), NO_MODULE, {"loss": torch.tensor(loss)}, BATCH, 0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_told_with_its_step_and_cases(loss: float) -> None:
    check = FiniteCheck()
    after(check, 1, 0.5)
    with pytest.raises(DivergedError, match=rf"The training loss is {loss} at step 2, in a batch of the cases case_7:"):
        after(check, 2, loss)


def test_half_precision_may_leave_out_steps_but_not_all() -> None:
    check, scale = FiniteCheck(skips=3), 65536.0
    after(check, 1, 0.5, scale)
    for step in range(2, 5):  # three in a row
        scale /= 2
        after(check, step, 0.5, scale)
    after(check, 5, 0.5, scale)  # one that was taken
    for step in range(6, 9):
        after(check, step, float("inf"), scale)  # an overflow in the loss itself
    with pytest.raises(DivergedError, match=r"left out 4 steps in a row, the last at step 9, .*case_7.* scale is 4096"):
        after(check, 9, 0.5, scale / 2)


def test_batches_that_are_added_up_are_one_step() -> None:
    check, scale = FiniteCheck(skips=3), 65536.0
    after(check, 1, 0.5, scale)
    with pytest.raises(DivergedError, match="left out 4 steps in a row, the last at step 5"):
        for step in range(2, 9):
            scale /= 2
            for _ in range(3):
                after(check, step - 1, 0.5, 2 * scale)  # between two steps
            after(check, step, 0.5, scale)


def test_a_growing_scale_is_no_skip() -> None:
    check = FiniteCheck(skips=0)
    for step, scale in enumerate([2.0, 4.0, 4.0, 8.0], start=1):
        after(check, step, 0.5, scale)
    with pytest.raises(DivergedError):  # the same check, were it one
        after(check, 5, 0.5, 4.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_is_saved_that_is_not_finite(value: float) -> None:
    state = {"a": torch.ones(2), "n": torch.ones(1, dtype=torch.int64), "b": torch.tensor([1.0, value])}
    told = "At step 4 1 of 3 tensors is not finite, b among them"
    with pytest.raises(DivergedError, match=told):
        FiniteCheck().on_save_checkpoint(trainer(4), NO_MODULE, {"state_dict": state})
    del state["b"]
    FiniteCheck().on_save_checkpoint(trainer(4), NO_MODULE, {"state_dict": state})


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_a_square_that_overflows_in_the_optimizer_is_found(kind: type[torch.optim.Optimizer]) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([weight])

    def save_after(gradient: float) -> None:
        weight.grad = torch.full((3,), gradient)
        optimizer.step()
        checkpoint = {"state_dict": {"weight": weight.detach()}, "optimizer_states": [optimizer.state_dict()]}
        FiniteCheck().on_save_checkpoint(trainer(2), NO_MODULE, checkpoint)

    save_after(1.0)
    with pytest.raises(DivergedError, match=r"1 of \d tensors is not .*, the optimizer's \w+ of parameter 0"):
        save_after(1e30)
    assert torch.isfinite(weight).all(), "the weights show nothing"


def test_what_returns_no_loss_is_not_watched() -> None:
    check = FiniteCheck()
    check.on_train_batch_end(trainer(1), NO_MODULE, None, BATCH, 0)
    assert not check._records
