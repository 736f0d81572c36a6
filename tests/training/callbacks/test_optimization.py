"""An average that forgets where a run began, and a warning where Lightning's does not."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel

from medseg_pl.training.callbacks.optimization import WarmupEMA, compute_decay
from medseg_pl.training.training_checks import compute_first_share, warn_about_slow_average


def averaged(callback: WarmupEMA | EMAWeightAveraging, values: list[float]) -> Any:
    """The average of a model that has these weights after each step."""
    model = torch.nn.BatchNorm1d(1)
    average = AveragedModel(model, use_buffers=True, **callback._kwargs)
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(value)  # type: ignore[union-attr]
            model.num_batches_tracked += 1  # type: ignore[operator]
        average.update_parameters(model)
    return average.module.requires_grad_(False)


def test_decay_rises_from_the_first_update_on() -> None:
    expected = 5.0
    values = [5.0, 2.0, 7.0, 1.0]
    for updates, value in enumerate(values[1:], start=1):
        decay = (1 + updates) / (10 + updates)
        expected = decay * expected + (1 - decay) * value
    average = averaged(WarmupEMA(0.999), values)
    assert float(average.weight) == pytest.approx(expected)
    assert float(average.running_mean) == pytest.approx(expected)
    assert int(average.num_batches_tracked) == 4


def test_the_full_decay_is_that_of_lightning() -> None:
    values = torch.linspace(3, -2, 40).tolist()
    ours, theirs = averaged(WarmupEMA(0.0), values), averaged(EMAWeightAveraging(decay=0.0), values)
    assert float(ours.weight) == float(theirs.weight) == -2.0
    assert compute_decay(0.9, 1000) == 0.9


@pytest.mark.parametrize(("steps", "first"), [(300, 0.74), (457, 0.63), (1200, 0.30), (4000, 0.02)])
def test_share_of_the_first_weights(steps: int, first: float) -> None:
    begun = [1.0] + [0.0] * (steps - 1)
    plain = EMAWeightAveraging()
    assert compute_first_share(plain, steps) == pytest.approx(first, abs=0.005)
    assert float(averaged(plain, begun).weight) == pytest.approx(first, abs=0.005)
    assert float(averaged(WarmupEMA(), begun).weight) < 1e-9


@pytest.mark.parametrize(
    ("callback", "steps", "warned"),
    [
        (EMAWeightAveraging(), 457, True),
        (EMAWeightAveraging(), 4000, False),
        (EMAWeightAveraging(), float("inf"), False),
        (EMAWeightAveraging(decay=0.9), 457, False),
        (EMAWeightAveraging(update_every_n_steps=10), 4000, True),
        (EMAWeightAveraging(update_starting_at_step=3900), 4000, True),
        (EMAWeightAveraging(update_starting_at_epoch=2, update_every_n_steps=0), 457, False),
        (WarmupEMA(), 457, False),
    ],
)
def test_an_average_too_slow_for_the_run_is_told(
    callback: Any, steps: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Mock(spec=Trainer)
    trainer.callbacks = [callback]
    warn_about_slow_average(trainer, steps)
    assert ("medseg_pl.training.callbacks.WarmupEMA" in caplog.text) == warned


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
        WarmupEMA(decay)
