"""Encoders by name: those that exist, the nearest to a file's weights, and the input that they were trained on."""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor

from medseg_pl.models.normalization import IMAGENET, InputStatistics

_TIMM_NAMES = {
    "xception": "legacy_xception",
    "inceptionv4": "inception_v4",
    "inceptionresnetv2": "inception_resnet_v2",
}
"""smp's encoders whose images are prepared otherwise than ImageNet's usual ones, as timm calls them."""

# A part of a layer's name that tells the family, and its members as timm calls them; the first that fits counts.
_FAMILIES = (
    (r"\blayer1\.0\.se\b", ("seresnet18", "seresnet34", "seresnet50")),
    (
        r"\blayer1\.0\.conv1\b",
        (
            *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
            *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "resnest50d", "res2net50_26w_4s"),
        ),
    ),
    (
        r"\b_?blocks\.0\.(0\.)?(_depthwise_conv|conv_dw|_expand_conv)\b",
        (
            *("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"),
            *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
            *("mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv2_100"),
        ),
    ),
    (r"\bfeatures\.1\.conv\.0\.0\b", ("mobilenetv2_100",)),
    (r"\bfeatures\.1\.0\.block\b", ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "convnext_tiny")),
    (r"\bdenseblock1\b", ("densenet121", "densenet169", "densenet201", "densenet161")),
    (r"\blayers[._]0\.blocks\b", ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224")),
    (r"\bstages[._]0\.blocks\.0\.conv_dw\b", ("convnext_tiny", "convnext_small", "convnext_base")),
    (r"\bs1\.b1\b", ("regnetx_002", "regnety_002", "regnety_008", "regnety_032")),
    (r"\bblocks\.0\.attn\.qkv\b", ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")),
    (r"\bfeatures\.0\b", ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")),
)
_ENOUGH = 0.5

Shapes: TypeAlias = Counter[tuple[int, ...]]


def list_encoders() -> list[str]:
    """List all encoder names: smp's, and timm's with `tu-` in front."""
    return [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]


def suggest_encoders(name: str) -> list[str]:
    """List the encoders whose names are most like a misspelled one."""
    return difflib.get_close_matches(name, list_encoders(), n=3, cutoff=0.5)


def find_input_statistics(encoder: str | None, weights: str | None = None) -> InputStatistics:
    """Find mean and standard deviation of an encoder's pretraining images.

    Args:
        encoder: As `encoder_name` has it; ImageNet's statistics are those of encoders that timm does not know.
        weights: As `encoder_weights` has them.

    >>> find_input_statistics("tu-tf_efficientnet_lite0").mean, find_input_statistics("resnet18").mean
    ((0.5, 0.5, 0.5), (0.485, 0.456, 0.406))
    """
    if weights == "advprop":  # trained on images from -1 to 1
        return InputStatistics((0.5,) * 3, (0.5,) * 3)
    bare = re.sub(r"^(tu|timm)-", "", encoder or "")
    config = timm.get_pretrained_cfg(_TIMM_NAMES.get(bare, bare)) if bare else None
    if config is None:
        return IMAGENET
    return InputStatistics(tuple(config.mean), tuple(config.std))


def find_nearest_encoder(weights: Mapping[str, Tensor]) -> str | None:
    """Find the common encoder whose layers have the shapes of stored weights.

    Returns:
        Its name as a setting has it; `None` where no encoder shares half of the shapes.
    """
    names = "\n".join(weights)
    candidates = next((members for mark, members in _FAMILIES if re.search(mark, names)), ())
    ours = _count_shapes(weights)
    best, most = None, _ENOUGH
    for name in candidates:
        score = _compare_shapes(ours, _count_encoder_shapes(name))
        best, most = (name, score) if score >= most else (best, most)
        if score == 1:
            break
    return best if best is None or best in smp.encoders.get_encoder_names() else f"tu-{best}"


@functools.cache
def _count_encoder_shapes(name: str) -> Shapes:
    with torch.device("meta"):
        return _count_shapes(timm.create_model(name).state_dict())


def _count_shapes(weights: Mapping[str, Tensor]) -> Shapes:
    """Count the shapes of convolutions except the first, whose channels differ."""
    return Counter(tuple(value.shape) for value in [*weights.values()][1:] if value.ndim == 4)


def _compare_shapes(ours: Shapes, theirs: Shapes) -> float:
    return (ours & theirs).total() / max((ours | theirs).total(), 1)
