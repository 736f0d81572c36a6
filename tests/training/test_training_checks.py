"""Settings of a Trainer that are refused, and parameters that DDP does not wait for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, SpikeDetection
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medseg_pl.core.errors import SettingError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.splits import SplitSettings
from medseg_pl.training.training_checks import (
    check_precision,
    check_trainer,
    exclude_from_ddp,
    refuse_gradients,
    require_same_settings,
    require_validation,
    warn_about_unknown_patients,
)


@pytest.mark.parametrize("precision", ["32-true", "32", "None", "bf16", "bf16-mixed", "16", "16-mixed"])
def test_precisions_that_keep_weights_of_32_bits_pass(precision: str) -> None:
    check_precision(precision)


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        ("64-true", "32-true"),
        ("64", "32-true"),
        ("16-true", "16-mixed"),
        ("bf16-true", "bf16-mixed"),
        ("transformer-engine", "32-true"),
    ],
)
def test_other_precisions_are_refused(precision: str, remedy: str) -> None:
    with pytest.raises(SettingError, match=rf"trainer\.precision {precision} .*Set it to {remedy}"):
        check_precision(precision)


def make_trainer(**settings: Any) -> Trainer:
    defaults = {"use_distributed_sampler": False, "logger": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", **{**defaults, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "64-true"}, r"trainer\.precision 64-true"),
        ({"limit_train_batches": 0}, r"limit_train_batches is 0"),
        ({"devices": 2, "strategy": "ddp", "use_distributed_sampler": True}, r"use_distributed_sampler .*false"),
        ({"callbacks": [SpikeDetection()]}, "Leave it out"),
        ({"callbacks": [BackboneFinetuning()], "devices": 2, "strategy": "ddp"}, r"trainer\.devices to 1"),
        ({"callbacks": [BackboneFinetuning()]}, "needs a network with an encoder"),
    ],
)
def test_what_fails_later_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_trainer(make_trainer(**settings), nn.Conv2d(1, 1, 1))


def test_a_real_trainer_passes() -> None:
    module = nn.Module()
    module.backbone = nn.Conv2d(1, 1, 1)
    check_trainer(make_trainer(callbacks=[BackboneFinetuning()]), module)


class TestExcluded:
    def test_parameters_are_named_to_ddp_and_stay_trainable(self, caplog: pytest.LogCaptureFixture) -> None:
        module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
        names = ["1.weight", "1.bias"]
        assert exclude_from_ddp(DDPStrategy(), module, names) == names
        assert module._ddp_params_and_buffers_to_ignore == names
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert "2 parameters of the network take no part" in caplog.text

    def test_ddp_that_looks_for_them_itself_is_left_alone(self) -> None:
        module = nn.Conv2d(1, 1, 1)
        assert exclude_from_ddp(DDPStrategy(find_unused_parameters=True), module, ["weight"]) == []
        assert not hasattr(module, "_ddp_params_and_buffers_to_ignore")

    def test_a_gradient_after_all_is_an_error(self) -> None:
        module = nn.Conv2d(1, 1, 1)
        refuse_gradients(module, ["weight"])
        module(torch.ones(1, 1, 2, 2)).sum().backward()
        with pytest.raises(SettingError, match="ddp_find_unused_parameters_true"):
            refuse_gradients(module, ["weight"])


class TestWithoutValidation:
    def test_what_waits_for_scores_is_refused(self) -> None:
        stopping = make_trainer(limit_val_batches=0, callbacks=[EarlyStopping("val/dice")])
        with pytest.raises(SettingError, match=r"EarlyStopping waits for scores, but trainer\.limit_val_batches is 0"):
            require_validation(stopping, [])
        schedule = ReduceLROnPlateau(SGD([torch.zeros(1)], 0.1))
        with pytest.raises(SettingError, match="ReduceLROnPlateau waits for scores"):
            require_validation(make_trainer(limit_val_batches=0), [schedule])

    def test_anything_else_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        require_validation(make_trainer(limit_val_batches=0), [])
        assert "there is no best.ckpt, and there are no scores" in caplog.text


def test_data_and_model_have_the_same_settings() -> None:
    data = SimpleNamespace(labels=1, channels=3, context_slices=0, resize="fit")
    require_same_settings(data, SimpleNamespace(labels=1, channels=3, context_slices=0, resize="fit"))
    require_same_settings(data, nn.Identity())  # a module of one's own has none of them
    with pytest.raises(SettingError, match=r"channels is 3 in the data module, but 1 in the model\. Make the data"):
        require_same_settings(data, SimpleNamespace(labels=1, channels=1, context_slices=0, resize="fit"))


def test_a_doubtful_pattern_of_patients_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    cases = [Case(f"p{patient}_{side}", side, (), ()) for patient in range(10) for side in "ab"]
    source = FolderSource("data", group="_([ab])")
    settings = SplitSettings(fold=0, folds=2, fractions=None, file=None, seed=0)
    warn_about_unknown_patients(source, cases, settings)
    assert r"'_([ab])' finds 2 patients in 20 cases; perhaps --data.source.group '(p\d+)_' is meant" in caplog.text
