"""Losses of other libraries, which enter a configuration by class_path, take the target as it is."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from medseg_pl.core.labels import IGNORE
from tests.contracts.loss_contract import TASKS, logits_of, reference_mask

FOREIGN = [
    ("binary", smp.losses.DiceLoss("binary", ignore_index=IGNORE)),
    ("multiclass", smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)),
    ("multilabel", smp.losses.DiceLoss("multilabel", ignore_index=IGNORE)),
    ("multiclass", smp.losses.FocalLoss("multiclass", ignore_index=IGNORE)),
    ("binary", smp.losses.FocalLoss("binary", ignore_index=IGNORE)),
    ("binary", smp.losses.SoftBCEWithLogitsLoss(ignore_index=IGNORE)),
    ("multiclass", nn.CrossEntropyLoss(ignore_index=IGNORE)),
]


@pytest.fixture(params=FOREIGN, ids=[f"{type(loss).__name__}-{task}" for task, loss in FOREIGN])
def foreign(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param  # type: ignore[no-any-return]


def test_the_right_answer_costs_less(foreign: tuple[str, nn.Module]) -> None:
    task, loss = foreign
    labels = TASKS[task]
    mask = reference_mask(labels)
    right = logits_of(labels, mask)
    assert loss(right, labels.target(mask)) < 0.1 * loss(-right, labels.target(mask))


def test_ignored_voxels_change_nothing(foreign: tuple[str, nn.Module]) -> None:
    task, loss = foreign
    labels = TASKS[task]
    mask = reference_mask(labels)
    mask[..., 10:] = IGNORE
    logits = logits_of(labels, reference_mask(labels), certainty=2.0)
    other = logits.clone()
    other[..., 10:] *= -1
    torch.testing.assert_close(loss(other, labels.target(mask)), loss(logits, labels.target(mask)))


def test_a_gradient_reaches_every_channel(foreign: tuple[str, nn.Module]) -> None:
    task, loss = foreign
    labels = TASKS[task]
    mask = reference_mask(labels)
    logits = logits_of(labels, mask.flip(2), certainty=1.0).requires_grad_()
    loss(logits, labels.target(mask)).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
