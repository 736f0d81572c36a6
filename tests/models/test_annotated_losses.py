"""Losses of other libraries: targets as they are, annotated pixels alone, and the check before training."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.models.annotated_losses import (
    AnnotatedLoss,
    check_loss,
    check_soft_targets,
    exclude_ignored,
    leave_out_labels,
)
from medseg_pl.models.losses import DiceCELoss, DiceLoss, WeightedSum
from tests.contracts.loss_contract import TASKS, logits_of, reference_mask

BINARY = LabelMap(["a"], "binary", ignore_value=9)
CLASSES = LabelMap(["a", "b"], "multiclass", ignore_value=9)
OVERLAPPING = LabelMap(["a", "b"], "multilabel", ignore_value=9)
LOSSES = [
    *((BINARY, loss("binary")) for loss in (smp.losses.DiceLoss, smp.losses.JaccardLoss, smp.losses.TverskyLoss)),
    (BINARY, smp.losses.FocalLoss("binary")),
    (BINARY, smp.losses.LovaszLoss("binary", per_image=True)),
    (BINARY, smp.losses.SoftBCEWithLogitsLoss(ignore_index=IGNORE)),  # its mean counts the ignored pixels too
    (BINARY, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))),
    (CLASSES, nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 4.0]), label_smoothing=0.1)),
    (CLASSES, nn.CrossEntropyLoss(ignore_index=IGNORE)),  # NaN where nobody annotated anything
    (CLASSES, smp.losses.JaccardLoss("multiclass")),
    (CLASSES, smp.losses.DiceLoss("multiclass", log_loss=True)),
    (CLASSES, smp.losses.SoftCrossEntropyLoss(smooth_factor=0.1)),
    (CLASSES, smp.losses.LovaszLoss("multiclass")),
    (OVERLAPPING, nn.BCEWithLogitsLoss()),
    (OVERLAPPING, smp.losses.DiceLoss("multilabel")),
    (OVERLAPPING, smp.losses.FocalLoss("multilabel")),
    (OVERLAPPING, WeightedSum([DiceLoss(batch=False), nn.BCEWithLogitsLoss(), smp.losses.JaccardLoss("multilabel")])),
]
PLACED = torch.linspace(0, 1, 256).view(16, 16)


class WeightedByPlace(nn.Module):
    """Asks where a pixel lies."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (PLACED * (logits.sigmoid() - target) ** 2).mean()


@pytest.fixture(params=LOSSES, ids=[f"{type(loss).__name__}-{labels.task}" for labels, loss in LOSSES])
def case(request: pytest.FixtureRequest) -> tuple[LabelMap, nn.Module]:
    return request.param  # type: ignore[no-any-return]


