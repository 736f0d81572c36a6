"""Callbacks that stop a training early: numbers that are not finite, and a cluster or a person that asks for it."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from medseg_pl.core.errors import DivergedError, PreemptedError, count_part
from medseg_pl.core.stop_signals import BY_HAND, LEAVE, NOTHING_TO_SAVE, TIME_IS_UP, StopSignals, make_stop_error
from medseg_pl.core.types import Batch
from medseg_pl.training.checkpoints import last_checkpoint_path

_REMEDY = DivergedError.REMEDY

log = logging.getLogger(__name__)

SIGNALS = (TIME_IS_UP, LEAVE, *BY_HAND)


@dataclass
class _StepRecord:
    """A step whose numbers are on their way from the device."""

    step: int
    cases: tuple[str, ...]
    loss: Tensor
    scale: Tensor | None
    has_arrived: Callable[[], bool]


class FiniteCheck(Callback):
    """End a diverged run at the first loss that is not finite.

    No file is written after it. On a GPU the losses are copied to the host without waiting for them, so that a fault is
    reported a few steps later than it happens; before a checkpoint is saved, all of them are waited for, and the
    weights and the optimizer's state are checked. With `16-mixed` a loss or a gradient that is not finite is part of
    the method: the step is left out and the loss scale lowered; many in a row are an error.

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
        """Refuse to save what is not finite.

        Raises:
            DivergedError: A tensor is not.
        """
        self._check_all()
        saved = list(_iterate_state(checkpoint))
        broken = [name for name, value in saved if not _is_finite(value)]
        if broken:
            raise DivergedError(
                f"At step {trainer.global_step} {count_part(len(broken), len(saved), 'tensor', 'is', 'are')} not "
                f"finite, {broken[0]} among them: training has diverged, and nothing was saved. {_REMEDY}"
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
    """Copy the loss scale of `16-mixed` after this step.

    Asking the scaler for a number would wait for the device.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scale = getattr(scaler, "_scale", None)
    return scale.detach().clone() if isinstance(scale, Tensor) else None


def _iterate_state(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Iterate over the weights and the optimizers' memory of gradients.

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


class Preemption(Callback):
    """End a training that is asked to stop, to be resumed.

    The exit code is 75, or 130 after Ctrl-C.

    All ranks agree before each step, by one number summed over them: whoever was signaled, all of them leave at the
    same step. Lightning exchanges such a number before each step as well, so ours never waits for a device that would
    not have been waited for anyway. A validation is broken off, and is run again when the training resumes: ranks have
    different numbers of validation batches, so they agree after the last one. Before the first step nothing is saved,
    and Ctrl-C ends at once whatever is being done.

    Args:
        stop: Where the signals are noted.
    """

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop
        self._requeue = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning's signal handlers out.

        They run collectives, and save, in the middle of whatever is being done.
        """
        trainer._signal_connector = _NoHandlers(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave before training begins."""
        self._leave_on_signal(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer Ctrl-C: from here on there is state to save."""
        self.stop.defers = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave between two steps of the optimizer.

        At a batch's end the last one would not have been logged yet.
        """
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._leave_on_signal(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Break a validation off, on this rank."""
        if self.stop.asked:
            raise StopIteration  # ends Lightning's loop over the batches

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave before the cases of all ranks are merged.

        A validation that was broken off does not have them all.
        """
        self._leave_on_signal(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the job back into the queue, last of all.

        Slurm ends this job at once.
        """
        # Before the first step, another rank may have left while this one waited for it, which is an error of its own.
        leaving = isinstance(exception, PreemptedError) or not trainer.global_step
        if leaving and trainer.is_global_zero and (self._requeue or self.stop.time_is_up):
            requeue_job(os.environ)

    def _leave_on_signal(self, trainer: Trainer) -> None:
        if not trainer.strategy.reduce_boolean_decision(self.stop.asked, all=False):
            return
        reduce = trainer.strategy.reduce_boolean_decision
        received = [number for number in SIGNALS if reduce(number in self.stop.received, all=False)]
        self._requeue = TIME_IS_UP in received
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.procs.clear()  # it would kill us when it sees that the other ranks have left
        saved = self._save(trainer)
        for logger in trainer.loggers:
            logger.save()
        raise make_stop_error(received, saved)

    def _save(self, trainer: Trainer) -> str:
        """Save the state of a training, and describe it in a sentence."""
        if trainer.state.fn != TrainerFn.FITTING:
            return "Training is done; the same command with --ckpt_path last scores its best weights."
        if trainer.sanity_checking or not trainer.global_step:
            return NOTHING_TO_SAVE
        if not trainer.checkpoint_callbacks:
            return "The trainer keeps no checkpoints, so nothing was saved."
        trainer.save_checkpoint(last_checkpoint_path(trainer))
        return f"Step {trainer.global_step} is saved; the same command with --ckpt_path last goes on."


class _NoHandlers(_SignalConnector):
    """Lightning's signal handling, without any."""

    def register_signal_handlers(self) -> None:
        """Register none."""


def requeue_job(environment: Mapping[str, str]) -> None:
    """Put a Slurm job back into the queue; warn if refused.

    Args:
        environment: The environment variables of the job.
    """
    if (job := find_slurm_job(environment)) is None:
        return
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False, env=dict(environment)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        refusal = str(error)
    else:
        refusal = done.stderr.strip() if done.returncode else ""
    if refusal:
        log.warning("Slurm does not put job %s back into the queue (%s). Submit it again; it goes on.", job, refusal)


def find_slurm_job(environment: Mapping[str, str]) -> str | None:
    """Find Slurm's name of the job that this process is part of.

    >>> find_slurm_job({"SLURM_JOB_ID": "17"})
    '17'
    >>> find_slurm_job({"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "15", "SLURM_ARRAY_TASK_ID": "2"})
    '15_2'
    >>> find_slurm_job({}) is None
    True
    """
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")
