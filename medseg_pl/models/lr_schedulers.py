"""Learning-rate schedules: one that ends with the run, however long it is, and those that follow scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from lightning.pytorch.cli import ReduceLROnPlateau as MonitoredReduceLROnPlateau
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from medseg_pl.core.errors import SettingError

Interval: TypeAlias = Literal["step", "epoch"]
"""How often a schedule is stepped: after each step of the optimizer, or after each epoch."""

HUNDREDTHS = 100
"""Parts of a run's time: coarse enough that a run well within its time limit is repeated bit for bit."""


def warmup_polynomial(step: int, total_steps: float, warmup_steps: int, power: float) -> float:
    """The factor of the learning rate at a step: a straight line up, then a polynomial down to zero.

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
            raise ValueError(f"warmup_steps ({warmup_steps}) must be fewer than total_steps ({total_steps})")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.warmup_fraction = warmup_fraction
        self.power = power
        self.planned_steps: float | None = None
        self.planned_warmup = 0
        self.hundredths = 0
        super().__init__(optimizer)

    def plan(self, steps: float) -> float:
        """Fit the schedule to the length of the run, and set the rate of the next step.

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
        self._set_rates()
        return length

    def pass_time(self, hundredths: int) -> None:
        """Note how many hundredths of the run's time have passed, before `step`."""
        self.hundredths = hundredths

    def get_lr(self) -> list[float | Tensor]:
        """Compute the learning rate of each parameter group at the current step."""
        return [self._factor() * rate for rate in self.base_lrs]

    def _factor(self) -> float:
        step, total = self.last_epoch, self.planned_steps
        if total is None:  # not planned yet: what the first step has, whatever the length
            return warmup_polynomial(step, step + 1, self.warmup_steps or 0, self.power)
        if self.hundredths <= HUNDREDTHS * step / max(1, total) and not math.isinf(total):
            return warmup_polynomial(step, total, self.planned_warmup, self.power)
        share = round(self.warmup_fraction * HUNDREDTHS) if self.warmup_steps is None else 0
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return min(rise, warmup_polynomial(self.hundredths, HUNDREDTHS, share, self.power))

    def _set_rates(self) -> None:
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def natural_interval(scheduler: Any) -> Interval:
    """Return how often a schedule is meant to be stepped.

    Torch's own count epochs, as Lightning steps them, but for those that torch's documentation steps with each batch.
    """
    return "step" if isinstance(scheduler, WarmupPolynomialLR | OneCycleLR | CyclicLR) else "epoch"


def follows_scores(scheduler: Any) -> bool:
    """Whether a schedule steps when there are new scores, and not with the optimizer."""
    return isinstance(scheduler, ReduceLROnPlateau)


def follow_scores(scheduler: Any, scores: Mapping[str, Tensor]) -> None:
    """Step a schedule that follows scores: `val/loss`, or what Lightning's variant has as its monitor.

    Raises:
        SettingError: There is no such score.
    """
    if not follows_scores(scheduler):
        return
    monitor = scheduler.monitor if isinstance(scheduler, MonitoredReduceLROnPlateau) else "val/loss"
    if monitor not in scores:
        raise SettingError(
            f"model.lr_scheduler follows {monitor}, which is not logged. Set its monitor to one of "
            f"{', '.join(sorted(scores))}."
        )
    scheduler.step(float(scores[monitor]))
