"""The model apart from the trainer: its settings, what it computes, and how a checkpoint gives it back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.models.normalization import IntensityWindow
from medseg_pl.models.segmentation_model import SegmentationModel, load_model
from tests.export.checkpoints import write_checkpoint

LABELS = LabelMap(["ring", "core"], "multiclass")
STATISTICS = torch.tensor([[[-100.0, 300.0, 0.0, 50.0]]])


def build(**settings: Any) -> SegmentationModel:
    torch.manual_seed(0)
    network = partial(smp.Unet, "resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=[8, 8, 8])
    return SegmentationModel(
        **{"network": network, "labels": LABELS, "normalization": IntensityWindow(0, 200)} | settings
    )


def test_logits_are_those_of_the_network_on_normalized_images() -> None:
    model = build().eval()
    image = torch.randint(-50, 250, (1, 1, 16, 24), dtype=torch.int16)
    normalized = image.float().clamp(0, 200) / 100 - 1
    torch.testing.assert_close(model(image, STATISTICS), model.network(normalized))
    assert model(image, STATISTICS).shape == (1, 3, 16, 24)


def test_padding_is_the_low_percentile_as_the_network_sees_it() -> None:
    assert build().compute_padding_value(STATISTICS + 150).tolist() == [[[[0.5]]]]


def test_neighbors_are_further_channels() -> None:
    model = build(channels=2, context_slices=1)
    assert model.in_channels == 6
    assert model.network.encoder.conv1.in_channels == 6


@pytest.mark.parametrize(
    ("network", "divisor"),
    [
        (partial(smp.Unet, "resnet18", encoder_weights=None), 32),
        (partial(smp.Unet, "resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=[8, 8, 8]), 8),
        (partial(smp.DeepLabV3Plus, "resnet18", encoder_weights=None), 16),
        (lambda in_channels, classes: torch.nn.Conv2d(in_channels, classes, 1), 32),
    ],
)
def test_sides_divide_by_what_the_encoder_needs(network: Any, divisor: int) -> None:
    assert build(network=network).size_divisor == divisor
    assert build(network=network, size_divisor=4).size_divisor == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"model\.channels must be at least 1; got 0"),
        ({"context_slices": -1}, r"model\.context_slices must be at least 0; got -1"),
        ({"whole_image_max_pixels": -1}, r"model\.whole_image_max_pixels must be at least 0; got -1"),
        ({"size_divisor": 0}, r"model\.size_divisor must be at least 1; got 0"),
        ({"window_overlap": 1.0}, r"model\.window_overlap must be at least 0 and below 1; got 1\.0"),
        ({"postprocess": {"liver": PostProcessing()}}, "names the label 'liver', which is none of ring, core"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build(**settings)


class TestLoadModel:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> str:
        encoder = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
        arguments = {**encoder, "encoder_weights": None}
        return write_checkpoint(
            tmp_path / "best.ckpt",
            network="segmentation_models_pytorch.Unet",
            arguments=arguments,
            postprocess={"b": {"largest_only": True}},
            tta="flips",
        )

    def test_the_model_of_a_checkpoint_has_its_weights_and_settings(self, checkpoint: str) -> None:
        model = load_model(checkpoint)
        stored = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert {f"model.{name}" for name in model.state_dict()} == set(stored)
        assert all(torch.equal(value, stored[f"model.{name}"]) for name, value in model.state_dict().items())
        assert (model.tta, model.postprocess) == ("flips", {"b": PostProcessing(largest_only=True)})
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())

    def test_code_of_a_stranger_is_not_imported(self, tmp_path: Path) -> None:
        checkpoint = write_checkpoint(tmp_path / "best.ckpt")  # its network is one of the tests'
        with pytest.raises(SettingError, match=r"names tests\.export\.networks\.Coarse, which would run"):
            load_model(checkpoint)
        load_model(checkpoint, plugins=["tests"])
        with restrict_imports(["tests"]):
            load_model(checkpoint)

    def test_weights_of_another_network_are_refused(self, checkpoint: str) -> None:
        content = torch.load(checkpoint, weights_only=True)
        content["hyper_parameters"]["context_slices"] = 1
        torch.save(content, checkpoint)
        with pytest.raises(SettingError, match="do not fit the model: size mismatch"):
            load_model(checkpoint)
