"""Weights that left a checkpoint as safetensors come back through `model.pretrained`, and compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medseg_pl.export.exporter import select_network_weights
from medseg_pl.models.segmentation_model import load_model
from medseg_pl.training.module import SegmentationModule

pytestmark = pytest.mark.trainings


def fresh(checkpoint: str, folder: Path, pretrained: str | None) -> SegmentationModule:
    """A model of the checkpoint's settings, with none of its weights."""
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"] = {}
    content["hyper_parameters"]["pretrained"] = pretrained
    torch.save(content, folder / "settings.ckpt")
    loaded = SegmentationModule.load_from_checkpoint(folder / "settings.ckpt", "cpu", strict=False, weights_only=True)
    return loaded.eval()


@torch.no_grad()
def logits(module: SegmentationModule) -> torch.Tensor:
    """Of two images of noise."""
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    statistics = torch.tensor([0.5, 0.3, 0.05, 0.95]).expand(2, 3, 4)  # mean, deviation, percentiles
    return module(image, statistics)


@pytest.mark.filterwarnings(
    "ignore:The state dict in .* contains no parameters", "ignore:Found keys that are in the model"
)
def test_the_logits_are_the_same_to_the_last_bit(checkpoint: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(select_network_weights(load_model(checkpoint).state_dict()), weights)  # as an export holds them
    trained = SegmentationModule.load_from_checkpoint(checkpoint, "cpu", weights_only=True).eval()
    assert torch.equal(logits(fresh(checkpoint, tmp_path, str(weights))), logits(trained))
    assert not torch.equal(logits(fresh(checkpoint, tmp_path, None)), logits(trained))
