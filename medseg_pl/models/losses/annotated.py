"""Losses restricted to annotated pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg_pl.core.labels import IGNORE


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
        pairs = [(logits[sample], target[sample]) for sample in samples]
        losses = [self.loss(*part) for pair in pairs for part in _annotated_parts(*pair)]
        # The sum of no logit is 0, and has a gradient: every process of a training needs one.
        return torch.stack(losses).mean() if losses else logits[:0].float().sum()


def _annotated_parts(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
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
