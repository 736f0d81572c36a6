"""Losses of pixels: the contract, torch's and torchvision's values, and the paper's formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE
from medseg_pl.models.losses import PixelCELoss
from tests.contracts.loss_contract import LossContract


class TestPixelCELoss(LossContract):
    make = PixelCELoss


class TestFocalLoss(LossContract):
    make = staticmethod(lambda: PixelCELoss(focus=2.0))


class TestFocalLossWithARoot(LossContract):
    make = staticmethod(lambda: PixelCELoss(focus=0.5))


@pytest.fixture
def exclusive() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (3, 9, 11), generator=generator)
    target[:, :2] = IGNORE
    return torch.randn(3, 4, 9, 11, generator=generator) * 3, target


@pytest.fixture
def overlapping() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (3, 2, 9, 11), generator=generator).float()
    target[:, 1, :2] = IGNORE
    return torch.randn(3, 2, 9, 11, generator=generator) * 3, target


def test_a_pixel_on_paper() -> None:
    logits = torch.tensor([1.0, 3.0, 4.0]).log().view(1, 3, 1)  # probabilities 1/8, 3/8, 4/8
    target = torch.tensor([[1]])
    assert PixelCELoss()(logits, target).item() == pytest.approx(-math.log(3 / 8))
    assert PixelCELoss(focus=2)(logits, target).item() == pytest.approx(-((5 / 8) ** 2) * math.log(3 / 8))
    assert PixelCELoss([7, 5, 9], focus=2)(logits, target).item() == pytest.approx(-5 * (5 / 8) ** 2 * math.log(3 / 8))


def test_a_pixel_of_two_labels_on_paper() -> None:
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1)  # probabilities 3/4, 1/2
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1)
    assert PixelCELoss()(logits, target).item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    weighted = (-4 * (1 / 4) * math.log(3 / 4) - 6 * (1 / 2) * math.log(1 / 2)) / 2
    assert PixelCELoss([4, 6], focus=1)(logits, target).item() == pytest.approx(weighted)


def test_equal_to_torch_where_labels_exclude_each_other(exclusive: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(PixelCELoss()(*exclusive), F.cross_entropy(*exclusive, ignore_index=IGNORE))


def test_weights_multiply_the_pixels_of_their_class(exclusive: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = exclusive
    weights = [0.1, 1.0, 2.0, 5.0]
    summed = F.cross_entropy(logits, target, torch.tensor(weights), ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(PixelCELoss(weights)(logits, target), summed / (target != IGNORE).sum())


def test_equal_to_torch_where_labels_may_overlap(overlapping: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = overlapping
    known = target != IGNORE
    torch.testing.assert_close(
        PixelCELoss()(logits, target), F.binary_cross_entropy_with_logits(logits[known], target[known])
    )


@pytest.mark.parametrize("focus", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_of_torchvision(overlapping: tuple[torch.Tensor, torch.Tensor], focus: float) -> None:
    logits, target = overlapping
    known = target != IGNORE
    expected = sigmoid_focal_loss(logits[known], target[known], alpha=-1, gamma=focus, reduction="mean")
    torch.testing.assert_close(PixelCELoss(focus=focus)(logits, target), expected)


def test_the_focal_loss_of_exclusive_labels_is_the_papers(exclusive: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = exclusive
    weights = torch.tensor([0.1, 1.0, 2.0, 5.0])
    terms = [
        -weights[label] * (1 - p[label]) ** 2 * p[label].log()
        for p, label in zip(logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2), target.flatten(), strict=True)
        if label != IGNORE
    ]
    ours = PixelCELoss(weights.tolist(), focus=2)(logits, target)
    torch.testing.assert_close(ours, torch.stack(terms).mean())


def test_nothing_annotated_costs_nothing(exclusive: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = exclusive
    assert PixelCELoss()(logits, torch.full_like(target, IGNORE)).item() == 0


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0] * 5])
def test_weights_and_classes_must_be_as_many(
    exclusive: tuple[torch.Tensor, torch.Tensor], weights: list[float]
) -> None:
    with pytest.raises(SettingError) as caught:
        PixelCELoss(weights)(*exclusive)
    assert str(caught.value) == (
        f"PixelCELoss has {len(weights)} weights for the 4 classes of the network. Give model.loss one weight for "
        "each label, and one for the background first where labels exclude each other."
    )


def test_weights_follow_the_device_and_stay_out_of_checkpoints() -> None:
    loss = PixelCELoss([1.0, 2.0])
    assert loss.to("meta").weights is not None
    assert loss.weights is not None
    assert loss.weights.device.type == "meta"
    assert loss.state_dict() == {}
