"""Depthwise convolutions in 32 bits within a bf16 training on a CPU, where their gradients are six times as fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PAUSED = "_pauses_autocast"


def pause_autocast_in_depthwise(network: nn.Module) -> None:
    """Let depthwise convolutions compute in 32 bits under CPU autocast; on other devices nothing changes.

    oneDNN has no fast bf16 kernel for the gradients of strided or small ones: with EfficientNet-Lite0 they took two
    thirds of a training step. Hooks leave class, names of weights and copies of the network as they were.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.register_forward_pre_hook(_pause)
            module.register_forward_hook(_go_on, always_call=True)


def _pause(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
    (image,) = inputs
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    module.__dict__[_PAUSED] = True
    torch.set_autocast_enabled("cpu", False)
    return (image.float(),)


def _go_on(module: nn.Module, inputs: tuple[Any, ...], output: Tensor | None) -> Tensor | None:
    if not module.__dict__.pop(_PAUSED, False):
        return None
    torch.set_autocast_enabled("cpu", True)
    return None if output is None else output.to(torch.get_autocast_dtype("cpu"))
