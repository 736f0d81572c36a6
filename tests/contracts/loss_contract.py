"""What every loss keeps to, whatever the task. A loss's test inherits it with one line: how the loss is made.

class TestMyLoss(LossContract):
    make = staticmethod(lambda: MyLoss(alpha=0.5))
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medseg_pl.core.labels import IGNORE, LabelMap

TASKS = {
    "binary": LabelMap(["spleen"], "binary"),
    "multiclass": LabelMap(["spleen", "liver"], "multiclass"),
    "multilabel": LabelMap(["spleen", "liver", "vessel"], "multilabel"),
}


def reference_mask(labels: LabelMap, size: int = 16) -> Tensor:
    """A stored mask of two images, in both of which every label has a bar of its own, and background remains."""
    mask = torch.zeros(2, labels.mask_channels, size, size, dtype=torch.uint8)
    for index in range(len(labels.names)):
        rows = slice(1 + 4 * index, 4 + 4 * index)
        mask[0, index if labels.overlapping else 0, rows, 2:-1] = 1 if labels.overlapping else index + 1
        mask[1, index if labels.overlapping else 0, rows, :7] = 1 if labels.overlapping else index + 1
    return mask


def logits_of(labels: LabelMap, mask: Tensor, certainty: float = 8.0) -> Tensor:
    """What a network gives that is certain of a mask."""
    hot = torch.stack([torch.from_numpy(labels.planes(sample.numpy())) for sample in mask])
    if labels.task == "multiclass":
        hot = torch.cat([~hot.any(dim=1, keepdim=True), hot], dim=1)
    return (hot.float() * 2 - 1) * certainty


class LossContract:
    """Finite, lower for what is right, with a gradient, blind to ignored voxels, and hard on false positives."""

    make: Callable[[], nn.Module]

    @pytest.fixture
    def loss(self) -> nn.Module:
        return self.make()

    @pytest.fixture(params=list(TASKS))
    def labels(self, request: pytest.FixtureRequest) -> LabelMap:
        return TASKS[request.param]

    @pytest.fixture
    def mask(self, labels: LabelMap) -> Tensor:
        return reference_mask(labels)

    @pytest.fixture
    def guess(self, labels: LabelMap) -> Tensor:
        """Logits that know nothing."""
        return torch.randn(2, labels.classes, 16, 16, generator=torch.Generator().manual_seed(0))

    def test_one_finite_number_that_is_not_negative(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        value = loss(guess, labels.target(mask))
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert value >= 0

    def test_the_more_is_right_the_lower(self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor) -> None:
        target = labels.target(mask)
        right = logits_of(labels, mask)
        half = right.clone()
        half[:, :, ::2] = guess[:, :, ::2]
        values = [loss(logits, target).item() for logits in (right, half, guess, -right)]
        assert values == sorted(values)
        assert values[0] < 0.1 * values[-1]

    def test_a_step_down_the_gradient_lowers_it(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        logits, target = guess.requires_grad_(), labels.target(mask)
        before = loss(logits, target)
        before.backward()
        gradient = logits.grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert (gradient.abs().amax(dim=(0, 2, 3)) > 0).all()  # in every channel
        step = 0.1 / float(gradient.norm())
        assert loss((logits - step * gradient).detach(), target) < before

    def test_ignored_voxels_change_nothing(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        mask[..., 10:] = IGNORE
        target = labels.target(mask)
        other = guess.clone()
        other[..., 10:] = 9.0 * guess[..., 10:].flip(0)
        torch.testing.assert_close(loss(other, target), loss(guess, target), rtol=1e-6, atol=1e-7)
        logits = guess.requires_grad_()
        loss(logits, target).backward()
        assert logits.grad is not None
        assert (logits.grad[..., 10:] == 0).all()
        assert (logits.grad[..., :10] != 0).any()

    def test_a_batch_that_nobody_annotated_moves_nothing(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        logits = guess.requires_grad_()
        value = loss(logits, labels.target(torch.full_like(mask, IGNORE)))
        assert torch.isfinite(value)
        value.backward()
        assert logits.grad is not None
        assert (logits.grad == 0).all()

    def test_false_positives_cost_where_the_reference_is_empty(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor
    ) -> None:
        target = labels.target(torch.zeros_like(mask))
        few = torch.zeros_like(mask)
        few[0, 0, :2, :3] = 1
        values = [loss(logits_of(labels, found), target).item() for found in (torch.zeros_like(mask), few, mask)]
        assert values[0] < values[1] < values[2]

    def test_false_positives_have_a_gradient_where_the_reference_is_empty(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor
    ) -> None:
        logits = logits_of(labels, mask, certainty=2.0).requires_grad_()
        loss(logits, labels.target(torch.zeros_like(mask))).backward()
        assert logits.grad is not None
        label = logits.grad[:, 1 if labels.task == "multiclass" else 0]
        assert (label[mask[:, 0] == 1] > 0).all()  # less of the label is better

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_does_not_overflow(self, loss: nn.Module, labels: LabelMap, dtype: torch.dtype) -> None:
        # The sums over 512 x 512 pixels are beyond 65504, the largest number in half precision.
        mask = reference_mask(labels, size=512)
        logits = logits_of(labels, mask, certainty=3.0).flip(2)
        value = loss(logits.to(dtype), labels.target(mask))
        assert torch.isfinite(value)
        torch.testing.assert_close(value.float(), loss(logits, labels.target(mask)), rtol=2e-2, atol=1e-3)

    def test_extreme_logits_stay_finite(self, loss: nn.Module, labels: LabelMap, mask: Tensor) -> None:
        for sign in (1, -1):
            logits = (sign * logits_of(labels, mask, certainty=1e4)).requires_grad_()
            value = loss(logits, labels.target(mask))
            assert torch.isfinite(value)
            value.backward()
            assert logits.grad is not None
            assert torch.isfinite(logits.grad).all()

    def test_volumes_are_as_good_as_images(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        volume = loss(guess.unflatten(2, (4, 4)), labels.target(mask.unflatten(2, (4, 4))))
        torch.testing.assert_close(volume, loss(guess, labels.target(mask)))

    def test_the_arguments_are_left_as_they_are(
        self, loss: nn.Module, labels: LabelMap, mask: Tensor, guess: Tensor
    ) -> None:
        mask[..., :2] = IGNORE
        target = labels.target(mask)
        logits_before, target_before = guess.clone(), target.clone()
        loss(guess, target)
        assert torch.equal(guess, logits_before)
        assert torch.equal(target, target_before)
