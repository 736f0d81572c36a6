"""Whole images and windows give one answer, MONAI's where its definition is ours; every symmetry can be undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import TtaMode
from medseg_pl.inference.sliding_window import IDENTITY, DihedralTransform, SlidingWindow, get_transforms

ALL = get_transforms("all")

IMAGE = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)

BINARY = LabelMap(["lesion"], "binary")

MULTICLASS = LabelMap(["liver", "spleen"], "multiclass")

MULTILABEL = LabelMap(["stomach", "bowel"], "multilabel")

TASKS = pytest.mark.parametrize("labels", [BINARY, MULTICLASS, MULTILABEL], ids=lambda labels: labels.task)


@pytest.mark.parametrize("symmetry", ALL)
def test_undone(symmetry: DihedralTransform) -> None:
    there = symmetry.apply(IMAGE)
    assert there.shape == ((2, 3, 5, 4) if symmetry.turns % 2 else (2, 3, 4, 5))
    assert torch.equal(symmetry.undo(there), IMAGE)


def test_eight_of_a_square_are_different() -> None:
    square = torch.arange(9).reshape(1, 1, 3, 3)
    assert len({tuple(symmetry.apply(square).flatten().tolist()) for symmetry in ALL}) == 8


@pytest.mark.parametrize(
    ("group", "axes"),
    [("horizontal", [(), (-1,)]), ("vertical", [(), (-2,)]), ("flips", [(), (-1,), (-2,), (-2, -1)])],
)
def test_flips_are_what_they_are_called(group: TtaMode, axes: list[tuple[int, ...]]) -> None:
    for symmetry, flipped in zip(get_transforms(group), axes, strict=True):
        assert torch.equal(symmetry.apply(IMAGE), IMAGE.flip(flipped))


@pytest.mark.parametrize("group", get_args(TtaMode))
def test_the_identity_comes_first(group: TtaMode) -> None:
    assert get_transforms(group)[0] == IDENTITY


def convolution(classes: int, kernel: int, channels: int = 2) -> Callable[[Tensor], Tensor]:
    """A network of one layer; with a kernel of 1 a pixel's logits depend on that pixel alone."""
    torch.manual_seed(classes * 10 + kernel)
    layer = nn.Conv2d(channels, classes, kernel, padding="same")

    def network(image: Tensor) -> Tensor:
        with torch.no_grad():
            return 2 * layer(image)

    return network


def image(height: int, width: int, batch: int = 2, channels: int = 2) -> Tensor:
    return torch.randn((batch, channels, height, width), generator=torch.Generator().manual_seed(height * width))


def identity(pixels: Tensor) -> Tensor:
    """Logits that tell where they come from."""
    return pixels[:, :1]


def ground(pixels: Tensor, value: float = -3.0) -> Tensor:
    """A fill that is unlike any pixel, for each image and channel."""
    return torch.full((*pixels.shape[:2], 1, 1), value)


