from __future__ import annotations

import pytest
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.models.losses.checking import check_loss

LABELS = LabelMap(["a", "b"], "multiclass")


class PerImage(nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.mean(dim=(1, 2, 3))


def test_a_loss_that_fits() -> None:
    check_loss(nn.CrossEntropyLoss(), LABELS)


def test_a_loss_of_another_task() -> None:
    with pytest.raises(SettingError, match=r"model\.loss BCEWithLogitsLoss cannot be computed for the task multiclass"):
        check_loss(nn.BCEWithLogitsLoss(), LABELS)


def test_a_loss_that_is_not_one_number() -> None:
    with pytest.raises(SettingError, match=r"model\.loss PerImage must return one number, a tensor without axes"):
        check_loss(PerImage(), LABELS)
