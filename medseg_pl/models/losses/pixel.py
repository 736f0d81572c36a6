"""Losses of single pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE
from medseg_pl.core.recorded import Recorded


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
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Float[Tensor, "b k ..."], target: Tensor) -> Float[Tensor, ""]:
        """The loss of `(B, K, ...)` logits; the target as `LabelMap.target` gives it."""
        logits, valid = logits.float(), target != IGNORE
        if target.ndim < logits.ndim:
            losses = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        else:
            known = target.where(valid, target.new_zeros(())).to(logits.dtype)
            losses = F.binary_cross_entropy_with_logits(logits, known, reduction="none")
        if self.focus:
            # exp(-loss) is the probability of the right answer; the root of 0 has no gradient.
            losses = losses * (1 - torch.exp(-losses)).clamp(min=1e-7) ** self.focus
        if self.weights is not None:
            losses = losses * _pixel_weights(self.weights, logits, target)
        return (losses * valid).sum() / valid.sum().clamp(min=1)


def _pixel_weights(weights: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """The factor of the class of each pixel, or of each channel."""
    if len(weights) != logits.shape[1]:
        raise SettingError(
            f"PixelCELoss has {len(weights)} weights for the {logits.shape[1]} classes of the network. Give "
            "model.loss one weight for each label, and one for the background first where labels exclude each other."
        )
    if target.ndim < logits.ndim:
        return weights[target.where(target != IGNORE, target.new_zeros(()))]
    return weights.view(1, -1, *([1] * (logits.ndim - 2)))
