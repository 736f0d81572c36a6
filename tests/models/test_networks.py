"""Making a network: every refusal is one sentence with the remedy.

What a network cannot do is said from shapes alone, before training, with the setting that mends it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.models.encoders import list_encoders
from medseg_pl.models.networks import (
    build_network,
    compute_logits,
    find_untrained,
    refuse_activation,
    refuse_probabilities,
    rehearse,
)

RESNET: dict[str, Any] = {"encoder_name": "resnet18", "encoder_weights": None, "in_channels": 1}

UNET = partial(smp.Unet, encoder_name="resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=[16, 8, 8])


class Own(nn.Module):
    """A network that does with its input what a test wants."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.change = change

    def forward(self, image: Tensor) -> Any:
        return self.change(self.used(image))


def test_parameters_without_a_gradient_are_found() -> None:
    names = find_untrained(smp.PSPNet(**RESNET), (2, 1, 64, 64))
    assert names
    assert all(name.startswith(("encoder.layer3", "encoder.layer4")) for name in names)
    assert find_untrained(smp.Unet(**RESNET), (2, 1, 64, 64)) == []
    assert find_untrained(Own(lambda image: image), (2, 1, 8, 8)) == ["unused.weight", "unused.bias"]


def test_a_rehearsal_leaves_network_and_random_state_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    rehearse(network, (2, 1, 8, 8), 1)
    assert find_untrained(network, (2, 1, 8, 8)) == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_that_needs_values_is_left_to_the_training() -> None:
    network = Own(lambda image: image * float(image.mean()))
    rehearse(network, (2, 1, 8, 8), 1)
    assert find_untrained(network, (2, 1, 8, 8)) == []


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


class TestBuild:
    @pytest.mark.parametrize(("in_channels", "classes"), [(1, 1), (9, 4)])
    def test_channels_and_classes_reach_the_network(self, in_channels: int, classes: int) -> None:
        network = build_network(UNET, in_channels, classes).eval()
        with torch.inference_mode():
            assert network(torch.zeros(1, in_channels, 32, 40)).shape == (1, classes, 32, 40)

    def test_a_module_of_ones_own_is_as_good(self) -> None:
        network = build_network(lambda *, in_channels, classes: nn.Conv2d(in_channels, classes, 3), 5, 2)
        assert isinstance(network, nn.Conv2d)
        assert (network.in_channels, network.out_channels) == (5, 2)

    def test_a_misspelled_encoder_gets_a_suggestion(self) -> None:
        with pytest.raises(SettingError) as caught:
            build_network(partial(smp.Unet, encoder_name="resnet181"), 1, 1)
        assert str(caught.value).startswith(
            "There is no encoder 'resnet181' (model.network.init_args.encoder_name). Did you mean resnet18"
        )

    def test_a_misspelled_encoder_of_timm_gets_a_suggestion(self) -> None:
        with pytest.raises(SettingError, match="There is no encoder 'tu-mobilenetv3_smal_100'") as caught:
            build_network(partial(smp.Unet, encoder_name="tu-mobilenetv3_smal_100", encoder_weights=None), 1, 1)
        assert "Did you mean tu-mobilenetv3_small_100" in str(caught.value)

    def test_a_name_like_no_other_gets_the_rule(self) -> None:
        with pytest.raises(SettingError, match=r"There is no encoder 'zzzqqq'.*timm's encoders are written tu-<name>"):
            build_network(partial(smp.Unet, encoder_name="zzzqqq"), 1, 1)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"decoder_channels": [8]}, "but you provide `decoder_channels` for 1 blocks"),
            ({"encoder_weights": "imagnet"}, "Wrong pretrained weights `imagnet` for encoder `resnet18`"),
        ],
    )
    def test_other_refusals_are_passed_on_with_the_setting(self, change: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingError) as caught:
            build_network(partial(UNET, **change), 1, 1)
        assert str(caught.value).startswith("The network cannot be made: ")
        assert said in str(caught.value)
        assert str(caught.value).endswith(". Correct model.network in the configuration.")

    def test_an_unknown_argument_is_a_wrong_setting(self) -> None:
        def factory(*, in_channels: int, classes: int) -> nn.Module:
            return nn.Conv2d(in_channels, classes, kernel=3)  # type: ignore[call-arg]

        with pytest.raises(SettingError, match=r"unexpected keyword argument 'kernel'\. Correct model\.network"):
            build_network(factory, 1, 1)

    def test_weights_that_cannot_be_downloaded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # nothing was downloaded before
        with pytest.raises(MissingDataError) as caught:
            build_network(partial(UNET, encoder_weights="imagenet"), 3, 1)
        message = str(caught.value)
        assert message.startswith("The pretrained weights of the encoder could not be downloaded (")
        assert "--model.network.init_args.encoder_weights=null" in message
        remedies = (
            "once where there is a network",
            "MEDSEG_WEIGHTS",
            "--model.pretrained=FILE",
            "'medseg[pretrained]'",
        )
        assert all(remedy in message for remedy in remedies)
        assert "\n" not in message

    @pytest.mark.parametrize("error", [ConnectionError("no route"), TimeoutError("too slow"), OSError("no route")])
    def test_every_failure_of_the_network_is_such_a_failure(self, error: OSError) -> None:
        def factory(*, in_channels: int, classes: int) -> nn.Module:
            raise error

        with pytest.raises(MissingDataError, match=str(error)) as caught:
            build_network(factory, 1, 1)
        assert caught.value.__cause__ is error

    def test_suggested_names_can_be_built(self) -> None:
        names = list_encoders()
        assert {"resnet18", "efficientnet-b0", "tu-mobilenetv3_small_100", "tu-convnext_tiny"} <= set(names)
        assert "mobilenetv3_small_100" not in names  # smp finds timm's models by their prefix alone


