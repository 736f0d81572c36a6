"""Optimizer and learning-rate schedule: how they are made, and schedules that follow a run's length or its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from medseg_pl.core.errors import SettingError
from medseg_pl.models.fine_tuning import get_part, set_group_rates

Interval: TypeAlias = Literal["step", "epoch"]
"""How often a schedule is stepped: after each step of the optimizer, or after each epoch."""

HUNDREDTHS = 100
"""Parts of a run's time: coarse enough that a run well within its time limit is repeated bit for bit."""

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def warmup_polynomial(step: int, total_steps: float, warmup_steps: int, power: float) -> float:
    """Compute a step's factor of the learning rate.

    It rises linearly, then falls as a polynomial.

    Args:
        step: The step, from 0.
        total_steps: Where the factor reaches 0.
        warmup_steps: Where it reaches 1.
        power: The exponent of the decay.

    >>> [warmup_polynomial(step, 10, 2, 1.0) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    passed = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return float((1 - min(1.0, passed)) ** power)


class WarmupPolynomialLR(LRScheduler):
    """Linear warm-up and polynomial decay over the run, counted in optimizer steps.

    Where the run has a time limit (`trainer.max_time`), the schedule follows the time as well, in whole hundredths:
    whichever is nearer to its end, steps or time, gives the rate.

    Args:
        optimizer: Whose learning rates are scheduled.
        warmup_steps: Steps until the full learning rate, in place of a share of the run.
        power: 1 is a straight line, 0.9 is what nnU-Net and DeepLab use.
        total_steps: When zero is reached; the length of the run where it is not given, see `plan`.
        warmup_fraction: The share of the run that warms up, where `warmup_steps` is not given.

    Raises:
        ValueError: A negative number of steps, or a negative power, with which the rate would end at infinity; a
            warm-up that does not fit.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int | None = None,
        power: float = 0.9,
        total_steps: int | None = None,
        warmup_fraction: float = 0.05,
    ) -> None:
        settings = {"warmup_steps": warmup_steps, "power": power, "total_steps": total_steps}
        for name, value in settings.items():
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0; got {value}")
        if not 0 <= warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be at least 0 and below 1; got {warmup_fraction}")
        if warmup_steps and total_steps is not None and warmup_steps >= total_steps:
            raise ValueError(f"warmup_steps ({warmup_steps}) must be fewer than total_steps ({total_steps}); lower it")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.warmup_fraction = warmup_fraction
        self.power = power
        self.planned_steps: float | None = None
        self.planned_warmup = 0
        self.hundredths = 0
        super().__init__(optimizer)

    def plan(self, steps: float) -> float:
        """Fit the schedule to the run, and set the next rate.

        Args:
            steps: Optimizer steps from the run's first to its last; infinite where only the time ends it.

        Returns:
            The steps that are planned for: these, or `total_steps` where it is given.
        """
        length = steps if self.total_steps is None else self.total_steps
        # A warm-up that is over stays over where a run is made longer.
        if self.planned_steps is None or self.last_epoch < self.planned_warmup:
            share = 0 if math.isinf(length) else int(self.warmup_fraction * length)
            self.planned_warmup = share if self.warmup_steps is None else self.warmup_steps
        self.planned_steps = length
        # `step` would count one; the rate of the coming step has to follow the plan at once.
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        return length

    def pass_time(self, hundredths: int) -> None:
        """Note how many hundredths of the run's time have passed, before `step`."""
        self.hundredths = hundredths

    def get_lr(self) -> list[float | Tensor]:
        """Compute the learning rate of each parameter group at the current step."""
        return [self._compute_factor() * rate for rate in self.base_lrs]

    def _compute_factor(self) -> float:
        step, total = self.last_epoch, self.planned_steps
        if total is None:  # not planned yet: what the first step has, whatever the length
            return warmup_polynomial(step, step + 1, self.warmup_steps or 0, self.power)
        # Steps give the rate as long as time is not ahead of them.
        if self.hundredths <= HUNDREDTHS * step / max(1, total) and not math.isinf(total):
            return warmup_polynomial(step, total, self.planned_warmup, self.power)
        share = round(self.warmup_fraction * HUNDREDTHS) if self.warmup_steps is None else 0
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return min(rise, warmup_polynomial(self.hundredths, HUNDREDTHS, share, self.power))


