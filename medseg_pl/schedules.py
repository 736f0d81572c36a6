"""Learning-rate schedules: one that ends with the run, however long it is, and those that follow scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.cli import ReduceLROnPlateau as MonitoredReduceLROnPlateau
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from medseg_pl.core.errors import SettingError


def warmup_polynomial(step: int, total_steps: int, warmup_steps: int, power: float) -> float:
    """The factor of the learning rate at a step: a straight line up, then a polynomial down to zero.

    >>> [warmup_polynomial(step, 10, 2, 1.0) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    passed = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return float((1 - min(1.0, passed)) ** power)


class WarmupPolynomialLR(LRScheduler):
    """Linear warm-up and polynomial decay, counted in optimizer steps.

    Args:
        optimizer: Whose learning rates are scheduled.
        warmup_steps: Steps until the full learning rate.
        power: 1 is a straight line, 0.9 is what nnU-Net and DeepLab use.
        total_steps: When zero is reached; the length of the run where it is not given, see `plan`.

    Raises:
        ValueError: A negative number of steps, or a negative power, with which the rate would end at infinity.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 0, power: float = 0.9, total_steps: int | None = None
    ) -> None:
        for name, value in {"warmup_steps": warmup_steps, "power": power, "total_steps": total_steps or 0}.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0; got {value}")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.power = power
        super().__init__(optimizer)

    def plan(self, steps: int) -> None:
        """Told by the module how many steps the run has."""
        if self.total_steps is None:
            self.total_steps = steps

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at the current step."""
        total = self.last_epoch + 1 if self.total_steps is None else self.total_steps
        factor = warmup_polynomial(self.last_epoch, total, self.warmup_steps, self.power)
        return [factor * rate for rate in self.base_lrs]


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
