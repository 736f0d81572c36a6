"""Losses inside the module: ignored voxels take part in neither training nor validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import EvaluationBatch, SliceReference
from medseg_pl.models.normalization import ZScore
from medseg_pl.training.module import SegmentationModule

LABELS = LabelMap(["lesion"], "binary", ignore_value=9)


class Pass(nn.Module):
    """A network that hands its input on."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        return self.scale * image


class Sum(nn.Module):
    """A loss in which each pixel counts by its place."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return ((logits - target) * torch.arange(logits.shape[-1])).mean()


def build_module(loss: nn.Module) -> SegmentationModule:
    return SegmentationModule(
        Pass, LABELS, loss, ZScore(clip=False), lambda p: torch.optim.SGD(p, 0.1), input_size=(16, 16), size_divisor=1
    )


def test_the_loss_is_restricted_to_annotated_pixels() -> None:
    loss = build_module(nn.BCEWithLogitsLoss()).loss
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss(logits, LABELS.target(torch.full((1, 1, 4, 4), IGNORE, dtype=torch.uint8))).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_loss_that_counts_ignored_pixels_is_refused() -> None:
    with pytest.raises(SettingError, match=r"model\.loss Sum counts voxels"):
        build_module(Sum())


def test_a_slice_that_nobody_annotated_does_not_lower_the_validation_loss() -> None:
    module = build_module(nn.BCEWithLogitsLoss())
    geometry = Geometry((2, 16, 16))
    for index, value in enumerate((0, IGNORE)):
        module._evaluate(
            EvaluationBatch(
                torch.zeros(1, 1, 16, 16),
                torch.tensor([[[0.0, 1.0, 0.0, 1.0]]]),
                [SliceReference("a", "a", index, geometry)],
                [np.full((1, 16, 16), value, np.uint8)],
            )
        )
    assert module.evaluator.loss.compute().item() == pytest.approx(np.log(2))
