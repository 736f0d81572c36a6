"""Losses of regions: the contract, sums worked out on paper, and MONAI's values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.losses import DiceLoss as MonaiDiceLoss
from monai.losses import TverskyLoss as MonaiTverskyLoss

from medseg_pl.models.losses import DiceLoss, FocalTverskyLoss
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
