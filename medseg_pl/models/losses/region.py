"""Losses of regions: soft versions of overlap scores."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from medseg_pl.core.labels import probabilities_and_one_hot
from medseg_pl.core.recorded import Recorded


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
        """The loss of `(B, K, ...)` logits; the target as `LabelMap.target` gives it."""
        # Sums over a quarter of a million pixels do not fit into half precision.
        probabilities, one_hot, valid = probabilities_and_one_hot(logits.float(), target)
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
