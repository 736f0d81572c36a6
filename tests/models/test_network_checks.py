"""What a network cannot do is said from shapes alone, before training, with the setting that mends it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.models.network_checks import compute_logits, rehearse

RESNET: dict[str, Any] = {"encoder_name": "resnet18", "encoder_weights": None, "in_channels": 1}


class Own(nn.Module):
    """A network that does with its input what a test wants."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.change = change

    def forward(self, image: Tensor) -> Any:
        return self.change(self.used(image))


def test_parameters_without_a_gradient_are_found() -> None:
    names = rehearse(smp.PSPNet(**RESNET), (2, 1, 64, 64), 1)
    assert names
    assert all(name.startswith(("encoder.layer3", "encoder.layer4")) for name in names)
    assert rehearse(smp.Unet(**RESNET), (2, 1, 64, 64), 1) == []
    assert rehearse(Own(lambda image: image), (2, 1, 8, 8), 1) == ["unused.weight", "unused.bias"]


def test_a_rehearsal_leaves_network_and_random_state_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    rehearse(network, (2, 1, 8, 8), 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_that_needs_values_is_left_to_the_training() -> None:
    assert rehearse(Own(lambda image: image * float(image.mean())), (2, 1, 8, 8), 1) == []


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (smp.PAN, (2, 1, 64, 64), r"PAN does not take images of 64 × 64 .*model\.input_size to \[128, 128\]"),
        (smp.FPN, (2, 1, 50, 77), r"50 × 77 .*model\.input_size to \[64, 96\]"),
        (smp.DeepLabV3Plus, (1, 1, 64, 64), r"DeepLabV3Plus cannot be .*data\.batch_size to 2"),
        (smp.UPerNet, (1, 1, 64, 64), r"data\.batch_size to 2"),
        (smp.Unet, (2, 3, 64, 64), r"Unet does not take 3 channels, .* model\.channels"),
        (partial(smp.Unet, aux_params={"classes": 4}), (2, 1, 64, 64), "a tuple.*aux_params to null"),
        (partial(smp.Unet, classes=3), (2, 1, 64, 64), r"\(2, 3, 64, 64\).*expected \(2, 1, 64, 64\)"),
    ],
)
def test_what_cannot_be_trained_is_refused(make: Callable[..., nn.Module], shape: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        rehearse(make(**RESNET), shape, 1)


def test_a_fixed_size_is_named() -> None:
    network = smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, in_channels=1)
    with pytest.raises(SettingError, match=r"model\.input_size to \[224, 224\]"):
        rehearse(network, (2, 1, 64, 64), 1)
    with pytest.raises(SettingError, match=r"model\.whole_image_max_pixels to 1"):
        compute_logits(network.eval(), torch.zeros(1, 1, 256, 256), 1)


def test_an_image_that_does_not_divide_is_refused_in_evaluation() -> None:
    with pytest.raises(SettingError, match=r"does not take images of 40 × 64 .*model\.size_divisor"):
        compute_logits(smp.FPN(**RESNET).eval(), torch.zeros(1, 1, 40, 64), 1)


def test_an_unknown_error_keeps_its_trace() -> None:
    def fail(image: Tensor) -> Tensor:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        compute_logits(Own(fail), torch.zeros(1, 1, 8, 8), 1)
