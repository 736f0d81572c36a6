"""A training that is asked to stop: what it saves, what it says, and whether its job goes back into the queue."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.errors import InterruptedRunError, PreemptedError
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.training.callbacks.stopping import Preemption, requeue_job

NO_MODULE: Any = Mock(spec=LightningModule)


def make_trainer(**settings: Any) -> Any:
    """A trainer of one process in its third step."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision, launcher=None)
    usual: dict[str, Any] = {
        "strategy": strategy,
        "loggers": [Mock()],
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
        "sanity_checking": False,
        "global_step": 3,
        "checkpoint_callbacks": [Mock()],
        "log_dir": "run",
        "accumulate_grad_batches": 2,
        "is_global_zero": True,
    }
    return Mock(spec=Trainer, **(usual | settings))


def asked(*numbers: int) -> StopSignals:
    stop = StopSignals()
    stop.received.update(numbers)
    return stop


class TestLeaving:
    def test_between_two_steps_the_state_is_saved(self) -> None:
        trainer = make_trainer()
        callback = Preemption(asked(signal.SIGTERM))
        callback.on_train_batch_start(trainer, NO_MODULE, None, 1)  # gradients are still being added up
        with pytest.raises(PreemptedError, match=r"Asked to stop \(SIGTERM\)\. Step 3 is saved;"):
            callback.on_train_batch_start(trainer, NO_MODULE, None, 2)
        trainer.save_checkpoint.assert_called_once_with(Path("run/checkpoints/last.ckpt"))
        trainer.loggers[0].save.assert_called_once_with()

    def test_nobody_who_was_not_asked_leaves(self) -> None:
        callback, trainer = Preemption(asked()), make_trainer()
        callback.on_fit_start(trainer, NO_MODULE)
        callback.on_train_start(trainer, NO_MODULE)
        callback.on_train_batch_start(trainer, NO_MODULE, None, 0)
        callback.on_validation_batch_end(trainer)
        callback.on_validation_epoch_end(trainer, NO_MODULE)
        trainer.save_checkpoint.assert_not_called()
        assert callback.stop.defers

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"global_step": 0}, "No step was made"),
            ({"sanity_checking": True}, "No step was made"),
            ({"checkpoint_callbacks": []}, "The trainer keeps no checkpoints"),
            ({"state": SimpleNamespace(fn=TrainerFn.VALIDATING)}, "Training is done"),
        ],
    )
    def test_what_cannot_be_saved_is_said(self, settings: dict[str, Any], said: str) -> None:
        trainer = make_trainer(**settings)
        with pytest.raises(InterruptedRunError, match=said):
            Preemption(asked(signal.SIGINT)).on_validation_epoch_end(trainer, NO_MODULE)
        trainer.save_checkpoint.assert_not_called()

    def test_a_validation_is_broken_off(self) -> None:
        with pytest.raises(StopIteration):
            Preemption(asked(signal.SIGINT)).on_validation_batch_end(make_trainer())

    def test_lightnings_launcher_lets_the_other_ranks_leave_too(self) -> None:
        launcher = Mock(spec=_SubprocessScriptLauncher, procs=[1, 2])
        strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision, launcher=launcher)
        with pytest.raises(PreemptedError):
            Preemption(asked(signal.SIGTERM)).on_fit_start(make_trainer(strategy=strategy), NO_MODULE)
        assert launcher.procs == []


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's command, which notes what it is asked, and the environment of a job."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return tmp_path


class TestQueue:
    @pytest.mark.parametrize(
        ("numbers", "exception", "settings", "requeued"),
        [
            ((signal.SIGUSR1,), PreemptedError("time is up"), {}, True),
            ((signal.SIGUSR1,), RuntimeError("a rank was lost"), {"global_step": 0}, True),
            ((signal.SIGUSR1,), RuntimeError("no memory"), {}, False),
            ((signal.SIGTERM,), PreemptedError("somebody cancels"), {}, False),
            ((signal.SIGUSR1,), PreemptedError("time is up"), {"is_global_zero": False}, False),
        ],
    )
    def test_one_rank_puts_a_job_back_whose_time_is_up(
        self, queue: Path, numbers: tuple[int, ...], exception: Exception, settings: dict[str, Any], requeued: bool
    ) -> None:
        Preemption(asked(*numbers)).on_exception(make_trainer(**settings), NO_MODULE, exception)
        assert (queue / "asked").exists() == requeued
        assert not requeued or (queue / "asked").read_text() == "requeue 17\n"

    def test_a_refusal_is_a_warning(self, queue: Path, caplog: pytest.LogCaptureFixture) -> None:
        (queue / "scontrol").write_text("#!/bin/sh\necho 'Job is not in the queue' >&2\nexit 1\n")
        requeue_job(os.environ)
        assert "Slurm does not put job 17 back into the queue (Job is not in the queue)" in caplog.text

    def test_no_slurm_is_a_warning_too(self, caplog: pytest.LogCaptureFixture) -> None:
        requeue_job({"SLURM_JOB_ID": "17", "PATH": "nowhere"})
        assert "Slurm does not put job 17 back" in caplog.text

    def test_outside_a_job_nothing_is_asked(self, queue: Path) -> None:
        requeue_job({})
        assert not (queue / "asked").exists()
