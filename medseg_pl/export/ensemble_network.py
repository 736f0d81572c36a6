"""The networks of an ensemble as one, for a graph that averages their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from medseg_pl.core.errors import SettingError
from medseg_pl.models.checkpoint import CheckpointInfo
from medseg_pl.models.segmentation_model import SegmentationModel, load_model


class EnsembleNetwork(nn.Module):
    r"""Compute logits whose probabilities are the mean of those of several networks.

    With exclusive classes the softmax of $\log \sum_i \mathrm{softmax}(z_i)$ is the mean of the softmaxes; otherwise
    the sigmoid of $\log \bar p - \log (1 - \bar p)$ is $\bar p$.

    Args:
        members: Networks that take the same images and know the same classes.
        exclusive: Whether one class excludes the others.
    """

    def __init__(self, members: Sequence[nn.Module], *, exclusive: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.exclusive = exclusive

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of the mean probabilities."""
        # In 32 bits whatever the members compute in: the logarithms of half precision are coarse.
        logits = torch.stack([member(image).float() for member in self.members])
        if self.exclusive:
            return torch.logsumexp(log_softmax(logits, dim=2), dim=0)
        # The number of members cancels out.
        return torch.logsumexp(logsigmoid(logits), dim=0) - torch.logsumexp(logsigmoid(-logits), dim=0)


def load_ensemble(members: Sequence[CheckpointInfo], changes: dict[str, Any]) -> SegmentationModel:
    """Load checkpoints that differ in their weights alone as one model.

    Args:
        members: At least one.
        changes: Settings of the model that differ from those of the checkpoints.

    Raises:
        SettingError: The members differ in more than their weights.
    """
    first = members[0].settings["model"]
    for member in members[1:]:
        if differing := sorted(name for name in first if first[name] != member.settings["model"].get(name)):
            raise SettingError(
                f"{member.path} differs from {members[0].path} in model.{differing[0]}, so both cannot be one graph. "
                "Export each of them alone; medseg predict averages any."
            )
    models = [
        load_model(each._replace(settings={**each.settings, "model": {**each.settings["model"], **changes}}))
        for each in members
    ]
    model = models[0]
    if len(models) > 1:
        networks = [each.network for each in models]
        model.network = EnsembleNetwork(networks, exclusive=model.labels.task == "multiclass").eval()
    return model
