"""What is said where the objects that settings name cannot be made."""

from __future__ import annotations

import pytest

from medseg_pl.cli.parser import describe_instantiation_error

UNION = """\
Does not validate against any of the Union subtypes
Errors:
  - Not a valid subclass of Logger
  - Problem with given class_path 'lightning.pytorch.loggers.{}':
      {}
  - Expected a <class 'bool'>
Given value type: <class 'list'>"""


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            UNION.format(
                "WandbLogger", "Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U wandb`"
            ),
            "lightning.pytorch.loggers.WandbLogger needs a package that is not installed (Requirement 'wandb>=0.12.10' "
            "not met). Install it with pip install 'medseg[wandb]', or leave out what needs it.",
        ),
        (
            "Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either.\nMore.",
            "The settings need a package that is not installed (Neither `tensorboard` nor `tensorboardX` is available)."
            " Install it with pip install 'medseg[tensorboard]', or leave out what needs it.",
        ),
        (
            UNION.format("MLFlowLogger", "No module named 'mlflow'"),
            "lightning.pytorch.loggers.MLFlowLogger needs a package that is not installed (No module named 'mlflow'). "
            "Install it with pip, or leave out what needs it.",
        ),
        (
            UNION.format("CSVLogger", "version is\n      wrong"),
            "lightning.pytorch.loggers.CSVLogger cannot be made: version is wrong",
        ),
        ("No\n such  strategy.", "The settings do not fit: No such strategy."),
    ],
)
def test_settings_that_do_not_fit(message: str, sentence: str) -> None:
    assert describe_instantiation_error(message) == sentence
