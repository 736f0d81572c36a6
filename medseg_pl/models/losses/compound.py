"""Losses made of losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.recorded import Recorded
from medseg_pl.models.losses.pixel import PixelCELoss
from medseg_pl.models.losses.region import DiceLoss


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
        """The sum; the target as `LabelMap.target` gives it."""
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
