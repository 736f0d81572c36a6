"""Losses `nn.Module(logits, target)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, prepare_loss_inputs
from medseg_pl.core.validation import Recorded

__all__ = ["DiceCELoss", "DiceLoss", "FocalTverskyLoss", "PixelCELoss", "WeightedSum"]


class FocalTverskyLoss(Recorded, nn.Module):
    r"""One minus the Tversky index, to a power.

    The power lets hard labels weigh more. For each class $c$, with sums over the pixels of the whole batch (or of each
    sample),

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
    r"""One minus soft Dice.

    It is the Tversky loss with $\alpha = \beta = 1/2$.

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
    """Cross-entropy, binary for each label where labels may overlap.

    It is the mean over the pixels that are not ignored, and zero where all are.

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
        """Add the weighted terms.

        Args:
            logits: `(B, K, ...)`.
            target: As `LabelMap.target` gives it.
        """
        terms = [weight * loss(logits, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


class DiceCELoss(WeightedSum):
    """Sum of Dice and cross-entropy.

    Regions of any size count, and every pixel has a gradient.

    Args:
        dice_weight: Factor of the Dice loss.
        ce_weight: Factor of the (binary) cross-entropy.
        batch: Whether Dice is summed over the batch, which is steadier when many samples lack a label.
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0, batch: bool = True) -> None:
        super().__init__([DiceLoss(batch=batch), PixelCELoss()], [dice_weight, ce_weight])