def sample(labels: LabelMap, columns: int = 12) -> tuple[Tensor, Tensor]:
    """Logits and a fully annotated mask `(2, M, 16, columns)`."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, labels.classes, 16, columns, generator=generator)
    most = 2 if labels.overlapping else labels.classes if labels.task == "multiclass" else 2
    return logits, torch.randint(most, (2, labels.mask_channels, 16, columns), generator=generator, dtype=torch.uint8)


def test_ignored_pixels_have_no_gradient_and_no_influence(case: tuple[LabelMap, nn.Module]) -> None:
    labels, loss = case
    loss = exclude_ignored(loss, labels)
    check_loss(loss, labels)
    logits, mask = sample(labels)
    mask[0, 0, 2:9] = IGNORE
    mask[1, :, 4:] = IGNORE
    logits.requires_grad_()
    value = loss(logits, labels.target(mask))
    value.backward()
    assert logits.grad is not None
    ignored = (mask == IGNORE).expand_as(logits)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).any()
    other = torch.where(ignored, logits.detach() * -3 + 5, logits.detach())
    torch.testing.assert_close(loss(other, labels.target(mask)), value.detach())


def test_the_value_is_that_of_the_annotated_part(case: tuple[LabelMap, nn.Module]) -> None:
    labels, loss = case
    logits, mask = sample(labels)
    expected = loss(logits[..., :5].contiguous(), labels.target(mask[..., :5].contiguous()))
    mask[..., 5:] = IGNORE
    torch.testing.assert_close(exclude_ignored(loss, labels)(logits, labels.target(mask)), expected)


def test_fully_annotated_masks_have_the_loss_they_had(case: tuple[LabelMap, nn.Module]) -> None:
    labels, loss = case
    logits, mask = sample(labels)
    target = labels.target(mask)
    torch.testing.assert_close(exclude_ignored(loss, labels)(logits, target), loss(logits, target))


def test_a_batch_that_nobody_annotated_moves_nothing(case: tuple[LabelMap, nn.Module]) -> None:
    labels, loss = case
    logits, mask = sample(labels)
    logits.requires_grad_()
    value = exclude_ignored(loss, labels)(logits, labels.target(torch.full_like(mask, IGNORE)))
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_binary_cross_entropy_with_ignored_pixels_by_hand() -> None:
    loss = exclude_ignored(nn.BCEWithLogitsLoss(), BINARY)
    logits = torch.tensor([[[[4.0, -4.0, 0.0, 0.0]]]])
    target = BINARY.target(torch.tensor([[[[1, 0, 255, 255]]]], dtype=torch.uint8))
    assert loss(logits, target).item() == pytest.approx(0.01815, abs=1e-5)  # log(1 + exp(-4))


@pytest.mark.parametrize("labels", [BINARY, CLASSES, OVERLAPPING])
def test_losses_that_skip_ignored_pixels_stay_as_they_are(labels: LabelMap) -> None:
    for loss in (DiceCELoss(), DiceLoss(batch=False), smp.losses.DiceLoss(labels.task, ignore_index=IGNORE)):
        assert exclude_ignored(loss, labels) is loss


def test_without_ignored_voxels_every_loss_stays_as_it_is() -> None:
    loss = nn.BCEWithLogitsLoss()
    assert exclude_ignored(loss, LabelMap(["a"], "binary")) is loss


def test_colors_can_mark_ignored_voxels_too() -> None:
    labels = LabelMap(["a"], "binary", colors={"a": (255, 0, 0), "ignore": (0, 0, 255)})
    assert isinstance(exclude_ignored(nn.BCEWithLogitsLoss(), labels), AnnotatedLoss)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (WeightedByPlace(), BINARY),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([[[2.0]], [[5.0]]])), OVERLAPPING),
    ],
)
def test_a_loss_that_cannot_skip_them_is_refused_by_name(loss: nn.Module, labels: LabelMap) -> None:
    message = rf"model\.loss {type(loss).__name__} counts voxels that labels\.ignore_value .*DiceCELoss"
    with pytest.raises(SettingError, match=message):
        check_loss(exclude_ignored(loss, labels), labels)


def test_the_bare_loss_does_not_pass_the_check() -> None:
    with pytest.raises(SettingError, match=r"model\.loss BCEWithLogitsLoss counts voxels"):
        check_loss(nn.BCEWithLogitsLoss(), BINARY)


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


ORGANS = LabelMap(["liver", "spleen"], "multiclass", partial=True)


def test_the_background_takes_the_probability_of_what_nobody_looked_for() -> None:
    # Softmax of ln 1, ln 2, ln 5: shares of 1/8, 2/8 and 5/8.
    logits = torch.tensor([1.0, 2.0, 5.0]).log().view(1, 3, 1, 1).repeat(2, 1, 1, 1)
    annotated = torch.tensor([[True, False], [True, True]])
    merged, _ = leave_out_labels(logits, torch.zeros(2, 1, 1, dtype=torch.long), annotated)
    expected = torch.tensor([[6 / 8, 2 / 8, 0], [1 / 8, 2 / 8, 5 / 8]])
    torch.testing.assert_close(merged.softmax(1).view(2, 3), expected)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), DiceCELoss(), smp.losses.DiceLoss("multiclass")])
def test_a_loss_of_two_classes_is_the_marginal_loss_of_three(loss: nn.Module) -> None:
    # The network of two classes has, for background, the sum of what three have for background and spleen.
    logits, mask = sample(ORGANS)
    mask[mask == 2] = 0
    shares = logits.softmax(1)
    two = torch.stack([shares[:, 0] + shares[:, 2], shares[:, 1]], dim=1).log()
    target, annotated = ORGANS.target(mask), torch.tensor([[True, False]]).repeat(2, 1)
    merged, left = leave_out_labels(logits, target, annotated)
    if isinstance(loss, DiceCELoss):
        # The label without a voxel is a class that is right, a third part of nothing more.
        dice, entropy = loss.losses
        torch.testing.assert_close(entropy(merged, left), entropy(two, target))
        torch.testing.assert_close(dice(merged, left), dice(two, target) / 2)
    elif isinstance(loss, nn.CrossEntropyLoss):
        torch.testing.assert_close(loss(merged, left), loss(two, target))
    else:  # it takes the mean over all classes, those that are absent being 0
        torch.testing.assert_close(loss(merged, left), loss(two, target) * 2 / 3)


def test_what_nobody_looked_for_is_free_to_take_background_and_nothing_else() -> None:
    logits = torch.zeros(1, 3, 1, 2, requires_grad=True)
    merged, target = leave_out_labels(logits, torch.tensor([[[0, 1]]]), torch.tensor([[True, False]]))
    nn.functional.cross_entropy(merged, target, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    (background, liver) = logits.grad[0, :, 0].T
    # Background and spleen are pulled alike where the mask says background, and pushed alike where it says liver.
    torch.testing.assert_close(background, torch.tensor([-1 / 6, 1 / 3, -1 / 6]))
    torch.testing.assert_close(liver, torch.tensor([1 / 3, -2 / 3, 1 / 3]))


def test_a_label_that_overlaps_is_ignored_where_nobody_looked_for_it() -> None:
    labels = LabelMap(["a", "b"], "multilabel", partial=True)
    logits, mask = sample(labels)
    annotated = torch.tensor([[True, False], [True, True]])
    for loss in (nn.BCEWithLogitsLoss(), DiceCELoss()):
        restricted = exclude_ignored(loss, labels)
        check_loss(restricted, labels)
        values = []
        for other in (0, 1):
            mask[0, 1] = other
            values.append(restricted(*leave_out_labels(logits, labels.target(mask), annotated)))
        torch.testing.assert_close(values[0], values[1])


class SquaredLogits(nn.Module):
    """Asks how large logits are, not only how they compare."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, target) + (logits**2).mean()


def test_a_loss_that_cannot_leave_out_labels_is_refused_by_name() -> None:
    check_loss(DiceCELoss(), ORGANS)
    check_loss(SquaredLogits(), LabelMap(["liver", "spleen"], "multiclass"))
    with pytest.raises(SettingError, match=r"model\.loss SquaredLogits counts labels that were not looked for"):
        check_loss(SquaredLogits(), ORGANS)


class Rounding(nn.Module):
    """Takes everything from a half on for the label."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits, (target > 0.5).float())


def test_the_mean_of_raters_is_for_losses_that_take_it() -> None:
    labels = LabelMap(["a"], "binary")
    for loss in (DiceCELoss(), nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")):
        check_soft_targets(loss, labels)
    with pytest.raises(SettingError, match=r"model\.loss Rounding takes no soft target.*set data\.rater to random"):
        check_soft_targets(Rounding(), labels)
    with pytest.raises(SettingError, match=r"labels that exclude each other have one class"):
        check_soft_targets(DiceCELoss(), ORGANS)
