"""Losses made of losses: the contract and the sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medseg_pl.core.errors import SettingError
from medseg_pl.models.losses import DiceCELoss, DiceLoss, FocalTverskyLoss, PixelCELoss, WeightedSum
from tests.contracts.loss_contract import LossContract


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
