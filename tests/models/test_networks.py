"""Making a network: every refusal is one sentence with the remedy, and weights come from safe files alone.

What a network cannot do is said from shapes alone, before training, with the setting that mends it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError
from medseg_pl.models.networks import (
    build_network,
    compute_logits,
    find_untrained,
    list_encoders,
    load_pretrained,
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


class Tiny(nn.Module):
    """An encoder and a head."""

    def __init__(self, fill: float = 0.0, width: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, width, 1)
        self.head = nn.Conv2d(width, 1, 1)
        for parameter in self.parameters():
            nn.init.constant_(parameter, fill)


def values(module: nn.Module) -> set[float]:
    return {value for parameter in module.parameters() for value in parameter.flatten().tolist()}


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
        assert message.endswith("with --model.pretrained=FILE.")
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


class TestInitialWeights:
    @pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
    def test_the_whole_network(self, tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
        torch.save(wrap(Tiny(7.0).state_dict()), tmp_path / "weights.pt")
        network = Tiny()
        load_pretrained(network, str(tmp_path / "weights.pt"))
        assert values(network) == {7.0}

    def test_the_encoder_alone(self, tmp_path: Path) -> None:
        torch.save(Tiny(7.0).encoder.state_dict(), tmp_path / "encoder.pt")
        network = Tiny()
        load_pretrained(network, str(tmp_path / "encoder.pt"))
        assert (values(network.encoder), values(network.head)) == ({7.0}, {0.0})

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError) as caught:
            load_pretrained(Tiny(), str(tmp_path / "gone.pt"))
        assert str(caught.value) == (
            f"{tmp_path / 'gone.pt'} does not exist. Set model.pretrained to a file, or to null."
        )

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", ""),
            (b"not a checkpoint", "it is no file of tensors alone"),
            (b"\x80\x02garbage", "it is no file of tensors alone"),
            ([1, 2], "'list' object has no attribute 'get'"),
            ({"encoder.weight": torch.zeros(2, 1, 1, 1)}, "Error(s) in loading state_dict for Conv2d"),
            (Tiny(width=3).state_dict(), "Error(s) in loading state_dict for Tiny"),
            (Tiny(), "it is no file of tensors alone"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, content: Any, reason: str) -> None:
        path = tmp_path / "weights.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        network = Tiny()
        with pytest.raises(UnreadableFileError) as caught:
            load_pretrained(network, str(path))
        start, middle = f"{path} does not hold the weights of this network or of its encoder: ", str(caught.value)
        assert middle.startswith(start + reason)
        assert middle.endswith(". Use a file saved from the same architecture, or set model.pretrained to null.")
        assert "\n" not in middle
        assert "weights_only" not in middle  # torch's advice to load it nevertheless
        assert values(network) == {0.0}

    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(Tiny().state_dict(), buffer)
        (tmp_path / "weights.pt").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(UnreadableFileError, match="does not hold the weights of this network"):
            load_pretrained(Tiny(), str(tmp_path / "weights.pt"))

    def test_a_file_runs_no_code(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"

        class Attack:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (victim,))

        torch.save({"encoder.weight": Attack()}, tmp_path / "weights.pt")
        with pytest.raises(UnreadableFileError, match="it is no file of tensors alone"):
            load_pretrained(Tiny(), str(tmp_path / "weights.pt"))
        assert not victim.exists()

    def test_a_network_without_encoder_needs_all_its_weights(self, tmp_path: Path) -> None:
        torch.save({"other": torch.zeros(1)}, tmp_path / "weights.pt")
        with pytest.raises(UnreadableFileError, match="Linear has no attribute `encoder`"):
            load_pretrained(nn.Linear(2, 2), str(tmp_path / "weights.pt"))


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
