"""Depthwise convolutions under CPU autocast: computed in 32 bits, handed on in bf16."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from medseg_pl.models.networks import pause_autocast_in_depthwise


@pytest.fixture
def network() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    pause_autocast_in_depthwise(layers)
    return layers


def test_the_result_is_that_of_32_bits(network: nn.Sequential) -> None:
    image = torch.randn(2, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network[1](image)
        assert torch.is_autocast_enabled("cpu")
        assert network(torch.randn(1, 3, 8, 8)).dtype == torch.bfloat16
    expected = nn.functional.conv2d(image.float(), network[1].weight, network[1].bias, groups=4)
    assert torch.equal(found, expected.bfloat16())


def test_without_autocast_nothing_changes(network: nn.Sequential) -> None:
    image = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(image), nn.Sequential(*map(plain, network))(image))


def plain(layer: nn.Module) -> nn.Module:
    assert isinstance(layer, nn.Conv2d)
    same = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, groups=layer.groups)  # type: ignore[arg-type]
    same.load_state_dict(layer.state_dict())
    return same


def test_autocast_goes_on_after_an_error(network: nn.Sequential) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError):
            network[1](torch.zeros(1, 5, 8, 8))
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layers: pickle.loads(pickle.dumps(layers))])
def test_copies_do_the_same(network: nn.Sequential, duplicate: object) -> None:
    image = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(duplicate(network)(image), network(image))  # type: ignore[operator]
