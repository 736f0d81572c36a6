"""From what a data set is like to a configuration that trains well as it stands, with the reason for each choice.

The rules are those of common practice in 2D segmentation, sized for the machine and for the minutes that a training may
take.

References:
    Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
    Nature Methods 18, 2021 (the idea of a fingerprint, and CT windows from foreground percentiles).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from medseg_pl.checks import CODES
from medseg_pl.core.errors import SettingError, count_noun
from medseg_pl.core.labels import LabelMap
from medseg_pl.inference.sliding_window import get_transforms
from medseg_pl.io.config_files import Commented
from medseg_pl.planning.augmentation import plan_augmentation
from medseg_pl.planning.budget import EPOCHS, Budget, Hardware, Speed, choose_budget, look_up_speed
from medseg_pl.planning.fingerprint import MOST_FOLDS, Fingerprint
from medseg_pl.planning.objects import find_thickest, find_thinnest


@dataclass(frozen=True)
class _Scale:
    """How large networks and patches are on a kind of hardware."""

    encoder: str
    pretrained: str
    patch: int
    batch_pixels: int


_CPU = _Scale("tu-resnet10t", "efficientnet_lite0", 256, 1 << 19)
_GPU = _Scale("resnet34", "efficientnet_lite2", 512, 1 << 21)
# What a pixel of a batch takes in a training step of the larger encoder, in bf16, roughly and on the safe side.
_BYTES_A_PIXEL = 1500
_FEW = 50
_FEW_STEPS = 2000
"""Shorter runs with pretrained weights gain from larger steps."""
_LARGE = 0.15
"""Objects that reach over this share of an image are recognized by what lies around them."""
_THIN = 3.0
"""Pixels: thinner structures are lost when an image is made smaller."""
_UNEVEN = 1.3
"""Photographs of one scene whose contrasts differ more were lit or stained unlike each other."""
_ONE_SCENE = 2.0
"""Labels fill shares of an image that differ less. More, and contrasts may differ by what is in view."""
_NORMALIZATIONS = "medseg_pl."
_RARE = 1e-3
# Hounsfield units that only a CT has below; air has -1000.
_AIR = -500


def plan(
    fingerprint: Fingerprint,
    labels: LabelMap,
    hardware: Hardware,
    minutes: float | None = None,
    speed: Speed | None = None,
    weights: Collection[str] = (),
    batch_limit: int | None = None,
) -> dict[str, Any]:
    """Plan model, data and trainer, `Commented` wherever there was a choice.

    Args:
        fingerprint: The data set in numbers.
        labels: What its masks hold.
        hardware: What is trained on.
        minutes: Wall time of the training; by default 10 on a CPU and 120 on a GPU.
        speed: Of the planned network, where it was measured.
        weights: Installed pretrained weights, such as `efficientnet_lite0`.
        batch_limit: The largest batch that was seen to fit into memory.

    Raises:
        SettingError: One patient cannot be split into two sides, or nothing is annotated.
    """
    _require_learnable(fingerprint)
    scale = _GPU if hardware.gpu else _CPU
    spacing = _choose_spacing(fingerprint, scale)
    sizes = _bring_to_spacing(fingerprint, spacing.value)
    depth = _choose_encoder_depth(sizes[1], scale)
    resize, size = _choose_resize(fingerprint, sizes, spacing.value, 2**depth.value, scale)
    pretrained = _choose_weights(fingerprint, scale, weights)
    augmentation = plan_augmentation(fingerprint, labels)
    tta = _choose_tta(augmentation["init_args"])
    budget = choose_budget(
        minutes if minutes is not None else (120 if hardware.gpu else 10),
        speed or look_up_speed(hardware),
        math.prod(size.value),
        count_validation_pixels(fingerprint, resize.value, size.value, sizes[1]),
        len(get_transforms(tta.value)),
        min(batch_limit or 32, choose_batch_limit(size.value, hardware)),
    )
    return {
        "model": {
            "labels": _describe_labels(labels),
            "network": _plan_network(scale, depth, fingerprint, pretrained),
            "pretrained": pretrained,
            "channels": fingerprint.channels,
            "context_slices": _choose_context(fingerprint),
            "resize": resize,
            "input_size": size,
            "spacing_mm": spacing,
            "normalization": _plan_normalization(fingerprint, pretrained.value),
            "loss": _plan_loss(fingerprint),
            "optimizer": _plan_optimizer(budget, pretrained.value),
            "lr_scheduler": _plan_schedule(),
            "tta": tta,
            "channels_last": Commented(True, "faster with mixed precision"),
        },
        "data": _plan_data(fingerprint, augmentation, scale, budget),
        "trainer": _plan_trainer(hardware, budget),
    }


def choose_batch_limit(size: list[int], hardware: Hardware) -> int:
    """Choose the largest batch to consider for patches of this size."""
    scale = _GPU if hardware.gpu else _CPU
    fitting = hardware.memory_gb * 1e9 * 0.8 / _BYTES_A_PIXEL
    return _round_to_power(min(scale.batch_pixels, fitting) / math.prod(size), 2, 32)


def count_validation_pixels(fingerprint: Fingerprint, resize: str, size: list[int], slice_size: tuple[int, int]) -> int:
    """Count the pixels that a validation on one fold predicts.

    Args:
        fingerprint: The data set in numbers; its slices are divided into five folds, or one for each patient.
        resize: `none` or `fit`.
        size: `[height, width]` of a patch, which `fit` predicts.
        slice_size: `(height, width)` of a usual slice, which `none` predicts whole.
    """
    slices = fingerprint.slices / min(MOST_FOLDS, fingerprint.groups)
    return round(slices * math.prod(size if resize == "fit" else slice_size))


def find_slice_size(fingerprint: Fingerprint, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Find the size of a validation's slice after resizing.

    Args:
        fingerprint: The data set in numbers.
        settings: Those of a plan, without comments.
    """
    model = settings["model"]
    if model["resize"] == "fit":
        return model["input_size"][0], model["input_size"][1]
    return _bring_to_spacing(fingerprint, model["spacing_mm"])[1]