def make_optimization(
    optimizer: Callable[[Any], Optimizer],
    lr_scheduler: Callable[[Optimizer], Any] | None,
    parameters: Iterable[nn.Parameter | dict[str, Any]],
    interval: Interval | None = None,
    factor: float = 1.0,
    encoder_factor: float = 1.0,
) -> dict[str, Any]:
    """Make optimizer and schedule, as Lightning's `configure_optimizers` returns them.

    Args:
        optimizer: Makes the optimizer.
        lr_scheduler: Makes the schedule, where there is one.
        parameters: What is optimized; parameters, or groups of them, see `group_parameters`.
        interval: How often the schedule steps; by default as it is meant to.
        factor: Multiplies the learning rates that the optimizer was given.
        encoder_factor: Multiplies those of the encoder's groups.

    Raises:
        SettingError: One of them refuses its settings.
    """
    made = _make_optimizer(optimizer, list(parameters))
    set_group_rates(made.param_groups, encoder_factor)
    for group in made.param_groups if factor != 1 else ():
        group["lr"] *= factor
    if lr_scheduler is None:
        return {"optimizer": made}
    schedule = _make("model.lr_scheduler", lr_scheduler, made)
    if encoder_factor != 1 and isinstance(schedule, OneCycleLR | CyclicLR):
        raise SettingError(
            f"{type(schedule).__name__} sets all learning rates itself, so model.encoder_lr_factor has no effect. Use "
            "medseg_pl.WarmupPolynomialLR, or leave the factor out."
        )
    # Those that react to scores are stepped by the module, at the end of a validation.
    if is_score_driven(schedule):
        return {
            "optimizer": made,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch", "reduce_on_plateau": False},
        }
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": interval or get_interval(schedule)}}


def _make_optimizer(optimizer: Callable[[Any], Optimizer], parameters: list[Any]) -> Optimizer:
    """Make the optimizer, with one group if it allows no more."""
    groups = [group for group in parameters if isinstance(group, dict)]
    flat = [parameter for group in groups for parameter in group["params"]] or parameters
    made = _make("model.optimizer", optimizer, flat)
    # LBFGS refuses groups, and nothing would differ between them.
    is_uniform = len({get_part(group) for group in groups}) == 1 and "weight_decay" not in made.defaults
    return made if not groups or is_uniform else _make("model.optimizer", optimizer, groups)


def _make(setting: str, factory: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
    try:
        return factory(argument)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())[:200].rstrip(".")
        raise SettingError(f"{setting} cannot be made: {message}. Correct its init_args.") from error


def get_interval(scheduler: Any) -> Interval:
    """Return how often a schedule is meant to step.

    Torch's own schedules count epochs, as Lightning steps them, but for those that torch's documentation steps with
    each batch.
    """
    return "step" if isinstance(scheduler, WarmupPolynomialLR | OneCycleLR | CyclicLR) else "epoch"


def is_score_driven(scheduler: Any) -> bool:
    """Tell whether a schedule steps with new scores, not the optimizer."""
    return isinstance(scheduler, ReduceLROnPlateau)


def follow_scores(scheduler: Any, scores: Mapping[str, Tensor]) -> None:
    """Step a schedule that follows scores.

    It follows `val/loss`, or its monitor in Lightning's variant.

    Raises:
        SettingError: There is no such score.
    """
    if not is_score_driven(scheduler):
        return
    # Lightning's `ReduceLROnPlateau` has a monitor; this package knows no Lightning below `training`.
    monitor = getattr(scheduler, "monitor", "val/loss")
    if monitor not in scores:
        raise SettingError(
            f"model.lr_scheduler follows {monitor}, which is not logged. Set its monitor to one of "
            f"{', '.join(sorted(scores))}."
        )
    scheduler.step(float(scores[monitor]))


def find_learning_rate(optimization: dict[str, Any]) -> float:
    """Return the learning rate that an optimizer starts with, before any schedule."""
    group = optimization["optimizer"].param_groups[0]
    return float(group.get("initial_lr", group["lr"]))


def rescale_schedules(schedules: Iterable[Any], factor: float) -> None:
    """Multiply the learning rates that running schedules are computed from."""
    for schedule in schedules:
        schedule.base_lrs = [factor * rate for rate in getattr(schedule, "base_lrs", ())]
        for group in schedule.optimizer.param_groups:
            group["initial_lr"] = factor * group.get("initial_lr", group["lr"])


def include_added_groups(schedules: Iterable[Any]) -> None:
    """Include groups that a callback added or changed in the schedules.

    Schedules go on from the learning rates of these groups. Lightning's finetuning callbacks add what they thaw as a
    group of its own, which torch's schedules do not expect.
    """
    for schedule in schedules:
        first, *others = schedule.optimizer.param_groups
        # Groups of the settings have names; the first may have none.
        added = [group for group in others if "name" not in group]
        if not added or not hasattr(schedule, "base_lrs"):
            continue
        factor = first["lr"] / schedule.base_lrs[0] or 1.0
        for group in added:
            group |= {name: value for name, value in first.items() if name not in group and name != "name"}
        own = schedule.base_lrs[: 1 + len(others) - len(added)]
        schedule.base_lrs = [*own, *(group["lr"] / factor for group in added)]
