"""Callbacks about the optimization: averaged weights that forget the first steps, and a log of learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import LearningRateMonitor, WeightAveraging
from torch import Tensor

from medseg_pl.models.fine_tuning import get_part


class WarmupEMA(WeightAveraging):
    """Average the weights exponentially, with a decay that rises.

    After `n` updates the decay is `min(decay, (1 + n) / (10 + n))`. With a plain decay of 0.999 the weights after the
    first step are 63 % of the average at the end of a run of 457 steps; here they are forgotten. Validation,
    `best.ckpt` and the end of training use the averaged weights; a resumed run goes on with both.

    Args:
        decay: The full decay: about its `1 / (1 - decay)` last steps count.
        use_buffers: Whether the statistics of batch normalization are averaged as well.
        device: Where the averaged weights are kept, such as `cpu`; by default where the model is.

    Raises:
        ValueError: A decay that is not between 0 and 1.

    References:
        The warm-up is that of TensorFlow's `ExponentialMovingAverage(num_updates=…)`.
    """

    def __init__(self, decay: float = 0.999, use_buffers: bool = True, device: str | None = None) -> None:
        if not 0 <= decay < 1:
            # A decay of 1 would keep the first weights for ever, and report them as the result.
            raise ValueError(f"decay must be at least 0 and below 1; got {decay}")
        super().__init__(device=device, use_buffers=use_buffers, multi_avg_fn=_make_average(decay))


def compute_decay(decay: float, updates: float) -> float:
    """Compute the decay of the update that comes after so many others.

    >>> [round(compute_decay(0.99, updates), 3) for updates in (0, 8, 90, 10_000)]
    [0.1, 0.5, 0.91, 0.99]
    """
    return min(decay, (1 + updates) / (10 + updates))


def _make_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Make the function that `AveragedModel` calls with many tensors at once."""

    @torch.no_grad()
    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # counts, as of the batches that batch normalization has seen
            torch._foreach_copy_(list(averaged), list(current))
            return
        torch._foreach_lerp_(list(averaged), list(current), 1 - compute_decay(decay, float(updates)))

    return average


class LearningRates(LearningRateMonitor):
    """Log `lr-<optimizer>`, or `lr-<optimizer>/<part>` where encoder and network differ.

    Groups that differ in weight decay alone share a name: they have the same rate.
    """

    def _add_suffix(
        self, name: str, param_groups: list[dict[str, Any]], param_group_index: int, use_names: bool = True
    ) -> str:
        parts = [get_part(group) or f"pg{number + 1}" for number, group in enumerate(param_groups)]
        return f"{name}/{parts[param_group_index]}" if len(set(parts)) > 1 else name