def _choose_tta(moves: Mapping[str, Any]) -> Commented:
    """Choose to average over the flips that training has seen."""
    flipped = [side for side in ("horizontal", "vertical") if _get_value(moves.get(f"flip_{side}", 0.0))]
    if not flipped:
        return Commented("none", "training does not flip")
    return Commented("flips" if len(flipped) == 2 else flipped[0], "as in training")


def _get_value(value: Any) -> Any:
    return value.value if isinstance(value, Commented) else value


def _require_learnable(fingerprint: Fingerprint) -> None:
    if fingerprint.groups < 2:
        raise SettingError(
            f"The data has {count_noun(fingerprint.groups, 'patient')}; training and validation need two. Add "
            "patients, or correct data.source.group."
        )
    if not any(fingerprint.label_cases.values()):
        raise SettingError("No label is in any mask. Correct --labels, or the masks.")
    if absent := [name for name, cases in fingerprint.label_cases.items() if not cases]:
        more = f" The same of {len(absent) - 1} more." if absent[1:] else ""
        raise SettingError(
            f"The label {absent[0]!r} is in none of {count_noun(fingerprint.cases, 'mask')}.{more} "
            f"{CODES['label-never-present'].remedy}"
        )


def _plan_schedule() -> dict[str, Any]:
    warmup = Commented(0.05, "a twentieth of the run, however long")
    return {"class_path": "medseg_pl.WarmupPolynomialLR", "init_args": {"warmup_fraction": warmup}}


def _plan_data(fingerprint: Fingerprint, augmentation: dict[str, Any], scale: _Scale, budget: Budget) -> dict[str, Any]:
    # Evaluation keeps no gradients, so a batch of 2^19 pixels fits where one of training does.
    slices = _round_to_power(scale.batch_pixels / math.prod(fingerprint.sizes[2]), 1, 64)
    return {
        "fold": 0,
        "folds": Commented(
            min(MOST_FOLDS, fingerprint.groups),
            f"{count_noun(fingerprint.groups, 'patient')}, none kept for a test; split_fractions: [0.6, 0.2, 0.2] "
            "keeps a fifth",
        ),
        "batch_size": Commented(budget.batch, f"leaves {budget.steps} steps"),
        "eval_batch_size": Commented(slices, "whole slices"),
        "samples_per_epoch": Commented(budget.samples_per_epoch, f"a tenth of {budget.steps} steps"),
        "foreground_fraction": _choose_foreground_fraction(fingerprint),
        "augmentation": augmentation,
    }


