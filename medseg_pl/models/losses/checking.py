"""Checks of a loss before training: does it fit the task, and does it leave ignored pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.models.losses.annotated import AnnotatedLoss
from medseg_pl.models.losses.compound import WeightedSum

_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What losses raise for shapes, types and values that they do not take."""


def exclude_ignored(loss: nn.Module, labels: LabelMap) -> nn.Module:
    """Return the loss, restricted to annotated pixels where it does not do so itself.

    Args:
        loss: Takes logits and target.
        labels: Say whether masks can hold ignored voxels; without any the loss is returned as it is.

    Returns:
        The loss itself where `check_loss` accepts it, else a loss with the same values on fully annotated masks; the
        loss itself too where there is none.
    """
    if not labels.has_ignored or _skips_ignored(loss, labels):
        return loss
    if type(loss) is WeightedSum:
        return WeightedSum([exclude_ignored(term, labels) for term in loss.losses], loss.weights)
    for by_sample in (False, True):
        annotated = AnnotatedLoss(loss, by_sample)
        if _are_equal_if_annotated(annotated, loss, labels) and _skips_ignored(annotated, labels):
            return annotated
    return loss


def check_loss(loss: nn.Module, labels: LabelMap) -> None:
    """Compute the loss once on background, and prove that ignored pixels have no part in it.

    Raises:
        SettingError: It cannot be computed, is not one number, or depends on ignored pixels.
    """
    name = type(loss).__name__
    logits = torch.zeros(2, labels.classes, 16, 16)
    mask = torch.zeros(2, labels.mask_channels, 16, 16, dtype=torch.uint8)
    try:
        value = loss(logits, labels.target(mask))
    except _FAULTS as error:
        raise SettingError(
            f"model.loss {name} cannot be computed for the task {labels.task} with {labels.classes} "
            f"logits: {' '.join(str(error).split())[:200]}. Set a loss, or its mode, that fits the task."
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        raise SettingError(f"model.loss {name} must return one number, a tensor without axes.")
    if labels.has_ignored and not _skips_ignored(loss, labels):
        raise SettingError(
            f"model.loss {name} counts voxels that labels.ignore_value leaves out. Use "
            "medseg_pl.models.losses.DiceCELoss, or a loss that treats all pixels and all labels alike."
        )


def _skips_ignored(loss: nn.Module, labels: LabelMap) -> bool:
    """Whether ignored pixels have no gradient, no influence, and no share in a mean."""
    logits, mask = _random_sample(labels)
    halved, scattered = mask.clone(), mask.clone()
    halved[..., 8:] = IGNORE
    scattered[torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = IGNORE
    left, left_mask = logits[..., :8].contiguous(), mask[..., :8].contiguous()
    try:
        masks = (scattered, halved, torch.full_like(mask, IGNORE))
        blind = all(_is_blind(loss, logits, labels.target(each)) for each in masks)
        with torch.no_grad():
            whole, half = loss(logits, labels.target(halved)), loss(left, labels.target(left_mask))
    except _FAULTS:
        return False
    return blind and _are_close(whole, half)


def _is_blind(loss: nn.Module, logits: Tensor, target: Tensor) -> bool:
    """Whether neither value nor gradient comes from ignored pixels."""
    ignored = target == IGNORE if target.ndim == logits.ndim else (target == IGNORE).unsqueeze(1).expand_as(logits)
    given = logits.clone().requires_grad_()
    with torch.enable_grad():
        value = loss(given, target)
        (gradient,) = torch.autograd.grad(value, given, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        other = loss(torch.where(ignored, 7 - 2 * logits, logits), target)
    silent = bool(torch.isfinite(gradient).all()) and not bool(gradient[ignored].any())
    return silent and bool(torch.isfinite(value)) and _are_close(value, other)


def _are_equal_if_annotated(first: nn.Module, second: nn.Module, labels: LabelMap) -> bool:
    logits, mask = _random_sample(labels)
    target = labels.target(mask)
    try:
        with torch.no_grad():
            return _are_close(first(logits, target), second(logits, target))
    except _FAULTS:
        return False


def _are_close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first.detach().float(), second.detach().float(), rtol=1e-4, atol=1e-6)


def _random_sample(labels: LabelMap) -> tuple[Tensor, Tensor]:
    """Make logits and a stored mask of two images, in the second of which labels are rarer."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, labels.classes, 16, 16, generator=generator)
    shape = (2, labels.mask_channels, 16, 16)
    highest = 2 if labels.overlapping else len(labels.names) + 1
    mask = torch.randint(highest, shape, generator=generator, dtype=torch.uint8)
    mask[1] *= torch.rand(shape[1:], generator=generator) < 0.3
    return logits, mask
