"""The optimizer and the schedule that the settings name, made for the parameters of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from medseg_pl.core.errors import SettingError
from medseg_pl.models.lr_schedulers import Interval, follows_scores, natural_interval

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def make_optimization(
    optimizer: OptimizerCallable,
    lr_scheduler: LRSchedulerCallable | None,
    parameters: Iterable[nn.Parameter],
    interval: Interval | None = None,
    factor: float = 1.0,
) -> dict[str, Any]:
    """Make what Lightning asks `configure_optimizers` for: the optimizer, and its schedule.

    Args:
        optimizer: Makes the optimizer.
        lr_scheduler: Makes the schedule, where there is one.
        parameters: What is optimized.
        interval: How often the schedule is stepped; as it is meant to be where it is not given.
        factor: Multiplies the learning rates that the optimizer was given.

    Raises:
        SettingError: One of them refuses its settings.
    """
    made = _made("model.optimizer", optimizer, parameters)
    for group in made.param_groups if factor != 1 else ():
        group["lr"] *= factor
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


def find_learning_rate(optimization: dict[str, Any]) -> float:
    """Return the learning rate that an optimizer starts with, before any schedule."""
    group = optimization["optimizer"].param_groups[0]
    return float(group.get("initial_lr", group["lr"]))


def rescale_schedules(configured: Iterable[Any], factor: float) -> None:
    """Multiply the learning rates that running schedules are computed from."""
    for schedule in (each.scheduler for each in configured):
        schedule.base_lrs = [factor * rate for rate in getattr(schedule, "base_lrs", ())]
        for group in schedule.optimizer.param_groups:
            group["initial_lr"] = factor * group.get("initial_lr", group["lr"])


def include_added_groups(configured: Iterable[Any]) -> None:
    """Let schedules go on from the learning rates of groups that a callback has added or changed.

    Lightning's finetuning callbacks add what they thaw as a group of its own, which torch's schedules do not expect.
    """
    for schedule in (each.scheduler for each in configured):
        first, *added = schedule.optimizer.param_groups
        if not added or not hasattr(schedule, "base_lrs"):
            continue
        factor = first["lr"] / schedule.base_lrs[0] or 1.0
        for group in added:
            group |= {name: value for name, value in first.items() if name not in group}
        schedule.base_lrs = [schedule.base_lrs[0], *(group["lr"] / factor for group in added)]


def _made(setting: str, make: Callable[[_Given], _Made], given: _Given) -> _Made:
    try:
        return make(given)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise SettingError(f"{setting} cannot be made: {said}. Correct its init_args.") from error