def _plan_trainer(hardware: Hardware, budget: Budget) -> dict[str, Any]:
    average = {
        "class_path": Commented("medseg_pl.training.callbacks.WarmupEMA", "smoother than the last weights"),
        "init_args": {"decay": Commented(0.999 if budget.steps > 5000 else 0.99, "the last steps count")},
    }
    minutes = "1 minute" if budget.minutes == 1 else f"{budget.minutes:g} minutes"
    speed = f"{budget.speed.training / 1e6:.2g} million pixels a second: {budget.speed.source}"
    every = -(-EPOCHS // budget.validations)
    return {
        "accelerator": "auto",
        "devices": 1,
        "precision": _choose_precision(hardware),
        "max_epochs": Commented(EPOCHS, f"{budget.steps} steps in {minutes}; {speed}"),
        "max_time": Commented(
            budget.time_limit, "from the first step; ends it on a slower machine; the learning rate follows"
        ),
        "check_val_every_n_epoch": Commented(every, "validation takes at most a tenth of the time"),
        "log_every_n_steps": 10,
        "callbacks": [average],
    }


def _choose_precision(hardware: Hardware) -> Commented:
    if hardware.bf16:
        return Commented("bf16-mixed", "half the time, and no loss scaling")
    if hardware.gpu:
        return Commented("16-mixed", "half the time; this GPU has no bf16")
    return Commented("32-true", "this processor has no bf16, and imitates it several times slower")


def _choose_spacing(fingerprint: Fingerprint, scale: _Scale) -> Commented:
    if fingerprint.spacing_mm is None:
        return Commented(None, "the images do not say it")
    _, y, x = fingerprint.spacing_mm
    if (reason := _find_reason_to_shrink(fingerprint, scale)) is not None:
        factor = max(fingerprint.sizes[1]) / scale.patch
        return Commented([round(y * factor, 3), round(x * factor, 3)], f"whole slices fit: {reason}")
    if fingerprint.spacing_varies <= 1.1:
        return Commented(None, "alike in nearly all cases: pixels stay as they are")
    reason = f"the median; pixels differ by a factor of {fingerprint.spacing_varies:.1f} between cases"
    return Commented([round(y, 3), round(x, 3)], reason)


def _bring_to_spacing(fingerprint: Fingerprint, spacing: list[float] | None) -> tuple[tuple[int, int], ...]:
    """Return the sizes of slices on the planned grid."""
    if spacing is None or fingerprint.spacing_mm is None:
        return fingerprint.sizes
    _, y, x = fingerprint.spacing_mm
    return tuple((max(1, round(h * y / spacing[0])), max(1, round(w * x / spacing[1]))) for h, w in fingerprint.sizes)


def _find_reason_to_shrink(fingerprint: Fingerprint, scale: _Scale) -> str | None:
    """Explain why images larger than a patch are made smaller.

    `None` where crops of their pixels are better.
    """
    factor = max(fingerprint.sizes[1]) / scale.patch
    if factor <= 1 or not fingerprint.objects:
        return None
    large, size = find_thickest(fingerprint.objects)
    _, thinnest = find_thinnest(fingerprint.objects)
    if size.reach_share < _LARGE or thinnest.thickness_pixels / factor < _THIN:
        return None
    return f"{large} reaches over {size.reach_share:.0%} of an image, of which crops show a part"


def _describe_objects(fingerprint: Fingerprint) -> str:
    """Describe why native pixels matter."""
    if not fingerprint.objects:
        return "no object was measured"
    name, size = find_thinnest(fingerprint.objects)
    return f"{size.describe_thickness(name)}, in {count_noun(size.count, 'part')} of a slice"


def _choose_encoder_depth(slice_size: tuple[int, int], scale: _Scale) -> Commented:
    shorter = min(*slice_size, scale.patch)
    # At least about 4 pixels remain at the bottom; fewer carry no layout.
    depth = min(5, max(3, int(math.log2(shorter / 4))))
    return Commented(depth, f"{shorter} pixels become about {max(1, shorter >> depth)} at the bottom")


def _choose_resize(
    fingerprint: Fingerprint,
    sizes: tuple[tuple[int, int], ...],
    spacing: list[float] | None,
    multiple: int,
    scale: _Scale,
) -> tuple[Commented, Commented]:
    low, middle, high = sizes
    unlike = max(high[0] / low[0], high[1] / low[1])
    reason = None
    if fingerprint.spacing_mm is None:
        reason = _find_reason_to_shrink(fingerprint, scale)
        if reason is None and unlike > 2:
            reason = f"sizes differ by a factor of {unlike:.1f} and no spacing tells why"
    if reason is not None:
        factor = max(1.0, max(middle) / scale.patch)
        side = [-(-round(length / factor) // multiple) * multiple for length in middle]
        return Commented("fit", reason), Commented(side, "whole images, proportions kept")
    side = [min(scale.patch, -(-length // multiple) * multiple) for length in middle]
    whole = all(length <= part for length, part in zip(middle, side, strict=True))
    kept = "pixels are resampled to spacing_mm" if spacing else f"pixels as they are: {_describe_objects(fingerprint)}"
    what = "whole slices, padded; larger ones are cropped" if whole else f"crops of slices of {middle[0]} x {middle[1]}"
    return Commented("none", kept), Commented(side, what)


def find_reason_to_pretrain(fingerprint: Fingerprint) -> str:
    """Say why weights that have seen other images help; empty where they do not."""
    if fingerprint.channels == 3 and fingerprint.depth == 1:
        return "images of three channels"
    return f"only {_describe_patients(fingerprint)}" if fingerprint.groups < _FEW else ""


def _choose_weights(fingerprint: Fingerprint, scale: _Scale, weights: Collection[str]) -> Commented:
    reason = find_reason_to_pretrain(fingerprint)
    if not reason:
        return Commented(None, f"{_describe_patients(fingerprint)} of gray images teach an encoder by themselves")
    if scale.pretrained in weights:
        return Commented(f"medseg:{scale.pretrained}", f"ImageNet: {reason}")
    return Commented(None, f"would help ({reason}): pip install 'medseg[pretrained]' and plan again")


def _describe_patients(fingerprint: Fingerprint) -> str:
    # One of each case may be known, or none at all.
    return count_noun(fingerprint.groups, "case" if fingerprint.groups == fingerprint.cases else "patient")


def _plan_network(scale: _Scale, depth: Commented, fingerprint: Fingerprint, pretrained: Commented) -> dict[str, Any]:
    channels = [max(16, 256 >> level) for level in range(5 - depth.value, 5)]
    encoder = Commented(
        scale.encoder, f"for {count_noun(fingerprint.slices, 'slice')} on a {'GPU' if scale is _GPU else 'CPU'}"
    )
    if pretrained.value is not None:
        encoder = Commented(f"tu-tf_{scale.pretrained}", "small, and its pretrained weights are installed")
        if scale is _CPU:  # a decoder as light as the encoder
            channels = [max(16, 128 >> level) for level in range(5 - depth.value, 5)]
    return {
        "class_path": "segmentation_models_pytorch.Unet",
        "init_args": {
            "encoder_name": encoder,
            "encoder_weights": Commented(None, "nothing is downloaded; see pretrained"),
            "encoder_depth": depth,
            "decoder_channels": channels,
        },
    }


def _describe_labels(labels: LabelMap) -> dict[str, Any]:
    known: dict[str, Any] = {"names": list(labels.names), "task": labels.task}
    known |= {"values": list(labels.values)} if labels.values is not None else {}
    known |= {"colors": {name: list(color) for name, color in labels.colors.items()}} if labels.colors else {}
    known |= {"tolerance": labels.tolerance} if labels.tolerance else {}
    known |= {"partial": Commented(True, "some cases are annotated for some labels alone")} if labels.partial else {}
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


def _plan_normalization(fingerprint: Fingerprint, pretrained: str | None) -> Any:
    windowed = [_is_ct(modality, low) for modality, low in zip(fingerprint.modalities, fingerprint.lowest, strict=True)]
    if not any(windowed):
        if fingerprint.channels == 3 and fingerprint.types == ("uint8",) and fingerprint.depth == 1:
            return _normalize_photographs(fingerprint, pretrained)
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


def _normalize_photographs(fingerprint: Fingerprint, pretrained: str | None) -> dict[str, Any]:
    if fingerprint.contrast_varies >= _UNEVEN and fingerprint.share_varies <= _ONE_SCENE:
        times = f"{fingerprint.contrast_varies:.1f} times"
        return _plan_z_scores(f"photographs of one scene differ {times} in contrast: per case and channel")
    if pretrained is not None:
        return {"class_path": Commented(_NORMALIZATIONS + "MeanStd", "the statistics of the pretrained weights")}
    kind = Commented(_NORMALIZATIONS + "MeanStd", "photographs: the statistics of ImageNet")
    return {"class_path": kind, "init_args": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}


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
    if share >= _RARE:
        reason = f"the rarest label, {rarest}, is {share:.1%} of the voxels"
        return {"class_path": Commented("medseg_pl.DiceCELoss", reason)}
    reason = f"{rarest} is {share:.1e} of the voxels: a term in which misses weigh more than false alarms"
    terms = [{"class_path": "medseg_pl.DiceCELoss"}, {"class_path": Commented("medseg_pl.FocalTverskyLoss", reason)}]
    return {"class_path": "medseg_pl.WeightedSum", "init_args": {"losses": terms, "weights": [1.0, 0.5]}}


def _plan_optimizer(budget: Budget, pretrained: str | None) -> dict[str, Any]:
    if pretrained is None:
        rate = Commented(3e-3 if budget.batch >= 8 else 2e-3, f"for a batch of {budget.batch}")
    elif budget.steps < _FEW_STEPS:
        rate = Commented(3e-3, f"{budget.steps} steps are few: the decoder is random at first")
    else:
        rate = Commented(1e-3, "gentle on pretrained weights")
    return {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": rate, "weight_decay": 0.01, "fused": True},
    }


def _choose_foreground_fraction(fingerprint: Fingerprint) -> Commented:
    share = sum(fingerprint.label_shares.values())
    if share > 0.05:
        return Commented(0.33, f"labels fill {share:.0%} of the voxels")
    return Commented(0.5, f"labels fill only {share:.1%} of the voxels")


def _round_to_power(value: float, low: int, high: int) -> int:
    return min(high, max(low, 1 << max(0, int(math.log2(max(1.0, value))))))
