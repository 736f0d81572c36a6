"""Weights for other inputs and outputs: stems for other channels and slices, heads for other labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from medseg_pl.core.labels import Task


class Classes(NamedTuple):
    """Meaning of a segmentation head's rows.

    Attributes:
        names: The labels.
        task: With a row for the background in front where it is `multiclass`.
    """

    names: Sequence[str]
    task: Task

    @property
    def has_background(self) -> bool:
        """Whether the first row is that of the background."""
        return self.task == "multiclass"

    def find_row(self, name: str) -> int:
        """Return the row of a label."""
        return list(self.names).index(name) + self.has_background


class Input(NamedTuple):
    """Meaning of a network's input channels.

    Attributes:
        channels: Channels of an image.
        context_slices: Neighboring slices on each side.
    """

    channels: int
    context_slices: int

    @property
    def slices(self) -> int:
        """The slice with its neighbors."""
        return 2 * self.context_slices + 1


def adapt_channels(weight: Float[Tensor, "o c ..."], channels: int) -> Float[Tensor, "o d ..."]:
    """Adapt a first convolution's filters to other input channels, as timm does.

    One channel gets the sum of all filters, and answers a gray image as the color filters answer its three copies;
    more get the filters in turn, rescaled so that the response keeps its size.

    Args:
        weight: `(O, C, ...)` filters.
        channels: The new number of input channels.

    >>> adapt_channels(torch.tensor([[[1.0], [2.0], [3.0]]]), 1).tolist()
    [[[6.0]]]
    >>> adapt_channels(torch.tensor([[[4.0]]]), 2).tolist()
    [[[2.0], [2.0]]]
    """
    before = weight.shape[1]
    if before == channels:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    # In turn, so that each color's filters are used about equally often.
    index = torch.arange(channels) % before
    return weight[:, index] * (before / channels)


def adapt_slices(weight: Float[Tensor, "o c ..."], before: Input, after: Input) -> Float[Tensor, "o d ..."]:
    """Adapt a first convolution's filters to other context slices.

    The slice itself and shared neighbors keep their filters. Neighbors that are new begin with zeros, so that the
    network computes what it did; those that are gone give their filters to the outermost that is left.

    Args:
        weight: Filters, whose input channels are slices (outer) and an image's channels (inner).
        before: The input that they were trained on.
        after: The new input.
    """
    size = (len(weight), before.slices, before.channels, *weight.shape[2:])
    slices = [adapt_channels(each, after.channels) for each in weight.reshape(size).unbind(1)]
    adapted = [torch.zeros_like(slices[0]) for _ in range(after.slices)]
    for index, filters in enumerate(slices):
        offset = index - before.context_slices
        # Neighboring slices are alike, so the outermost that is left stands in for those beyond it.
        nearest = max(-after.context_slices, min(after.context_slices, offset))
        adapted[nearest + after.context_slices] += filters
    return torch.cat(adapted, dim=1)


def adapt_head(
    weight: Float[Tensor, "k ..."], before: Classes, fresh: Float[Tensor, "n ..."], after: Classes
) -> Float[Tensor, "n ..."]:
    """Give shared labels their trained filters, and new labels fresh ones.

    A softmax compares logits and a sigmoid compares one with 0. Between the two, a label's sigmoid logit is its
    softmax logit less the background's, and the softmax logit of the background is 0.

    Args:
        weight: Filters or biases of the trained head, a row for each of its classes.
        before: Its classes.
        fresh: Those of the new head, likewise.
        after: Its classes.

    >>> trained = torch.tensor([[1.0], [5.0]])  # background, liver
    >>> fresh = torch.tensor([[9.0], [9.0]])
    >>> before, after = Classes(["liver"], "multiclass"), Classes(["tumor", "liver"], "multilabel")
    >>> adapt_head(trained, before, fresh, after).tolist()
    [[9.0], [4.0]]
    """
    # A copy: the caller's fresh head stays as it was drawn.
    adapted = fresh.clone()
    shared = list_shared(before, after)
    for name in shared:
        row = weight[before.find_row(name)]
        is_difference = before.has_background and not after.has_background
        adapted[after.find_row(name)] = row - weight[0] if is_difference else row
    if after.has_background and shared:
        adapted[0] = weight[0] if before.has_background else torch.zeros_like(adapted[0])
    return adapted


def list_shared(before: Classes, after: Classes) -> list[str]:
    """List the labels of a new model that the trained one shares."""
    return [name for name in after.names if name in before.names]
