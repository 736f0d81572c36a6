"""Hardware and minutes that a training may take, the speed of a few steps, and the steps that fit into the minutes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from medseg_pl.models.segmentation_model import SegmentationModel

EPOCHS = 10
START_SECONDS = 10.0
"""Before the first step: imports, the cache, the first batch."""
_VALIDATION_SHARE = 0.1
_MOST_VALIDATIONS = 5
_ENOUGH_STEPS = 400
_LEAST_STEPS = 20
_LEAST_BATCH = 4
_OVERHEAD = 0.95
"""The share of the time in which steps run: the rest loads, logs and saves."""
_GUARD, _LEAST_GUARD_SECONDS = 0.1, 10.0
"""By how much of the time, and by how many seconds at least, steps may last longer than planned."""
_STEPS = 10
_WARMUP = 2
_MOST_SECONDS = 40.0
_STATISTICS = (0.0, 255.0, 127.0, 64.0)
_PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """The hardware that a training may use.

    Args:
        gpu: Whether there is one.
        memory_gb: Of the GPU, or of the machine.
        bf16: Whether it computes with bf16 numbers; a processor that only imitates them is slower than with 32 bits.
    """

    gpu: bool
    memory_gb: float
    bf16: bool = True


def detect_hardware(device: str | None, memory_gb: float | None) -> Hardware:
    """Detect the hardware, unless the user names it.

    Args:
        device: `cpu` or `gpu`; by default a GPU where there is one.
        memory_gb: By default that of the GPU or the machine, or 16 for a GPU that is not here.
    """
    here = torch.cuda.is_available()
    gpu = here if device is None else device == "gpu"
    if memory_gb is None:
        memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        if gpu:
            memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9 if here else 16.0
    if gpu:
        return Hardware(gpu, memory_gb, bf16=torch.cuda.is_bf16_supported() if here else True)
    # No public function tells: `torch.backends.cpu` knows AVX-512 as a whole, which came ten years before its bf16.
    bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # oneDNN computes without it where ONEDNN_MAX_CPU_ISA tells it to.
    return Hardware(gpu, memory_gb, bf16=bf16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_here(hardware: Hardware) -> bool:
    """Tell whether a training planned for hardware can run on this machine."""
    return torch.cuda.is_available() if hardware.gpu else True


@dataclass(frozen=True)
class Speed:
    """Pixels of slices per second through the planned network.

    Args:
        training: In training steps, forward and back.
        inference: In validation.
        source: Where the numbers are from, in words.
    """

    training: float
    inference: float
    source: str


@dataclass(frozen=True)
class Budget:
    """Steps and validations that fit into a training's minutes.

    Args:
        minutes: Of wall time, from start to end.
        batch: Patches in a step.
        steps: Of the optimizer.
        validations: Spread over the run.
        scoring_seconds: Of the best weights, at its end.
        speed: The speed that it was computed with.
    """

    minutes: float
    batch: int
    steps: int
    validations: int
    scoring_seconds: float
    speed: Speed

    @property
    def samples_per_epoch(self) -> int:
        """Return how many patches make a tenth of the run."""
        return max(1, self.steps // EPOCHS) * self.batch

    @property
    def time_limit(self) -> str:
        """Return the time after which a slower machine stops, as Lightning's `DD:HH:MM:SS`.

        >>> Budget(1, 4, 320, 1, 10.0, Speed(3e5, 1e6, "example")).time_limit
        '00:00:00:50'
        """
        # Later than the plan, so that the limit stops only a machine that is slower than the one measured.
        # It is counted from the first step, and the scoring comes after it, as much slower.
        steps = 60 * self.minutes - START_SECONDS - self.scoring_seconds
        # A busy moment or a slow first batch takes as many seconds of a short run as of a long one.
        limit = steps + max(_GUARD * steps, _LEAST_GUARD_SECONDS)
        minutes, seconds = divmod(round(max(1.0, limit)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours // 24:02d}:{hours % 24:02d}:{minutes:02d}:{seconds:02d}"


def look_up_speed(hardware: Hardware) -> Speed:
    """Look up the speed of a kind's slower processors, without measuring."""
    if hardware.gpu:
        return Speed(3e7, 1e8, "a table, for GPUs")
    if hardware.bf16:
        return Speed(3e5, 1e6, "a table, for processors with bf16")
    return Speed(1.5e5, 5e5, "a table, for processors without bf16")


def choose_budget(
    minutes: float, speed: Speed, patch_pixels: int, validation_pixels: float, turns: int, most: int
) -> Budget:
    """Choose batch, steps and validations.

    The batch is the largest power of two that leaves 400 steps: fewer steps train worse than smaller batches. It is at
    least 4 where memory allows, for batch normalization needs some images.

    Args:
        minutes: Of wall time.
        speed: Of the planned network.
        patch_pixels: Pixels of a training patch.
        validation_pixels: Pixels of all slices that a validation predicts.
        turns: How often each is predicted when the best weights are scored at the end.
        most: The largest batch that fits into memory.

    >>> budget = choose_budget(10, Speed(3e5, 1e6, "example"), 256**2, 20 * 256**2, turns=1, most=8)
    >>> budget.batch, budget.steps, budget.validations
    (4, 630, 5)
    """
    seconds = 60 * minutes
    # A validation predicts whole slices, so it costs by their pixels and not by the patches of training.
    cost = validation_pixels / speed.inference
    validations = min(_MOST_VALIDATIONS, max(1, int(_VALIDATION_SHARE * seconds / max(cost, 1e-9))))
    left = _OVERHEAD * (seconds - START_SECONDS - (validations + turns) * cost)
    patches = max(0.0, left) * speed.training / patch_pixels
    # At least two: batch normalization of one image learns that image.
    batch = 1 << int(math.log2(max(2, min(most, max(_LEAST_BATCH, patches / _ENOUGH_STEPS)))))
    # A multiple of the epochs, so that the last one is as long as the others and the schedule ends at zero.
    steps = max(_LEAST_STEPS, int(patches / batch)) // EPOCHS * EPOCHS
    return Budget(minutes, batch, steps, validations, turns * cost, speed)


def measure_speed(
    settings: Mapping[str, Any], hardware: Hardware, slice_size: tuple[int, int], most: int
) -> tuple[Speed, int]:
    """Measure a planned network's speed on noise, in training and prediction.

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
    model, loss = _build_probe(settings["model"], device)
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
    seconds = _time_fastest(lambda: step(batch), device)
    model.eval()
    inferred = tuple(-(-side // model.size_divisor) * model.size_divisor for side in slice_size)

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            model(*_make_images(1, model.in_channels, (inferred[0], inferred[1]), device))

    training = batch * size[0] * size[1] / seconds
    inference = inferred[0] * inferred[1] / _time_fastest(infer, device)
    # Two digits: what is measured twice differs in the third.
    return Speed(_round(training), _round(inference), f"measured in steps of {batch} here"), batch


def _build_probe(settings: Mapping[str, Any], device: torch.device) -> tuple[SegmentationModel, nn.Module]:
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


def _time_fastest(run: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of the fastest of some turns, after two that do not count.

    Whatever else the machine does makes a turn slower and never faster. A median of a busy moment plans too few steps,
    and nothing makes up for them; a run that is slower than its fastest turn is ended in time by `time_limit`.
    """
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < _WARMUP + _STEPS and (len(seconds) <= _WARMUP or time.perf_counter() - begun < _MOST_SECONDS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[_WARMUP:])


def _round(value: float) -> float:
    return float(f"{value:.2g}")
