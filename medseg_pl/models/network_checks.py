"""Runs of a network that explain wrong shapes: on images, and on shapes alone before training."""

from __future__ import annotations

import re
from collections.abc import Iterator

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.func import functional_call

from medseg_pl.core.errors import SettingError

Shape = tuple[int, int, int, int]

_ONE_IMAGE = "Expected more than 1 value per channel when training"
_CHANNELS = re.compile(r"expected input.* to have \d+ channels|Invalid channel dimensions")
# Parts of errors of torch, smp and timm; none of the three has a class of its own for them.
_SIZES = (
    "Wrong input shape",  # smp, of sides that do not divide
    "Output size is too small",
    "Kernel size can't be greater than actual input size",
    "Padding size should be less than the corresponding input dimension",
    "doesn't match model",  # timm, of encoders for images of one size
    "Sizes of tensors must match",
    "must match the size of tensor",
)
_MULTIPLES = (2, 4, 8, 16, 32, 64, 128, 256, 224, 384)
"""Sides that are tried in place of one that a network refuses; the last two are those of vision transformers."""


def compute_logits(network: nn.Module, image: Tensor, classes: int) -> Tensor:
    """Run a network on normalized images `(B, C, H, W)`.

    Raises:
        SettingError: The network does not take these images, or returns other than logits `(B, classes, H, W)`.
    """
    try:
        logits = network(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = explain_error(error, network, tuple(image.shape))
        if reason is None:
            raise
        raise SettingError(reason) from error
    return check_logits(logits, image, classes)


def check_logits(logits: object, image: Tensor, classes: int) -> Tensor:
    """Return a network's output if it is one tensor with a channel for each class.

    Raises:
        SettingError: It is not.
    """
    if not isinstance(logits, Tensor):
        raise SettingError(
            f"The network returned a {type(logits).__name__}; expected one tensor of logits. Set "
            "model.network.init_args.aux_params to null, or return the logits alone from a network of your own."
        )
    expected = (len(image), classes, *image.shape[-2:])
    if logits.shape != expected:
        raise SettingError(
            f"The network returned logits of the shape {tuple(logits.shape)} for images of the shape "
            f"{tuple(image.shape)}; expected {expected}: one channel for each class, at the images' own size. "
            "Correct model.network."
        )
    return logits


def rehearse(network: nn.Module, shape: Shape, classes: int) -> list[str]:
    """Rehearse a training step on shapes alone: torch's meta device computes nothing.

    Args:
        network: In training mode; it stays as it is.
        shape: `(B, C, H, W)` of a batch.
        classes: Channels of the logits.

    Returns:
        The parameters that get no gradient; nothing where a network cannot run without values.

    Raises:
        SettingError: The network cannot be trained on such a batch.
    """
    try:
        logits, parameters = _run_on_shapes(network, shape)
    except Exception as error:  # A network of one's own may need values, which it says in any way.
        if reason := explain_error(error, network, shape):
            raise SettingError(reason) from error
        return []
    check_logits(logits, torch.empty(shape, device="meta"), classes)
    return [name for name, value in parameters.items() if value.requires_grad and value.grad is None]


def explain_error(error: Exception, network: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Explain a network's error and name the setting that mends it; `None` for unknown errors."""
    name, text = type(network).__name__, str(error)
    height, width = shape[-2:]
    if _ONE_IMAGE in text:
        return (
            f"{name} cannot be trained on one image at a time: its batch normalization needs two values. "
            "Set data.batch_size to 2 or more, with as many training slices for each device."
        )
    if _CHANNELS.search(text):
        return (
            f"{name} does not take {shape[1]} channels, as many as model.channels and model.context_slices give. "
            "Set them, or the network's in_channels."
        )
    if not any(phrase in text for phrase in _SIZES):
        return None
    reason = " ".join(text.split())[:120].rstrip(".")
    return f"{name} does not take images of {height} × {width} ({reason}). {_suggest_remedy(network, shape, text)}."


def _suggest_remedy(network: nn.Module, shape: tuple[int, ...], text: str) -> str:
    if network.training:
        size = next(_find_accepted_sizes(network, shape), None)
        return f"Set model.input_size to {list(size)}" if size else "Set model.input_size to one that it takes"
    if "doesn't match model" in text:
        return "Set model.whole_image_max_pixels to 1, so that larger images run in windows of model.input_size"
    return "Set model.size_divisor to what the sides of its images must divide by, mostly 32"


def _find_accepted_sizes(network: nn.Module, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield sizes near a refused one on which the network can be trained."""
    for multiple in _MULTIPLES if isinstance(network, smp.base.SegmentationModel) else ():
        height, width = size = (-(-shape[-2] // multiple) * multiple, -(-shape[-1] // multiple) * multiple)
        try:
            _run_on_shapes(network, (2, shape[1], height, width))
        except (AssertionError, RuntimeError, ValueError):
            continue
        yield size


def _run_on_shapes(network: nn.Module, shape: Shape) -> tuple[object, dict[str, Tensor]]:
    """Run forward and backward with stand-ins for weights; return the output and the stand-ins."""
    parameters = {
        name: value.detach().to("meta").requires_grad_(value.requires_grad)
        for name, value in network.named_parameters()
    }
    buffers = {name: value.to("meta") for name, value in network.named_buffers()}
    # Dropout draws numbers on the meta device, too; the training's own must stay as they are.
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        logits = functional_call(network, {**parameters, **buffers}, (torch.empty(shape, device="meta"),))
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.sum().backward()  # type: ignore[no-untyped-call]
    return logits, parameters
