"""Whether a loss fits a task, asked before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap


def check_loss(loss: nn.Module, labels: LabelMap) -> None:
    """Try the loss on nothing but background: one that was made for another task says so here, not after an hour.

    Raises:
        SettingError: It cannot be computed, or is not one number.
    """
    logits = torch.zeros(2, labels.classes, 16, 16)
    mask = torch.zeros(2, labels.mask_channels, 16, 16, dtype=torch.uint8)
    try:
        value = loss(logits, labels.target(mask))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise SettingError(
            f"model.loss {type(loss).__name__} cannot be computed for the task {labels.task} with {labels.classes} "
            f"logits: {' '.join(str(error).split())[:200]}. Set a loss, or its mode, that fits the task."
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        raise SettingError(f"model.loss {type(loss).__name__} must return one number, a tensor without axes.")
