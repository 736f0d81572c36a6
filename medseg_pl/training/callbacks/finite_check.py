"""FiniteCheck: stop a training whose numbers are no longer finite, and save none of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medseg_pl.core.errors import DivergedError
from medseg_pl.core.types import Batch

_REMEDY = DivergedError.REMEDY


@dataclass
class _StepRecord:
    """A step whose numbers are on their way from the device."""

    step: int
    cases: tuple[str, ...]
    loss: Tensor
    scale: Tensor | None
    has_arrived: Callable[[], bool]


class FiniteCheck(Callback):
    """End a run that has diverged: at the first loss that is no number, and before any file is written.

    On a GPU the losses are copied to the host without waiting for them, so that a fault is reported a few steps later
    than it happens; before a checkpoint is saved, all of them are waited for, and the weights and what the optimizer
    remembers are looked at. With `16-mixed` a loss or a gradient that is not finite is part of the method: the step is
    left out and the loss scale lowered; many in a row are an error.

    Args:
        skips: How many steps in a row `16-mixed` may leave out.
    """

    def __init__(self, skips: int = 20) -> None:
        self.skips = skips
        self._records: deque[_StepRecord] = deque()
        self._skipped = 0
        self._step = 0
        self._scale: float | None = None
        self._has_infinite = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record this step's loss, and check those that have arrived."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        cases = batch.case_ids if isinstance(batch, Batch) else ()
        self._records.append(_record_step(loss.detach(), _copy_loss_scale(trainer), trainer.global_step, cases))
        while self._records and self._records[0].has_arrived():
            self._check_step(self._records.popleft())

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save what is not finite."""
        self._check_all()
        saved = list(_iterate_state(checkpoint))
        broken = [name for name, value in saved if not _is_finite(value)]
        if broken:
            raise DivergedError(
                f"At step {trainer.global_step} {len(broken)} of the {len(saved)} tensors to save are not finite "
                f"numbers, {broken[0]} among them: training has diverged, and nothing was saved. {_REMEDY}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last steps."""
        self._check_all()

    def _check_all(self) -> None:
        if self._records and torch.cuda.is_available():
            torch.cuda.synchronize()  # copies to the host may still be on their way
        while self._records:
            self._check_step(self._records.popleft())

    def _check_step(self, record: _StepRecord) -> None:
        finite = bool(torch.isfinite(record.loss))
        if record.scale is None:
            if not finite:
                raise DivergedError(
                    f"The training loss is {float(record.loss)} at step {record.step}{_name_cases(record.cases)}: "
                    f"training has diverged, or the images hold values that make it so. {_REMEDY}"
                )
            return
        self._has_infinite = self._has_infinite or not finite
        if record.step == self._step:  # gradients are still being added up
            return
        scale = float(record.scale)
        skipped = self._has_infinite or (self._scale is not None and scale < self._scale)
        self._step, self._scale, self._has_infinite = record.step, scale, False
        self._skipped = self._skipped + 1 if skipped else 0
        if self._skipped > self.skips:
            raise DivergedError(
                f"Half precision left out {self._skipped} steps in a row, the last at step {record.step}"
                f"{_name_cases(record.cases)}, since their gradients were not finite; the loss scale is {scale:g}. Set "
                f"trainer.precision to bf16-mixed, or: {_REMEDY[0].lower()}{_REMEDY[1:]}"
            )


def _record_step(loss: Tensor, scale: Tensor | None, step: int, cases: tuple[str, ...]) -> _StepRecord:
    if loss.device.type != "cuda":
        return _StepRecord(step, cases, loss, scale, lambda: True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copies = (value.to("cpu", non_blocking=True) if value is not None else None for value in (loss, scale))
    loss_copy, scale_copy = copies
    event.record()
    assert loss_copy is not None, "a loss was given"
    return _StepRecord(step, cases, loss_copy, scale_copy, event.query)


def _copy_loss_scale(trainer: Trainer) -> Tensor | None:
    """Copy the loss scale of `16-mixed` after this step; asking the scaler for a number would wait for the device."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scale = getattr(scaler, "_scale", None)
    return scale.detach().clone() if isinstance(scale, Tensor) else None


def _iterate_state(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Iterate over what training goes on from: the weights, and the optimizers' memory of gradients.

    A gradient whose square is infinite leaves weights alone: Adam divides by that square ever after, and nothing moves.
    """
    yield from checkpoint["state_dict"].items()
    for optimizer in checkpoint.get("optimizer_states", ()):
        for parameter, memory in optimizer.get("state", {}).items():  # of sharded weights rank zero has it alone
            for name, value in memory.items():
                yield f"the optimizer's {name} of parameter {parameter}", value


def _is_finite(value: Any) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(torch.isfinite(value).all())


def _name_cases(cases: tuple[str, ...]) -> str:
    shown = ", ".join(dict.fromkeys(cases))
    return f", in a batch of the cases {shown}" if shown else ""
