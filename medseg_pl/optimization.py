"""The optimizer and the schedule that the settings name, made for the parameters of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from medseg_pl.core.errors import SettingError
from medseg_pl.schedules import Interval, follows_scores, natural_interval

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def make_optimization(
    optimizer: OptimizerCallable,
    lr_scheduler: LRSchedulerCallable | None,
    parameters: Iterable[nn.Parameter],
    interval: Interval | None = None,
) -> dict[str, Any]:
    """Make what Lightning asks `configure_optimizers` for: the optimizer, and its schedule.

    Args:
        optimizer: Makes the optimizer.
        lr_scheduler: Makes the schedule, where there is one.
        parameters: What is optimized.
        interval: How often the schedule is stepped; as it is meant to be where it is not given.

    Raises:
        SettingError: One of them refuses its settings.
    """
    made = _made("model.optimizer", optimizer, parameters)
    if lr_scheduler is None:
        return {"optimizer": made}
    schedule = _made("model.lr_scheduler", lr_scheduler, made)
    # Those that react to scores are stepped by the module, at the end of a validation.
    if follows_scores(schedule):
        return {
            "optimizer": made,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch", "reduce_on_plateau": False},
        }
    interval = interval or natural_interval(schedule)
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": interval}}


def _made(setting: str, make: Callable[[_Given], _Made], given: _Given) -> _Made:
    try:
        return make(given)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise SettingError(f"{setting} cannot be made: {said}. Correct its init_args.") from error
