"""Losses `nn.Module(logits, target)`, their restriction to annotated pixels, and the check before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap, prepare_loss_inputs
from medseg_pl.core.validation import Recorded

__all__ = ["DiceCELoss", "DiceLoss", "FocalTverskyLoss", "PixelCELoss", "WeightedSum"]

_LOSS_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""Exceptions of losses for shapes, types and values that they do not take."""


class FocalTverskyLoss(Recorded, nn.Module):
    r"""One minus the Tversky index, to a power that lets hard labels weigh more.

    For each class $c$, with sums over the pixels of the whole batch (or of each sample),

    $$T_c = \frac{TP_c + \epsilon}{TP_c + \alpha FP_c + \beta FN_c + \epsilon},
      \qquad L = \operatorname{mean}_c (1 - T_c)^{\gamma}.$$

    An empty reference gives a loss for every false positive: the constant keeps it small, not zero.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives; above `alpha` it favors recall.
        gamma: Below 1, labels that are found badly weigh more.
        batch: Whether a class is summed over the batch, which is steadier when many samples lack it.
        background: Whether the background counts as a class, where there is one.
        smooth: The constant, in pixels.

    References:
        Salehi et al., "Tversky loss function", MLMI 2017; Abraham and Khan, "A novel focal Tversky loss", ISBI 2019.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        batch: bool = True,
        background: bool = False,
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.batch = batch
        self.background = background
        self.smooth = smooth

    def forward(self, logits: Float[Tensor, "b k ..."], target: Tensor) -> Float[Tensor, ""]:
        """Compute the loss.

        Args:
            logits: `(B, K, ...)`.
            target: As `LabelMap.target` gives it.
        """
        # Sums over a quarter of a million pixels do not fit into half precision.
        probabilities, one_hot, valid = prepare_loss_inputs(logits.float(), target)
        if target.ndim < logits.ndim and not self.background:
            probabilities, one_hot = probabilities[:, 1:], one_hot[:, 1:]
        probabilities = probabilities * valid
        axes = ([0] if self.batch else []) + list(range(2, logits.ndim))
        true_positives = (probabilities * one_hot).sum(axes)
        false_positives = probabilities.sum(axes) - true_positives
        false_negatives = one_hot.sum(axes) - true_positives
        weighted = true_positives + self.alpha * false_positives + self.beta * false_negatives
        tversky = (true_positives + self.smooth) / (weighted + self.smooth)
        loss = 1 - tversky
        return (loss if self.gamma == 1 else loss.clamp(min=1e-7) ** self.gamma).mean()


class DiceLoss(FocalTverskyLoss):
    r"""One minus soft Dice: the Tversky index with $\alpha = \beta = 1/2$.

    Args:
        batch: Whether a class is summed over the batch, which is steadier when many samples lack it.
        background: Whether the background counts as a class, where there is one.
        smooth: The constant that stands for an empty class, in pixels.

    References:
        Milletari et al., "V-Net", 3DV 2016.
    """

    def __init__(self, batch: bool = True, background: bool = False, smooth: float = 1.0) -> None:
        super().__init__(alpha=0.5, beta=0.5, gamma=1.0, batch=batch, background=background, smooth=smooth)


class PixelCELoss(Recorded, nn.Module):
    """Cross-entropy where labels exclude each other, binary cross-entropy for each label elsewhere.

    The mean over the pixels that are not ignored; zero where all are.

    Args:
        weights: One factor for each class, the background first where there is one.
        focus: The exponent of the focal loss, `(1 - p)^focus`; 0 is plain cross-entropy.

    Raises:
        SettingError: In the first step, where weights and classes differ in number.

    References:
        Lin et al., "Focal loss for dense object detection", ICCV 2017.
    """

    def __init__(self, weights: Sequence[float] | None = None, focus: float = 0.0) -> None:
        super().__init__()
        self.focus = focus
        self.weights: Tensor | None
        # A setting that moves with the device: a checkpoint loads where it was changed.
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Float[Tensor, "b k ..."], target: Tensor) -> Float[Tensor, ""]:
        """Compute the loss.

        Args:
            logits: `(B, K, ...)`.
            target: As `LabelMap.target` gives it.
        """
        logits, valid = logits.float(), target != IGNORE
        if target.ndim < logits.ndim:
            losses = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        else:
            zeroed = target.where(valid, target.new_zeros(())).to(logits.dtype)
            losses = F.binary_cross_entropy_with_logits(logits, zeroed, reduction="none")
        if self.focus:
            # exp(-loss) is the probability of the right answer; the root of 0 has no gradient.
            losses = losses * (1 - torch.exp(-losses)).clamp(min=1e-7) ** self.focus
        if self.weights is not None:
            losses = losses * _select_weights(self.weights, logits, target)
        return (losses * valid).sum() / valid.sum().clamp(min=1)


def _select_weights(weights: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Select the factor of each pixel's class, or of each channel."""
    if len(weights) != logits.shape[1]:
        raise SettingError(
            f"PixelCELoss has {len(weights)} weights for the {logits.shape[1]} classes of the network. Give "
            "model.loss one weight for each label, and one for the background first where labels exclude each other."
        )
    if target.ndim < logits.ndim:
        return weights[target.where(target != IGNORE, target.new_zeros(()))]
    return weights.view(1, -1, *([1] * (logits.ndim - 2)))