class Listener:
    """Notes what the network was given, and what was told about it."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self.seen: list[tuple[int, int]] = []
        self.told: list[tuple[Tensor, slice, slice]] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.seen.append((pixels.shape[-2], pixels.shape[-1]))
        return self.network(pixels)

    def on_logits(self, logits: Tensor, rows: slice, columns: slice) -> None:
        self.told.append((logits, rows, columns))


@TASKS
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (31, 100), (20, 17)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_change_nothing_for_a_network_of_single_pixels(
    labels: LabelMap, size: tuple[int, int], overlap: float
) -> None:
    network = convolution(labels.classes, kernel=1)
    whole = SlidingWindow(labels, (32, 24), 8, max_pixels=1 << 20)(network, image(*size), ground(image(*size)))
    windows = SlidingWindow(labels, (32, 24), 8, overlap, max_pixels=0)(network, image(*size), ground(image(*size)))
    assert whole.shape == (2, labels.classes, *size)
    torch.testing.assert_close(windows, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole, labels.activate(network(image(*size))), atol=1e-6, rtol=0)


@TASKS
@pytest.mark.parametrize("size", [(32, 24), (64, 64), (65, 97), (33, 24), (50, 131)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_equal_to_monai_where_the_image_is_no_smaller_than_a_window(
    labels: LabelMap, size: tuple[int, int], overlap: float
) -> None:
    network = convolution(labels.classes, kernel=5)
    ours = SlidingWindow(labels, (32, 24), size_divisor=1, overlap=overlap, max_pixels=0)(
        network, image(*size), ground(image(*size))
    )
    torch.testing.assert_close(ours, monai(labels, network, image(*size), overlap), atol=1e-5, rtol=0)


def monai(labels: LabelMap, network: Callable[[Tensor], Tensor], pixels: Tensor, overlap: float = 0.5) -> Tensor:
    """MONAI blends what its predictor gives: here probabilities, as ours does."""
    result = sliding_window_inference(
        pixels, (32, 24), 1, lambda part: labels.activate(network(part)), overlap, mode="gaussian", sigma_scale=0.125
    )
    assert isinstance(result, Tensor)
    return result


def test_around_a_small_image_monai_has_zeros_and_ours_the_fill() -> None:
    network = convolution(1, kernel=5)
    pixels = image(40, 13)
    ours = SlidingWindow(BINARY, (32, 24), size_divisor=1, max_pixels=0)
    expected = monai(BINARY, network, pixels)
    assert not torch.allclose(ours(network, pixels, ground(pixels)), expected, atol=1e-3)
    torch.testing.assert_close(ours(network, pixels, ground(pixels, 0.0)), expected, atol=1e-5, rtol=0)


def test_unlike_blended_logits() -> None:
    network, pixels = convolution(3, kernel=5), image(64, 64)
    logits = sliding_window_inference(pixels, (32, 24), 1, network, 0.5, mode="gaussian")
    assert isinstance(logits, Tensor)
    ours = SlidingWindow(MULTICLASS, (32, 24), 1, max_pixels=0)(network, pixels, ground(pixels))
    assert (MULTICLASS.activate(logits) - ours).abs().max() > 1e-3
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(2, 64, 64))  # a mean of probabilities is one


def test_the_weights_are_those_of_the_gaussian() -> None:
    # Two windows of 4 x 8 with means at 1.5 and 3.5 and a standard deviation of 0.5; the network says which is which.
    windows = iter([torch.zeros(1, 1, 4, 8), torch.full((1, 1, 4, 8), 40.0)])
    pixels = image(6, 8, 1, 1)
    result = SlidingWindow(BINARY, (4, 8), 1, max_pixels=0)(lambda _: next(windows), pixels, ground(pixels))
    column = result[0, 0, :, 3]
    first, second = (torch.exp(-0.5 * ((torch.arange(6) - middle) / 0.5) ** 2) for middle in (1.5, 3.5))
    expected = 0.5 * first / (first + second) + second / (first + second)
    torch.testing.assert_close(column[2:4], expected[2:4], atol=1e-4, rtol=0)
    assert column.tolist()[:2] == [0.5, 0.5]
    assert column.tolist()[4:] == [1.0, 1.0]


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size_divisor=st.sampled_from([1, 2, 5, 16]),
    whole=st.booleans(),
)
def test_padding_is_undone_for_every_size(height: int, width: int, size_divisor: int, whole: bool) -> None:
    pixels = image(height, width, batch=1, channels=1)
    window = SlidingWindow(BINARY, (16, 12), size_divisor, max_pixels=1 << 20 if whole else 0)
    torch.testing.assert_close(window(identity, pixels, ground(pixels)), pixels.sigmoid(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "given"),
    [((64, 64), (64, 64)), ((65, 64), (80, 64)), ((10, 200), (32, 208)), ((1, 1), (32, 48))],
)
def test_a_whole_image_is_padded_to_what_the_network_accepts(size: tuple[int, int], given: tuple[int, int]) -> None:
    listener = Listener(identity)
    SlidingWindow(BINARY, (20, 40), size_divisor=16)(listener, image(*size), ground(image(*size)))
    assert listener.seen == [given]


def test_a_window_is_as_large_as_the_network_needs() -> None:
    listener = Listener(identity)
    window = SlidingWindow(BINARY, (20, 40), size_divisor=16, overlap=0.5, max_pixels=0)
    assert window.window == (32, 48)
    window(listener, image(70, 90), ground(image(70, 90)))
    assert set(listener.seen) == {(32, 48)}
    assert len(listener.seen) == 4 * 3  # 80 rows at 0, 16, 32, 48 and 96 columns at 0, 24, 48


def test_padding_holds_the_fill_of_each_image_and_channel() -> None:
    inputs = []

    def network(pixels: Tensor) -> Tensor:
        inputs.append(pixels)
        return pixels[:, :1]

    pixels = image(3, 5)
    fill = torch.tensor([[10.0, -20.0], [30.0, 5.0]])
    SlidingWindow(BINARY, (8, 8), 8)(network, pixels, fill[..., None, None])
    (framed,) = inputs
    assert torch.equal(framed[..., 2:5, 1:6], pixels)
    border = torch.ones(8, 8, dtype=torch.bool)
    border[2:5, 1:6] = False
    assert torch.equal(framed[..., border], fill[..., None].expand(2, 2, 64 - 15))


def test_the_padding_of_one_image_is_seen_by_no_other() -> None:
    network, pixels = convolution(1, kernel=5), image(10, 13)
    window = SlidingWindow(BINARY, (16, 16), 8)
    fill = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])[..., None, None]
    alone = [window(network, pixels[i : i + 1], fill[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(window(network, pixels, fill), torch.cat(alone), atol=1e-6, rtol=0)


def test_the_listener_is_told_of_every_window() -> None:
    network = convolution(3, kernel=5)
    listener = Listener(network)
    window = SlidingWindow(MULTICLASS, (32, 32), 8, overlap=0.5, max_pixels=0)
    pixels = image(64, 80)
    window(listener, pixels, ground(pixels), listener.on_logits)
    assert [(rows.start, columns.start) for _, rows, columns in listener.told] == [
        (y, x) for y in (0, 16, 32) for x in (0, 16, 32, 48)
    ]
    assert len(listener.seen) == len(listener.told)
    for logits, rows, columns in listener.told:
        torch.testing.assert_close(logits, network(pixels[..., rows, columns]))


def test_the_listener_is_told_of_a_whole_image_without_its_padding() -> None:
    listener = Listener(identity)
    pixels = image(20, 33)
    SlidingWindow(BINARY, (16, 16), 16)(listener, pixels, ground(pixels), listener.on_logits)
    ((logits, rows, columns),) = listener.told
    assert listener.seen == [(32, 48)]
    assert (rows, columns) == (slice(0, 20), slice(0, 33))
    assert torch.equal(logits, identity(pixels))


def test_windows_that_reach_into_the_padding_are_told_of_their_own_part() -> None:
    # 10 rows become 16, three above and three below; the columns need no padding. Windows begin at 0, 8, 16 and 21.
    listener = Listener(identity)
    pixels = image(10, 37)
    SlidingWindow(BINARY, (16, 16), 16, max_pixels=0)(listener, pixels, ground(pixels), listener.on_logits)
    assert [(rows, (columns.start, columns.stop)) for _, rows, columns in listener.told] == [
        (slice(0, 10), ends) for ends in [(0, 16), (8, 24), (16, 32), (21, 37)]
    ]
    for logits, rows, columns in listener.told:
        assert torch.equal(logits, identity(pixels)[..., rows, columns])


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size_divisor=st.sampled_from([1, 2, 5, 16]),
    overlap=st.sampled_from([0.0, 0.5, 0.9]),
    whole=st.booleans(),
)
def test_the_listener_is_told_of_every_pixel_and_of_nothing_else(
    height: int, width: int, size_divisor: int, overlap: float, whole: bool
) -> None:
    listener = Listener(identity)
    pixels = image(height, width, batch=1, channels=1)
    window = SlidingWindow(BINARY, (16, 12), size_divisor, overlap, max_pixels=1 << 20 if whole else 0)
    window(listener, pixels, ground(pixels), listener.on_logits)
    told = torch.zeros(height, width)
    for logits, rows, columns in listener.told:
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        assert torch.equal(logits, pixels[..., rows, columns])
        told[rows, columns] += 1
    assert told.min() >= 1
    assert len(listener.told) == len(listener.seen)


def test_the_whole_image_runs_up_to_the_limit_and_not_beyond() -> None:
    for limit, calls in ((64 * 64, 1), (64 * 64 - 1, 9)):
        listener = Listener(identity)
        SlidingWindow(BINARY, (32, 32), 8, max_pixels=limit)(listener, image(64, 64), ground(image(64, 64)))
        assert len(listener.seen) == calls


@pytest.mark.parametrize("max_pixels", [0, 1 << 20])
def test_probabilities_are_float_whatever_the_network_computes_in(max_pixels: int) -> None:
    window = SlidingWindow(BINARY, (16, 16), 8, max_pixels=max_pixels)
    result = window(lambda pixels: pixels[:, :1].bfloat16(), image(32, 32), ground(image(32, 32)))
    assert result.dtype == torch.float32
    expected = image(32, 32)[:, :1].bfloat16().float().sigmoid()
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


@TASKS
@pytest.mark.parametrize("max_pixels", [0, 1 << 20], ids=["windows", "whole"])
def test_symmetries_are_averaged_as_probabilities(labels: LabelMap, max_pixels: int) -> None:
    network, pixels = convolution(labels.classes, kernel=5), image(64, 48)
    window = SlidingWindow(labels, (32, 24), 8, overlap=0.0, max_pixels=max_pixels)
    flipped = SlidingWindow(labels, (32, 24), 8, 0.0, max_pixels, get_transforms("flips"))
    averaged = flipped(network, pixels, ground(pixels))
    alone = [
        window(network, pixels.flip(axes), ground(pixels)).flip(axes) for axes in ([], [-1], [-2], [-1, -2])
    ]  # without overlap the windows of the mirrored image are those of the image
    torch.testing.assert_close(averaged, torch.stack(alone).mean(dim=0), atol=1e-6, rtol=0)
    assert (averaged - alone[0]).abs().max() > 1e-3


def test_a_network_that_knows_no_direction_is_not_changed_by_turning() -> None:
    network, pixels = convolution(1, kernel=1), image(40, 24)
    window = SlidingWindow(BINARY, (32, 24), 8)
    turned = SlidingWindow(BINARY, (32, 24), 8, transforms=get_transforms("all"))(network, pixels, ground(pixels))
    torch.testing.assert_close(turned, window(network, pixels, ground(pixels)), atol=1e-6, rtol=0)


def test_the_loss_hears_the_plain_network_once() -> None:
    listener, pixels = Listener(identity), image(32, 24)
    window = SlidingWindow(BINARY, (32, 24), 8, transforms=get_transforms("flips"))
    window(listener, pixels, ground(pixels), listener.on_logits)
    assert len(listener.seen) == 4
    ((logits, rows, columns),) = listener.told
    assert torch.equal(logits, pixels[:, :1])
    assert (rows, columns) == (slice(0, 32), slice(0, 24))
