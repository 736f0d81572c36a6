"""Fine-tuning: which parameters decay, at which rate the encoder learns, and when it is frozen."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from medseg_pl.core.errors import SettingError
from medseg_pl.models.fine_tuning import FineTuning, group_parameters
from medseg_pl.models.optimizers import WarmupPolynomialLR, include_added_groups, make_optimization


class Network(nn.Module):
    """An encoder of five parameters, a head of two."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Linear(2, 2))
        self.head = nn.Conv2d(2, 1, 1)


def optimize(network: Network, tuning: FineTuning) -> Optimizer:
    groups = tuning.group(network, network)
    made = make_optimization(
        partial(AdamW, lr=0.5, weight_decay=0.1), None, groups, None, 1.0, tuning.encoder_lr_factor
    )
    return made["optimizer"]


def test_matrices_alone_decay() -> None:
    first, second = optimize(Network(), FineTuning()).param_groups
    assert [parameter.ndim for parameter in first["params"]] == [4, 2, 4]
    assert [parameter.ndim for parameter in second["params"]] == [1, 1, 1, 1]
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    (whole,) = optimize(Network(), FineTuning(decays_all=True)).param_groups
    assert (len(whole["params"]), whole["weight_decay"]) == (7, 0.1)


def test_a_step_without_gradients_shrinks_matrices_alone() -> None:
    network = Network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = optimize(network, FineTuning())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():  # lr * weight_decay = 0.05 of each matrix
        assert torch.allclose(value, before[name] * (0.95 if value.ndim > 1 else 1.0)), name


def test_the_encoder_learns_at_its_own_rate_under_a_schedule() -> None:
    tuning, network = FineTuning(encoder_lr_factor=0.1), Network()
    schedule = partial(WarmupPolynomialLR, warmup_steps=0, power=1.0, total_steps=2)
    groups = tuning.group(network, network)
    made = make_optimization(partial(AdamW, lr=0.5), schedule, groups, encoder_factor=0.1)
    scheduler = made["lr_scheduler"]["scheduler"]
    scheduler.plan(2)
    made["optimizer"].step()
    scheduler.step()
    rates = {group["name"]: group["lr"] for group in made["optimizer"].param_groups}
    assert rates == pytest.approx(
        {"network": 0.25, "network, no decay": 0.25, "encoder": 0.025, "encoder, no decay": 0.025}
    )


def test_an_optimizer_without_weight_decay_has_one_group() -> None:
    made = make_optimization(partial(LBFGS, lr=0.5), None, group_parameters(Network()))
    assert len(made["optimizer"].param_groups) == 1


def test_a_group_that_a_callback_adds_leaves_the_others_to_the_last_bit() -> None:
    optimizer = optimize(Network(), FineTuning(encoder_lr_factor=0.3))
    scheduler = WarmupPolynomialLR(optimizer, warmup_steps=0, total_steps=7)
    scheduler.plan(7)
    own = list(scheduler.base_lrs)
    optimizer.step()
    scheduler.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(()))], "lr": optimizer.param_groups[0]["lr"] / 2})
    include_added_groups([scheduler])
    assert scheduler.base_lrs[:4] == own
    assert scheduler.base_lrs[4] == pytest.approx(0.25)


def test_an_encoder_is_frozen_until_its_epoch() -> None:
    network = Network()
    tuning = FineTuning(freezes_encoder=True, unfreeze_epoch=2)
    for epoch, trains in enumerate((False, False, True, True)):
        network.train()
        tuning.freeze(network, epoch)
        assert {parameter.requires_grad for parameter in network.encoder.parameters()} == {trains}
        assert network.encoder[1].training == trains
        assert network.head.training
    FineTuning(freezes_encoder=True).freeze(network, 1000)
    assert not network.encoder.training


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (FineTuning(unfreeze_epoch=2), "nothing is frozen. Set model.freeze to encoder"),
        (FineTuning(freezes_encoder=True, unfreeze_epoch=0), "must be at least 1; got 0"),
        (FineTuning(encoder_lr_factor=0), "model.encoder_lr_factor must be greater than 0"),
    ],
)
def test_settings_that_contradict_each_other(tuning: FineTuning, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tuning.check(Network())


@pytest.mark.parametrize("tuning", [FineTuning(freezes_encoder=True), FineTuning(encoder_lr_factor=0.5)])
def test_a_network_without_encoder(tuning: FineTuning) -> None:
    with pytest.raises(SettingError, match="Sequential has no part called encoder"):
        tuning.check(nn.Sequential())


def test_a_schedule_that_sets_all_rates_is_refused_beside_a_factor() -> None:
    network = Network()
    groups = FineTuning(encoder_lr_factor=0.1).group(network, network)
    schedule = partial(OneCycleLR, max_lr=0.1, total_steps=4)
    with pytest.raises(SettingError, match="OneCycleLR sets all learning rates itself"):
        make_optimization(partial(SGD, lr=0.1), schedule, groups, encoder_factor=0.1)