class WeightedSum(Recorded, nn.Module):
    """A weighted sum of any losses.

    Args:
        losses: The terms.
        weights: One factor for each; all 1 by default.

    Raises:
        SettingError: Terms and weights differ in number.
    """

    def __init__(self, losses: list[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        factors = list(weights) if weights is not None else [1.0] * len(losses)
        if not losses or len(factors) != len(losses):
            raise SettingError(f"A weighted sum needs one weight for each loss; got {len(losses)} and {len(factors)}.")
        self.losses = nn.ModuleList(losses)
        self.weights = factors

    def forward(self, logits: Float[Tensor, "b k ..."], target: Tensor) -> Float[Tensor, ""]:
        """Add the weighted terms; the target as `LabelMap.target` gives it."""
        terms = [weight * loss(logits, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


class DiceCELoss(WeightedSum):
    """Dice and cross-entropy: regions of any size count, and every pixel has a gradient.

    Args:
        dice_weight: Factor of the Dice loss.
        ce_weight: Factor of the (binary) cross-entropy.
        batch: Whether Dice is summed over the batch, which is steadier when many samples lack a label.
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0, batch: bool = True) -> None:
        super().__init__([DiceLoss(batch=batch), PixelCELoss()], [dice_weight, ce_weight])


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
        """Average the loss over all parts that have an annotated pixel; 0 without any.

        Args:
            logits: `(B, K, ...)`.
            target: As `LabelMap.target` gives it.
        """
        samples = [slice(i, i + 1) for i in range(len(logits))] if self.by_sample else [slice(None)]
        losses = [self.loss(*part) for sample in samples for part in _iterate_annotated(logits[sample], target[sample])]
        # The sum of no logit is 0, and has a gradient: every process of a training needs one.
        return torch.stack(losses).mean() if losses else logits[:0].float().sum()


def _iterate_annotated(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits `(1, K, 1, n)` with their target; a pair for each label where labels may overlap."""
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
    """Return the loss, restricted to annotated pixels where it does not do so itself.

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
    """Compute the loss once on background, and check that it skips ignored pixels.

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


def _is_blind_to_ignored(loss: nn.Module, labels: LabelMap) -> bool:
    """Check that ignored pixels have no gradient, no influence, and no share in a mean."""
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


def _has_no_influence(loss: nn.Module, logits: Tensor, target: Tensor) -> bool:
    """Check that neither value nor gradient comes from the ignored pixels of a target."""
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
    """Make logits and a stored mask of two images, in the second of which labels are rarer."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, labels.classes, 16, 16, generator=generator)
    shape = (2, labels.mask_channels, 16, 16)
    highest = 2 if labels.overlapping else len(labels.names) + 1
    mask = torch.randint(highest, shape, generator=generator, dtype=torch.uint8)
    mask[1] *= torch.rand(shape[1:], generator=generator) < 0.3
    return logits, mask
