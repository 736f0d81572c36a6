"""Objects of a script become plain settings that make the same objects again, or a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.data.sources import DecathlonSource, FolderSource, ManifestSource, UWMadisonSource
from medseg_pl.data.transforms.augmentation import StandardAugmentation
from medseg_pl.models.losses import DiceCELoss, DiceLoss, FocalTverskyLoss, WeightedSum
from medseg_pl.models.normalization import ZScore
from medseg_pl.training.recording import describe_arguments, describe_network


class Net(nn.Module):
    """A network of one's own that keeps its argument."""

    def __init__(self, in_channels: int, classes: int, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.first, self.last = nn.Conv2d(in_channels, width, 1), nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.first(image))


class Forgetful(Net):
    """One that does not."""

    def __init__(self, in_channels: int, classes: int, size: int = 4) -> None:
        super().__init__(in_channels, classes, size)


def make_net(in_channels: int, classes: int) -> nn.Module:
    return Net(in_channels, classes)


def describe(value: Any) -> Any:
    return describe_arguments({"it": value}, "model")["it"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (Path("a"), "a"),
        ((1, np.int64(2)), [1, 2]),
        (
            {"disc": PostProcessing(largest_only=True)},
            {"disc": {"fill_holes": False, "minimum_size": 0.0, "largest_only": True}},
        ),
        (partial(torch.optim.AdamW, lr=0.1), {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}}),
        (torch.optim.SGD, {"class_path": "torch.optim.SGD", "init_args": {}}),
        (ZScore(clip=False), {"class_path": "medseg_pl.ZScore", "init_args": {"clip": False}}),
    ],
)
def test_values_become_plain(value: Any, plain: Any) -> None:
    assert describe(value) == plain


def test_labels_become_plain() -> None:
    labels = LabelMap(["a", "b"], "multiclass", values=[3, 7])
    assert LabelMap(**describe(labels)) == labels


def make_again(described: Any) -> Any:
    if not isinstance(described, dict) or "class_path" not in described:
        return [make_again(each) for each in described] if isinstance(described, list) else described
    module, _, name = described["class_path"].rpartition(".")
    arguments = {key: make_again(value) for key, value in described["init_args"].items()}
    return getattr(sys.modules[module], name)(**arguments)


@pytest.mark.parametrize(
    "value",
    [
        DiceCELoss(dice_weight=0.5, ce_weight=2.0, batch=False),
        DiceLoss(batch=False, background=True, smooth=0.1),
        FocalTverskyLoss(alpha=0.2, beta=0.8),
        WeightedSum([DiceLoss(), nn.BCEWithLogitsLoss(reduction="sum")], [1.0, 3.0]),
        smp.losses.DiceLoss("multiclass", classes=[1, 2], smooth=0.5),
        smp.losses.TverskyLoss("binary", alpha=0.3),
        StandardAugmentation(flip_vertical=0.5, gamma=0.1),
        FolderSource("data", masks={"a": "a", "b": "b"}, mask_name="{stem}_seg", group=r"p(\\d+)", slicing="axial"),
        DecathlonSource("data", group=r"p(\\d+)"),
        UWMadisonSource("data"),
        ManifestSource("data", "table.csv"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_made_again(value: Any) -> None:
    described = describe(value)
    again = make_again(described)
    assert type(again) is type(value)
    assert describe(again) == described
    assert described["init_args"]


def test_a_ready_network_is_described_without_its_weights() -> None:
    torch.manual_seed(0)
    network = smp.Unet("tu-resnet10t", 3, None, decoder_channels=(16, 8, 8), in_channels=3, classes=2)
    state = torch.random.get_rng_state()
    described = describe_network(network, 3, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert described["class_path"] == "segmentation_models_pytorch.Unet"
    assert described["init_args"]["encoder_weights"] is None
    assert not {"in_channels", "classes"} & set(described["init_args"])
    again = smp.Unet(**described["init_args"], in_channels=3, classes=2)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize("network", [Net(1, 2, width=7), partial(Net, width=7)])
def test_a_network_of_ones_own_is_described(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, holder := ModuleType(__name__))
    holder.Net = Net  # type: ignore[attr-defined]
    assert describe_network(network, 1, 2) == {"class_path": f"{__name__}.Net", "init_args": {"width": 7}}


def test_a_function_is_described_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, holder := ModuleType(__name__))
    holder.make_net = make_net  # type: ignore[attr-defined]
    assert describe_network(make_net, 1, 2) == f"{__name__}.make_net"


def wrapped(in_channels: int, classes: int) -> nn.Module:
    network = smp.Unet("tu-resnet10t", 3, None, decoder_channels=(16, 8, 8), in_channels=in_channels, classes=classes)
    network.segmentation_head = nn.Conv2d(8, classes, 5, padding=2)  # not what its arguments make
    return network


@pytest.mark.parametrize(
    ("network", "remedy"),
    [
        (lambda in_channels, classes: Net(in_channels, classes, 9), "Pass a class or functools.partial"),
        (Forgetful(1, 2, size=9), r"functools.partial\(Forgetful"),
        (nn.Conv2d(1, 2, 3), "functools.partial"),
        (wrapped(1, 2), r"functools.partial\(Unet"),
    ],
)
def test_what_cannot_be_made_again_is_refused(network: Callable[..., nn.Module], remedy: str) -> None:
    with pytest.raises(SettingError, match=rf"model\.network is .*{remedy}"):
        describe_network(network, 1, 2)


def test_a_loss_with_a_tensor_is_refused() -> None:
    with pytest.raises(SettingError, match=r"model\.it is a CrossEntropyLoss"):
        describe(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])))
