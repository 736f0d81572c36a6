"""Preemption: save at the next step's end and leave, if a cluster or a person asks for it."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.errors import PreemptedError
from medseg_pl.core.stop_signals import BY_HAND, LEAVE, NOTHING_TO_SAVE, TIME_IS_UP, StopSignals, make_stop_error
from medseg_pl.training.checkpoints import last_checkpoint_path

log = logging.getLogger(__name__)

SIGNALS = (TIME_IS_UP, LEAVE, *BY_HAND)


class Preemption(Callback):
    """End a training that is asked to stop so that it can go on later: exit code 75, or 130 after Ctrl-C.

    All ranks agree before each step, by one number summed over them: whoever was signaled, all of them leave at the
    same step. Lightning exchanges such a number before each step as well, so ours never waits for a device that would
    not have been waited for anyway. A validation is broken off, and is run again when the training goes on: ranks have
    different numbers of validation batches, so they agree after the last one. Before the first step nothing is saved,
    and Ctrl-C ends at once whatever is being done.

    Args:
        stop: Where the signals are noted.
    """

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop
        self._requeue = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning's handlers out: they run collectives, and save, in the middle of whatever is being done."""
        trainer._signal_connector = _NoHandlers(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave before training begins."""
        self._leave_on_signal(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer Ctrl-C: from here on there is state to save."""
        self.stop.defers = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave between two steps of the optimizer; here, and not at a batch's end, the last one is logged as well."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._leave_on_signal(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Break a validation off, on this rank."""
        if self.stop.asked:
            raise StopIteration  # ends Lightning's loop over the batches

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave before the cases of all ranks are merged, which a validation that was broken off has not."""
        self._leave_on_signal(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Go back into the queue, last of all: Slurm ends this job at once."""
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
        """Save the state of a training that has one, and say in a sentence what there is to go on from."""
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
    """Put a Slurm job back into the queue; a refusal is a warning.

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