class Gated(nn.Module):
    """A network with a sigmoid inside, which is none of its output; or with one at its end that is no module."""

    def __init__(self, *, at_end: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 1)
        self.activation = nn.Sigmoid()  # registered last
        self.at_end = at_end

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.convolution(image) * self.activation(image)
        return nn.functional.interpolate(logits.sigmoid(), scale_factor=2.0) if self.at_end else logits


class TestActivations:
    @pytest.mark.parametrize("activation", ["sigmoid", "softmax2d", "logsoftmax", "tanh", "argmax2d", "clamp"])
    def test_one_in_the_arguments_of_a_network_is_refused(self, activation: str) -> None:
        network = smp.Unet("resnet18", encoder_weights=None, activation=activation)
        with pytest.raises(SettingError, match=r"ends in the activation \w+, .*init_args\.activation to null"):
            refuse_activation(network)

    @pytest.mark.parametrize("architecture", [smp.Unet, smp.FPN, smp.PSPNet, smp.DeepLabV3, smp.Segformer])
    def test_every_head_is_looked_at(self, architecture: Any) -> None:
        with pytest.raises(SettingError, match="ends in the activation Sigmoid"):
            refuse_activation(architecture("resnet18", encoder_weights=None, activation="sigmoid"))
        refuse_activation(architecture("resnet18", encoder_weights=None))

    def test_a_ready_network_is_refused_too(self) -> None:
        with pytest.raises(SettingError, match="ends in the activation Softmax"):
            refuse_activation(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.Softmax(dim=1))))

    def test_one_within_a_network_is_none_of_its_output(self) -> None:
        network = Gated()
        refuse_activation(network)
        refuse_probabilities(network(torch.ones(1, 1, 4, 4)))

    def test_one_that_is_no_module_shows_in_the_first_step(self) -> None:
        network = Gated(at_end=True)
        refuse_activation(network)
        with pytest.raises(SettingError, match="ends in the activation Sigmoid"):
            refuse_probabilities(network(torch.ones(1, 1, 4, 4)))
        with torch.no_grad():
            refuse_probabilities(network(torch.ones(1, 1, 4, 4)))  # nothing to tell by
