"""A few training steps of a planned network, to learn how fast it is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.planning.budget import Hardware, Speed

_STEPS = 5
_WARMUP = 2
_MOST_SECONDS = 60.0
_STATISTICS = (0.0, 255.0, 127.0, 64.0)
_PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def measure_speed(
    settings: Mapping[str, Any], hardware: Hardware, slice_size: tuple[int, int], most: int
) -> tuple[Speed, int]:
    """Train a planned network for a few steps on noise, and predict a slice.

    Args:
        settings: Plain values of a plan's `model` and `trainer`, without pretrained weights.
        hardware: This machine.
        slice_size: `(height, width)` of a slice in validation.
        most: The batch to try; it is halved until it fits into memory.

    Returns:
        The speed, and the batch that fits.
    """
    device = torch.device("cuda" if hardware.gpu else "cpu")
    dtype = _PRECISIONS.get(settings["trainer"]["precision"])
    model, loss = _build(settings["model"], device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    size = model.input_size

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    def step(batch: int) -> None:
        image, statistics = _make_images(batch, model.in_channels, size, device)
        mask = torch.randint(2, (batch, model.labels.mask_channels, *size), device=device, dtype=torch.uint8)
        with autocast():
            value: Tensor = loss(model(image, statistics), model.labels.target(mask))
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    batch = _find_fitting_batch(step, most)
    seconds = _time(lambda: step(batch), device)
    model.eval()
    inferred = tuple(-(-side // model.size_divisor) * model.size_divisor for side in slice_size)

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            model(*_make_images(1, model.in_channels, (inferred[0], inferred[1]), device))

    training = batch * size[0] * size[1] / seconds
    inference = inferred[0] * inferred[1] / _time(infer, device)
    # Two digits: what is measured twice differs in the third.
    return Speed(_round(training), _round(inference), f"measured in steps of {batch} here"), batch


def _build(settings: Mapping[str, Any], device: torch.device) -> tuple[SegmentationModel, nn.Module]:
    """Make model and loss as the command line does."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationModel, "model", fail_untyped=False)
    parser.add_subclass_arguments(nn.Module, "loss")
    names = parser.get_defaults().model
    model = {name: value for name, value in settings.items() if name in names}
    built = parser.instantiate(parser.parse_object({"model": model, "loss": settings["loss"]}))
    return built.model.to(device), built.loss


def _make_images(batch: int, channels: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    image = torch.randint(256, (batch, channels, *size), device=device, dtype=torch.uint8)
    return image, torch.tensor(_STATISTICS, device=device).expand(batch, channels, 4)


def _find_fitting_batch(step: Callable[[int], None], most: int) -> int:
    """Halve the batch until a step of it fits into memory."""
    batch = most
    while True:
        try:
            step(batch)
            return batch
        except torch.OutOfMemoryError:
            if batch <= 2:
                raise
            torch.cuda.empty_cache()
            batch //= 2


def _time(run: Callable[[], None], device: torch.device) -> float:
    """Return the median seconds of some turns, after two that do not count."""
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < _WARMUP + _STEPS and (len(seconds) <= _WARMUP or time.perf_counter() - begun < _MOST_SECONDS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[_WARMUP:])


def _round(value: float) -> float:
    return float(f"{value:.2g}")
