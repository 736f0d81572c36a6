"""What losses leave out: pixels that nobody annotated, labels that were not looked for; and the check of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.models.losses import WeightedSum

_LOSS_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""Exceptions of losses for shapes, types and values that they do not take."""

_IMPOSSIBLE = -1e4
"""A logit whose probability is 0; infinity times that 0 would be no number."""


def leave_out_labels(logits: Tensor, target: Tensor, annotated: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Leave out of a loss the labels without annotation in a sample.

    A label that may overlap others is ignored there. Where labels exclude each other, what is marked as background may
    be any label $s \in S$ that was not annotated, so that their probabilities are added:

    $$p'_0 = p_0 + \sum_{s \in S} p_s, \qquad p'_s = 0.$$

    Every loss of these probabilities thereby becomes a marginal one: it asks nothing of the labels in $S$ but that they
    lie where no other label is.

    Args:
        logits: `(B, K, ...)`.
        target: As `LabelMap.target` gives it, without a voxel of the labels that are left out.
        annotated: `(B, N)`, whether each label was annotated; `None` where all were.

    Returns:
        Logits and target for the loss.

    References:
        Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation", Medical Image
        Analysis 70, 2021.
    """
    if annotated is None:
        return logits, target
    missing = ~annotated.view(*annotated.shape, *([1] * (logits.ndim - 2)))
    if target.ndim == logits.ndim:
        return logits, target.masked_fill(missing, IGNORE)
    # A sum of exponentials in half precision would overflow.
    background, others = logits[:, :1].float(), logits[:, 1:].float()
    merged = torch.cat([background, others.masked_fill(~missing, -torch.inf)], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([merged, others.masked_fill(missing, _IMPOSSIBLE)], dim=1), target


class AnnotatedLoss(nn.Module):
    """Any loss, computed on the annotated pixels alone.

    Ignored pixels are removed from logits and target before the loss sees them, so they carry no gradient and no share
    of a sum or a mean. The loss gets the other pixels as one row, `(1, K, 1, n)`, so it must not depend on where a
    pixel lies. Labels that may overlap come one by one, each with its own annotated pixels, and are averaged.

    Args:
        loss: Takes logits and target.
        by_sample: Whether the loss takes the mean over samples, so that each sample is given by itself.
    """

    def __init__(self, loss: nn.Module, by_sample: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.by_sample = by_sample

    def forward(self, logits: Float[Tensor, "b k ..."], target: Tensor) -> Float[Tensor, ""]:
        """Average the loss over all parts with an annotated pixel.

        Args:
            logits: `(B, K, ...)`.
            target: As `LabelMap.target` gives it.

        Returns:
            0 without any annotated pixel.
        """
        samples = [slice(i, i + 1) for i in range(len(logits))] if self.by_sample else [slice(None)]
        losses = [self.loss(*part) for sample in samples for part in _iterate_annotated(logits[sample], target[sample])]
        # The sum of no logit is 0, and has a gradient: every process of a training needs one.
        return torch.stack(losses).mean() if losses else logits[:0].float().sum()


def _iterate_annotated(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits `(1, K, 1, n)` with their target.

    Labels that may overlap have a pair each.
    """
    if target.ndim < logits.ndim:
        valid = target != IGNORE
        if valid.any():
            yield logits.movedim(1, -1)[valid].T[None, :, None], target[valid][None, None]
        return
    for label in range(logits.shape[1]):
        valid = target[:, label] != IGNORE
        if valid.any():
            yield logits[:, label][valid][None, None, None], target[:, label][valid][None, None, None]


def exclude_ignored(loss: nn.Module, labels: LabelMap) -> nn.Module:
    """Restrict a loss to annotated pixels unless it does so itself.

    Args:
        loss: Takes logits and target.
        labels: Tell whether masks can hold ignored voxels; without any the loss is returned as it is.

    Returns:
        The loss itself where `check_loss` accepts it, or where no restriction of it has the same values on fully
        annotated masks; else that restriction.
    """
    if not labels.has_ignored or _is_blind_to_ignored(loss, labels):
        return loss
    if type(loss) is WeightedSum:
        return WeightedSum([exclude_ignored(term, labels) for term in loss.losses], loss.weights)
    for by_sample in (False, True):
        annotated = AnnotatedLoss(loss, by_sample)
        if _is_equal_if_annotated(annotated, loss, labels) and _is_blind_to_ignored(annotated, labels):
            return annotated
    return loss


def check_loss(loss: nn.Module, labels: LabelMap) -> None:
    """Check on a background image that a loss skips ignored pixels.

    Raises:
        SettingError: It cannot be computed, is not one number, or depends on ignored pixels.
    """
    name = type(loss).__name__
    logits = torch.zeros(2, labels.classes, 16, 16)
    mask = torch.zeros(2, labels.mask_channels, 16, 16, dtype=torch.uint8)
    try:
        value = loss(logits, labels.target(mask))
    except _LOSS_ERRORS as error:
        raise SettingError(
            f"model.loss {name} cannot be computed for the task {labels.task} with {labels.classes} "
            f"logits: {' '.join(str(error).split())[:200]}. Set a loss, or its mode, that fits the task."
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        raise SettingError(f"model.loss {name} must return one number, a tensor without axes.")
    if labels.has_ignored and not _is_blind_to_ignored(loss, labels):
        raise SettingError(
            f"model.loss {name} counts voxels that labels.ignore_value leaves out. Use medseg_pl.DiceCELoss, or a "
            "loss that treats all pixels and all labels alike."
        )
    if labels.partial and labels.task == "multiclass" and not _is_blind_to_absent(loss, labels):
        raise SettingError(
            f"model.loss {name} counts labels that were not looked for (labels.partial). Use medseg_pl.DiceCELoss, or "
            "a loss of the softmax of its logits."
        )


def check_soft_targets(loss: nn.Module, labels: LabelMap) -> None:
    """Check that a loss takes the mean of several raters.

    Such a target lies between 0 and 1.

    Raises:
        SettingError: Labels exclude each other, or the loss rounds what is between 0 and 1, or refuses it.
    """
    name = type(loss).__name__
    if labels.task == "multiclass":
        raise SettingError(
            "data.rater mean needs a target between 0 and 1 for each label, but labels that exclude each other have "
            "one class at each voxel. Set data.rater to random, or labels.task to multilabel."
        )
    logits, mask = _make_random_sample(labels)
    hard = labels.target(mask)
    try:
        with torch.no_grad():
            soft, low, high = (loss(logits, target) for target in (hard / 2, torch.zeros_like(hard), hard))
    except _LOSS_ERRORS:
        soft = low = high = torch.zeros(())
    if not torch.isfinite(soft) or _is_close(soft, low) or _is_close(soft, high):
        raise SettingError(
            f"model.loss {name} takes no soft target, the mean of raters. Use medseg_pl.DiceCELoss, or set data.rater "
            "to random."
        )


def _is_blind_to_ignored(loss: nn.Module, labels: LabelMap) -> bool:
    """Tell whether ignored pixels have no gradient, influence or share."""
    logits, mask = _make_random_sample(labels)
    halved, scattered = mask.clone(), mask.clone()
    halved[..., 8:] = IGNORE
    scattered[torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = IGNORE
    left, left_mask = logits[..., :8].contiguous(), mask[..., :8].contiguous()
    try:
        masks = (scattered, halved, torch.full_like(mask, IGNORE))
        is_blind = all(_has_no_influence(loss, logits, labels.target(each)) for each in masks)
        with torch.no_grad():
            whole, half = loss(logits, labels.target(halved)), loss(left, labels.target(left_mask))
    except _LOSS_ERRORS:
        return False
    return is_blind and _is_close(whole, half)


def _is_blind_to_absent(loss: nn.Module, labels: LabelMap) -> bool:
    """Tell whether an absent label leaves a loss finite at any logit."""
    logits, mask = _make_random_sample(labels)
    annotated = torch.ones(len(logits), len(labels.names), dtype=torch.bool)
    annotated[0, 0] = False
    mask[0][mask[0] == 1] = 0
    inputs = logits.requires_grad_()
    with torch.enable_grad():
        merged, target = leave_out_labels(inputs, labels.target(mask), annotated)
        value = loss(merged, target)
        (gradient,) = torch.autograd.grad(value, inputs)
    with torch.no_grad():
        lower = loss(torch.where(merged == _IMPOSSIBLE, 2 * merged, merged), target)
    return bool(torch.isfinite(value) and torch.isfinite(gradient).all()) and _is_close(value, lower)


def _has_no_influence(loss: nn.Module, logits: Tensor, target: Tensor) -> bool:
    """Tell whether ignored pixels change neither value nor gradient."""
    ignored = target == IGNORE if target.ndim == logits.ndim else (target == IGNORE).unsqueeze(1).expand_as(logits)
    inputs = logits.clone().requires_grad_()
    with torch.enable_grad():
        value = loss(inputs, target)
        (gradient,) = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        other = loss(torch.where(ignored, 7 - 2 * logits, logits), target)
    has_no_gradient = bool(torch.isfinite(gradient).all()) and not bool(gradient[ignored].any())
    return has_no_gradient and bool(torch.isfinite(value)) and _is_close(value, other)


def _is_equal_if_annotated(first: nn.Module, second: nn.Module, labels: LabelMap) -> bool:
    logits, mask = _make_random_sample(labels)
    target = labels.target(mask)
    try:
        with torch.no_grad():
            return _is_close(first(logits, target), second(logits, target))
    except _LOSS_ERRORS:
        return False


def _is_close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first.detach().float(), second.detach().float(), rtol=1e-4, atol=1e-6)


def _make_random_sample(labels: LabelMap) -> tuple[Tensor, Tensor]:
    """Make logits and masks of two images, the second with rarer labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, labels.classes, 16, 16, generator=generator)
    shape = (2, labels.mask_channels, 16, 16)
    highest = 2 if labels.overlapping else len(labels.names) + 1
    mask = torch.randint(highest, shape, generator=generator, dtype=torch.uint8)
    mask[1] *= torch.rand(shape[1:], generator=generator) < 0.3
    return logits, mask
