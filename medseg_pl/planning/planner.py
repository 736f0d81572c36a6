"""From what a data set is like to a configuration that trains well as it stands, with the reason for each choice.

The rules are those of common practice in 2D segmentation, sized for the machine: on a CPU a small encoder and some ten
minutes on two cores, on a GPU a larger one and more steps.

References:
    Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
    Nature Methods 18, 2021 (the idea of a fingerprint, and CT windows from foreground percentiles).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.planning.fingerprint import Fingerprint


class Commented(NamedTuple):
    """A value with a comment."""

    value: Any
    comment: str


@dataclass(frozen=True)
class Hardware:
    """What the training may use.

    Args:
        gpu: Whether there is one.
        memory_gb: Of the GPU, or of the machine.
        bf16: Whether it computes with bf16 numbers; a processor that only imitates them is slower than with 32 bits.
    """

    gpu: bool
    memory_gb: float
    bf16: bool = True


@dataclass(frozen=True)
class _Scale:
    """How large networks, patches and runs are on a kind of hardware."""

    encoder: str
    patch: int
    batch_pixels: int
    run_pixels: float
    steps: tuple[int, int]


_CPU = _Scale("tu-resnet10t", 256, 1 << 18, 4e8, (300, 4000))
# So few steps that a training ends in a quarter of an hour on such processors (AVX2), too.
_CPU_WITHOUT_BF16 = replace(_CPU, run_pixels=1.2e8, steps=(300, 1200))
_GPU = _Scale("resnet34", 512, 1 << 21, 2e10, (4000, 40000))
# What a pixel of a batch takes in a training step of the larger encoder, in bf16, roughly and on the safe side.
_BYTES_A_PIXEL = 1500
_EPOCHS = 10
_NORMALIZATIONS = "medseg_pl."
# Hounsfield units that only a CT has below; air has -1000.
_AIR = -500
_SIDES = re.compile(r"(^|[_\s-])(left|right|l|r|sin|dex|lt|rt)([_\s-]|$)", re.IGNORECASE)


def plan(fingerprint: Fingerprint, labels: LabelMap, hardware: Hardware) -> dict[str, Any]:
    """Plan the settings of model, data and trainer, `Commented` wherever there was a choice.

    Raises:
        SettingError: One patient cannot be split into two sides, or nothing is annotated.
    """
    _require_learnable(fingerprint)
    scale = _GPU if hardware.gpu else _CPU if hardware.bf16 else _CPU_WITHOUT_BF16
    spacing = _choose_spacing(fingerprint)
    depth = _choose_encoder_depth(fingerprint, scale)
    resize, size = _choose_resize(fingerprint, spacing.value, 2**depth.value, scale)
    batch = _choose_batch_size(size.value, scale, hardware)
    steps = _choose_steps(size.value, batch.value, scale)
    return {
        "model": {
            "network": _plan_network(scale, depth, fingerprint),
            "labels": _describe_labels(labels),
            "channels": fingerprint.channels,
            "context_slices": _choose_context(fingerprint),
            "resize": resize,
            "input_size": size,
            "spacing_mm": spacing,
            "normalization": _plan_normalization(fingerprint),
            "loss": _plan_loss(fingerprint),
            "optimizer": _plan_optimizer(batch.value),
            "lr_scheduler": _plan_schedule(),
            "channels_last": Commented(True, "faster with mixed precision"),
        },
        "data": _plan_data(fingerprint, labels, scale, batch, steps.value),
        "trainer": _plan_trainer(hardware, steps),
    }


def _require_learnable(fingerprint: Fingerprint) -> None:
    if fingerprint.groups < 2:
        raise SettingError(
            f"The data has {fingerprint.groups} patient (group); training and validation need two. Add patients, or "
            "correct --group."
        )
    if not any(fingerprint.label_cases.values()):
        raise SettingError("No label is in any mask. Correct --labels, or the masks.")


def _plan_schedule() -> dict[str, Any]:
    warmup = Commented(0.05, "a twentieth of the run, however long")
    return {"class_path": "medseg_pl.WarmupPolynomialLR", "init_args": {"warmup_fraction": warmup}}


def _plan_data(
    fingerprint: Fingerprint, labels: LabelMap, scale: _Scale, batch: Commented, steps: int
) -> dict[str, Any]:
    # Evaluation keeps no gradients, so twice the pixels of a training batch fit.
    slices = _round_to_power(scale.batch_pixels * 2 / math.prod(fingerprint.sizes[2]), 1, 64)
    return {
        "fold": 0,
        "folds": Commented(min(5, fingerprint.groups), f"{fingerprint.groups} patients"),
        "batch_size": batch,
        "eval_batch_size": Commented(slices, "whole slices"),
        "samples_per_epoch": Commented(steps * batch.value // _EPOCHS, f"a tenth of {steps} steps"),
        "foreground_fraction": _choose_foreground_fraction(fingerprint),
        "augmentation": _plan_augmentation(fingerprint, labels),
    }


def _plan_trainer(hardware: Hardware, steps: Commented) -> dict[str, Any]:
    return {
        "accelerator": "auto",
        "devices": 1,
        "precision": _choose_precision(hardware),
        "max_epochs": Commented(_EPOCHS, steps.comment),
        "check_val_every_n_epoch": Commented(2, "five validations in the run"),
        "log_every_n_steps": 10,
    }


def _choose_precision(hardware: Hardware) -> Commented:
    if hardware.bf16:
        return Commented("bf16-mixed", "half the time, and no loss scaling")
    if hardware.gpu:
        return Commented("16-mixed", "half the time; this GPU has no bf16")
    return Commented("32-true", "this processor has no bf16, and imitates it several times slower")


def _choose_spacing(fingerprint: Fingerprint) -> Commented:
    if fingerprint.spacing_mm is None:
        return Commented(None, "the images do not say it")
    if fingerprint.spacing_varies <= 1.1:
        return Commented(None, "alike in nearly all cases: pixels stay as they are")
    _, y, x = fingerprint.spacing_mm
    reason = f"the median; pixels differ by a factor of {fingerprint.spacing_varies:.1f} between cases"
    return Commented([round(y, 3), round(x, 3)], reason)


def _choose_encoder_depth(fingerprint: Fingerprint, scale: _Scale) -> Commented:
    shorter = min(*fingerprint.sizes[1], scale.patch)
    # At least about 4 pixels remain at the bottom; fewer carry no layout.
    depth = min(5, max(3, int(math.log2(shorter / 4))))
    return Commented(depth, f"{shorter} pixels become about {max(1, shorter >> depth)} at the bottom")


def _choose_resize(
    fingerprint: Fingerprint, spacing: list[float] | None, multiple: int, scale: _Scale
) -> tuple[Commented, Commented]:
    low, middle, high = fingerprint.sizes
    unlike = max(high[0] / low[0], high[1] / low[1])
    side = [min(scale.patch, -(-length // multiple) * multiple) for length in middle]
    if fingerprint.spacing_mm is None and unlike > 2:
        reason = f"sizes differ by a factor of {unlike:.1f} and no spacing tells why"
        return Commented("fit", reason), Commented(side, "whole images, proportions kept")
    whole = all(length <= part for length, part in zip(middle, side, strict=True))
    kept = "pixels are resampled to spacing_mm" if spacing else "pixels as they are"
    what = "whole slices, padded" if whole else f"crops of slices of {middle[0]} x {middle[1]}"
    return Commented("none", kept), Commented(side, what)


def _plan_network(scale: _Scale, depth: Commented, fingerprint: Fingerprint) -> dict[str, Any]:
    channels = [max(16, 256 >> level) for level in range(5 - depth.value, 5)]
    reason = f"for {fingerprint.slices} slices on a {'GPU' if scale is _GPU else 'CPU'}"
    return {
        "class_path": "segmentation_models_pytorch.Unet",
        "init_args": {
            "encoder_name": Commented(scale.encoder, reason),
            "encoder_weights": Commented(None, "random: nothing is downloaded; imagenet helps photographs most"),
            "encoder_depth": depth,
            "decoder_channels": channels,
        },
    }


def _describe_labels(labels: LabelMap) -> dict[str, Any]:
    known: dict[str, Any] = {"names": list(labels.names), "task": labels.task}
    known |= {"values": list(labels.values)} if labels.values is not None else {}
    known |= {"colors": {name: list(color) for name, color in labels.colors.items()}} if labels.colors else {}
    known |= {"tolerance": labels.tolerance} if labels.tolerance else {}
    return known | ({"ignore_value": labels.ignore_value} if labels.ignore_value is not None else {})


def _choose_context(fingerprint: Fingerprint) -> Commented:
    if fingerprint.depth == 1:
        return Commented(0, "single images")
    if fingerprint.spacing_mm is None:
        return Commented(1, "a volume whose slice distance is unknown")
    z, y, x = fingerprint.spacing_mm
    ratio = z / max(y, x)
    context = 2 if ratio < 1.5 else 1 if ratio < 5 else 0
    return Commented(context, f"neighbors on each side; slices are {ratio:.1f} pixels apart")


def _plan_normalization(fingerprint: Fingerprint) -> Any:
    windowed = [_is_ct(modality, low) for modality, low in zip(fingerprint.modalities, fingerprint.lowest, strict=True)]
    if not any(windowed):
        if fingerprint.channels == 3 and fingerprint.types == ("uint8",) and fingerprint.depth == 1:
            kind = Commented(
                _NORMALIZATIONS + "MeanStd", "photographs: the statistics of ImageNet, which encoders expect"
            )
            return {"class_path": kind, "init_args": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
        return _plan_z_scores("intensities have no unit: per case and channel")
    channels = [
        _plan_window(*fingerprint.foreground_intensities[i])
        if ct
        else _plan_z_scores(f"{fingerprint.modalities[i] or 'no CT'}: per case")
        for i, ct in enumerate(windowed)
    ]
    if len(channels) == 1:
        return channels[0]
    kind = Commented(
        _NORMALIZATIONS + "PerChannel", "each channel by its own intensities, in the order of the channels"
    )
    return {"class_path": kind, "init_args": {"channels": channels}}


def _is_ct(modality: str, lowest: float) -> bool:
    return "CT" in re.split(r"\W+", modality) or (not modality and lowest < _AIR)


def _plan_window(low: float, high: float) -> dict[str, Any]:
    reason = "CT: the 0.5th and 99.5th percentile of the labeled voxels"
    window = {"low": Commented(round(low, 1), reason), "high": round(max(high, low + 1), 1)}
    return {"class_path": _NORMALIZATIONS + "IntensityWindow", "init_args": window}


def _plan_z_scores(reason: str) -> dict[str, Any]:
    return {"class_path": Commented(_NORMALIZATIONS + "ZScore", reason)}


def _plan_loss(fingerprint: Fingerprint) -> dict[str, Any]:
    rarest, share = min(fingerprint.label_shares.items(), key=lambda pair: pair[1] or math.inf)
    if share < 1e-4:
        reason = f"{rarest} is {share:.1e} of the voxels: misses weigh more than false alarms"
        return {"class_path": Commented("medseg_pl.FocalTverskyLoss", reason)}
    reason = f"the rarest label, {rarest}, is {share:.1%} of the voxels"
    return {"class_path": Commented("medseg_pl.DiceCELoss", reason)}


def _plan_optimizer(batch: int) -> dict[str, Any]:
    rate = 3e-3 if batch >= 8 else 2e-3
    return {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": Commented(rate, f"for a batch of {batch}"), "weight_decay": 0.01, "fused": True},
    }


def _choose_foreground_fraction(fingerprint: Fingerprint) -> Commented:
    share = sum(fingerprint.label_shares.values())
    if share > 0.05:
        return Commented(0.33, f"labels fill {share:.0%} of the voxels")
    return Commented(0.5, f"labels fill only {share:.1%} of the voxels")


def _plan_augmentation(fingerprint: Fingerprint, labels: LabelMap) -> dict[str, Any]:
    sided = [name for name in labels.names if _SIDES.search(name)]
    flip = Commented(0.0, f"{sided[0]} knows its side") if sided else Commented(0.5, "no label is named by its side")
    body = fingerprint.depth > 1 or any(fingerprint.modalities)
    settings = {"flip_horizontal": flip, "rotate_degrees": 20.0, "scale": 0.2}
    if not body:
        settings |= {"flip_vertical": Commented(0.5, "no up or down in such pictures"), "rotate_degrees": 45.0}
    return {"class_path": "medseg_pl.StandardAugmentation", "init_args": settings}


def _choose_batch_size(size: list[int], scale: _Scale, hardware: Hardware) -> Commented:
    fitting = hardware.memory_gb * 1e9 * 0.8 / _BYTES_A_PIXEL
    pixels = min(scale.batch_pixels, fitting)
    return Commented(_round_to_power(pixels / math.prod(size), 2, 32), f"fits in {hardware.memory_gb:.0f} GB")


def _choose_steps(size: list[int], batch: int, scale: _Scale) -> Commented:
    low, high = scale.steps
    steps = int(min(high, max(low, scale.run_pixels / (batch * math.prod(size)))))
    minutes = "within hours on one GPU" if scale is _GPU else "about ten minutes on two cores"
    return Commented(steps, f"{steps} steps in all, {minutes}")


def _round_to_power(value: float, low: int, high: int) -> int:
    return min(high, max(low, 1 << max(0, int(math.log2(max(1.0, value))))))
