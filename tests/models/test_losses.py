"""Losses: the contract, sums worked out on paper, and values of torch, torchvision and MONAI."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from monai.losses import DiceLoss as MonaiDiceLoss
from monai.losses import TverskyLoss as MonaiTverskyLoss
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE
from medseg_pl.models.losses import DiceCELoss, DiceLoss, FocalTverskyLoss, PixelCELoss, WeightedSum
from tests.contracts.loss_contract import LossContract

CERTAIN = 50.0
"""A logit whose sigmoid is 1 in single precision."""


class TestDiceLoss(LossContract):
    make = DiceLoss


class TestDiceLossOfEachSampleWithBackground(LossContract):
    make = staticmethod(lambda: DiceLoss(batch=False, background=True))


class TestFocalTverskyLoss(LossContract):
    make = FocalTverskyLoss


class TestTverskyLossOfEachSample(LossContract):
    make = staticmethod(lambda: FocalTverskyLoss(alpha=0.6, beta=0.4, gamma=1.5, batch=False))


def binary(prediction: list[float], reference: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    logits = (torch.tensor(prediction) * 2 - 1) * CERTAIN
    return logits.view(1, 1, 1, -1), torch.tensor(reference).view(1, 1, 1, -1)


def test_tversky_on_paper() -> None:
    # TP = 2, FP = 1, FN = 3: T = (2 + 1) / (2 + 0.3 + 0.7 * 3 + 1) = 3 / 5.4
    logits, target = binary([1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0])
    assert FocalTverskyLoss()(logits, target).item() == pytest.approx((1 - 3 / 5.4) ** 0.75)


def test_dice_on_paper() -> None:
    # 1 - (2 TP + 2 smooth) / (2 TP + FP + FN + 2 smooth)
    logits, target = binary([1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0])
    assert DiceLoss()(logits, target).item() == pytest.approx(1 - 6 / 10)
    assert DiceLoss(smooth=3.0)(logits, target).item() == pytest.approx(1 - 10 / 14)


def test_an_empty_reference_on_paper() -> None:
    logits, target = binary([1, 1, 1, 0], [0, 0, 0, 0])
    assert DiceLoss()(logits, target).item() == pytest.approx(1 - 1 / (0.5 * 3 + 1))
    logits, target = binary([0, 0, 0, 0], [0, 0, 0, 0])
    assert DiceLoss()(logits, target).item() == pytest.approx(0, abs=1e-6)


def test_classes_count_alike_and_the_background_only_where_asked() -> None:
    # Classes of 4 pixels: background 0, then 1 and 2; pixels 2 and 3 are called 2, pixel 1 is right.
    target = torch.tensor([[[0, 1, 1, 2]]])
    called = torch.tensor([[[0, 1, 2, 2]]])
    logits = torch.nn.functional.one_hot(called, 3).permute(0, 3, 1, 2) * CERTAIN
    first, second = 1 - (2 + 2) / (2 + 1 + 2), 1 - (2 + 2) / (2 + 1 + 2)
    assert DiceLoss()(logits, target).item() == pytest.approx((first + second) / 2)
    assert DiceLoss(background=True)(logits, target).item() == pytest.approx((0 + first + second) / 3)


def test_a_batch_is_one_region_or_several() -> None:
    logits = torch.cat([binary([1, 1], [0, 0])[0], binary([1, 1], [1, 1])[0]])
    target = torch.cat([binary([1, 1], [0, 0])[1], binary([1, 1], [1, 1])[1]])
    assert DiceLoss(batch=True)(logits, target).item() == pytest.approx(1 - (4 + 2) / (4 + 2 + 2))
    assert DiceLoss(batch=False)(logits, target).item() == pytest.approx(((1 - 2 / 4) + 0) / 2)


def test_beta_above_alpha_favors_recall() -> None:
    _, target = binary([], [1, 1, 1, 0, 0, 0])
    too_much, _ = binary([1, 1, 1, 1, 1, 0], [0] * 6)
    too_little, _ = binary([1, 0, 0, 0, 0, 0], [0] * 6)
    loss = FocalTverskyLoss(alpha=0.3, beta=0.7, gamma=1)
    assert loss(too_much, target) < loss(too_little, target)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_equal_to_monai_where_labels_exclude_each_other(batch: bool, background: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 9, 11, generator=generator)
    target = torch.randint(0, 4, (3, 9, 11), generator=generator)
    shared: dict[str, Any] = {
        "softmax": True, "to_onehot_y": True, "include_background": background, "batch": batch,
    }  # fmt: skip
    # MONAI's constants stand beside 2 TP in its Dice and beside TP in its Tversky index.
    dice = MonaiDiceLoss(**shared, smooth_nr=2.0, smooth_dr=2.0)
    torch.testing.assert_close(
        DiceLoss(batch=batch, background=background)(logits, target), dice(logits, target.unsqueeze(1))
    )
    tversky = MonaiTverskyLoss(**shared, alpha=0.2, beta=0.9, smooth_nr=1.0, smooth_dr=1.0)
    ours = FocalTverskyLoss(alpha=0.2, beta=0.9, gamma=1, batch=batch, background=background)
    torch.testing.assert_close(ours(logits, target), tversky(logits, target.unsqueeze(1)))


@pytest.mark.parametrize("batch", [True, False])
def test_equal_to_monai_where_labels_may_overlap(batch: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 9, 11, generator=generator)
    target = torch.randint(0, 2, (3, 2, 9, 11), generator=generator).float()
    dice = MonaiDiceLoss(sigmoid=True, batch=batch, smooth_nr=2.0, smooth_dr=2.0)
    torch.testing.assert_close(DiceLoss(batch=batch)(logits, target), dice(logits, target))


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


class TestDiceCELoss(LossContract):
    make = DiceCELoss


class TestDiceCELossOfEachSample(LossContract):
    make = staticmethod(lambda: DiceCELoss(batch=False))


class TestWeightedSum(LossContract):
    make = staticmethod(lambda: WeightedSum([FocalTverskyLoss(), PixelCELoss(focus=2.0)], [0.25, 4.0]))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.randint(0, 3, (2, 8, 8), generator=generator)


def test_a_sum_is_a_sum(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = DiceLoss(), PixelCELoss()
    expected = 0.5 * first(*batch) + 3 * second(*batch)
    torch.testing.assert_close(WeightedSum([first, second], [0.5, 3])(*batch), expected)


def test_without_weights_all_terms_count_once(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    terms: list[nn.Module] = [DiceLoss(), PixelCELoss(), FocalTverskyLoss()]
    torch.testing.assert_close(WeightedSum(terms)(*batch), torch.stack([term(*batch) for term in terms]).sum())


@pytest.mark.parametrize("batchwise", [True, False])
def test_dice_and_cross_entropy(batch: tuple[torch.Tensor, torch.Tensor], batchwise: bool) -> None:
    loss = DiceCELoss(dice_weight=2.0, ce_weight=0.5, batch=batchwise)
    expected = 2 * DiceLoss(batch=batchwise)(*batch) + 0.5 * PixelCELoss()(*batch)
    torch.testing.assert_close(loss(*batch), expected)


def test_a_weight_of_zero_switches_a_term_off(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(DiceCELoss(ce_weight=0.0)(*batch), DiceLoss()(*batch))


def test_terms_move_with_the_sum() -> None:
    loss = WeightedSum([PixelCELoss([1.0, 2.0])]).to("meta")
    assert [buffer.device.type for buffer in loss.buffers()] == ["meta"]


@pytest.mark.parametrize(
    ("terms", "weights", "counts"), [(0, None, "0 and 0"), (2, [1.0], "2 and 1"), (1, [], "1 and 0")]
)
def test_weights_and_terms_must_be_as_many(terms: int, weights: Any, counts: str) -> None:
    with pytest.raises(SettingError, match=f"needs one weight for each loss; got {counts}"):
        WeightedSum([DiceLoss() for _ in range(terms)], weights)
