"""Progress of a run: its length in steps and time, a bar or lines that show it, and the phase that it is in."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, RichProgressBar, Timer
from torch.optim.lr_scheduler import OneCycleLR

from medseg_pl.core.errors import SettingError
from medseg_pl.models.optimizers import HUNDREDTHS, WarmupPolynomialLR, is_score_driven

log = logging.getLogger(__name__)

Phase = Literal["preparation", "training", "validation", "test", "prediction"]

_WIDTHS = {"epoch": 7, "step": 17, "train/loss": 12, "val/loss": 10, "val/dice": 10, "steps/s": 10, "min left": 10}

_LINES_TO_A_HEADER = 20


def count_accumulated_batches(trainer: Trainer, epoch: int) -> int:
    """Return how many batches make one optimizer step in an epoch."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return int(trainer.accumulate_grad_batches)


def restore_accumulation(trainer: Trainer) -> None:
    """Set the accumulation of the epoch that training goes on in."""
    # Lightning does so at the beginning of an epoch alone.
    trainer.accumulate_grad_batches = count_accumulated_batches(trainer, trainer.current_epoch)


def count_run_steps(trainer: Trainer) -> float:
    """Count the optimizer steps of a run, first to last.

    Steps that are done count as they were done, and those to come as the settings are now. It needs the training
    loader.

    Returns:
        Infinite where only time ends the run.
    """
    limits: list[float] = [trainer.max_steps] if trainer.max_steps != -1 else []
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs not in (None, -1) and not math.isinf(batches):
        first = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        each = [count_accumulated_batches(trainer, epoch) for epoch in range(first, epochs)]
        left = sum(math.ceil(batches / size) for size in each)
        if each:  # the last step of an epoch may have fewer batches than the others
            left -= math.ceil(begun / each[0]) if begun >= batches else begun // each[0]
        limits.append(trainer.global_step + left)
    return min(limits, default=math.inf)


def has_time_limit(trainer: Trainer) -> bool:
    """Check whether `trainer.max_time` or a `Timer` ends the run."""
    return bool(_find_timers(trainer))


def is_time_up(trainer: Trainer) -> bool:
    """Check whether a time limit has ended the run."""
    return any(_get_remaining(timer) <= 0 for timer in _find_timers(trainer))


def get_passed_hundredths(trainer: Trainer) -> int:
    """Return the passed hundredths of a run's time, equal on all ranks.

    It is 0 without a limit.
    """
    if not (timers := _find_timers(trainer)):
        return 0
    shares = [timer.time_elapsed() / (timer.time_elapsed() + max(0.0, _get_remaining(timer))) for timer in timers]
    return int(trainer.strategy.broadcast(int(HUNDREDTHS * max(shares))))


def estimate_seconds_left(trainer: Trainer, by_steps: float) -> float:
    """Estimate the time that a training still takes.

    Args:
        trainer: May have a time limit, which leaves no more than its rest.
        by_steps: What its steps take, in seconds.
    """
    return max(0.0, min([by_steps, *(_get_remaining(timer) for timer in _find_timers(trainer))]))


def plan_schedules(trainer: Trainer) -> None:
    """Fit the schedules to the run, and note where they differ.

    Raises:
        SettingError: A schedule ends before the run does, or its warm-up does not, or the run has no end to plan for.
    """
    steps = count_run_steps(trainer)
    for configured in trainer.lr_scheduler_configs:
        scheduler = configured.scheduler
        if isinstance(scheduler, WarmupPolynomialLR):
            _plan_schedule(scheduler, steps, trainer)
            continue
        if isinstance(scheduler, OneCycleLR):
            _require_length(scheduler, configured.interval, steps, trainer)
        if has_time_limit(trainer) and not is_score_driven(scheduler):
            log.warning(
                "model.lr_scheduler %s does not follow the time limit: the run may end before the schedule does. "
                "WarmupPolynomialLR follows it.",
                type(scheduler).__name__,
            )


def step_schedule(trainer: Trainer, scheduler: Any) -> None:
    """Step a schedule, which may follow the time as well.

    Raises:
        SettingError: The schedule is over.
    """
    if isinstance(scheduler, WarmupPolynomialLR):
        scheduler.pass_time(get_passed_hundredths(trainer))
    try:
        scheduler.step()
    except ValueError as error:
        if "total steps" not in str(error):
            raise
        raise SettingError(
            f"model.lr_scheduler {type(scheduler).__name__} is over after {scheduler.total_steps} steps, and the run "
            "is not. Raise its total_steps."
        ) from error


def _plan_schedule(scheduler: WarmupPolynomialLR, steps: float, trainer: Trainer) -> None:
    if math.isinf(steps) and scheduler.total_steps is None and not has_time_limit(trainer):
        raise SettingError(
            "The run has no end that the learning rate could follow. Set trainer.max_epochs, max_steps or max_time, or "
            "total_steps of model.lr_scheduler."
        )
    before = scheduler.planned_steps
    scheduler.pass_time(get_passed_hundredths(trainer))
    planned = scheduler.plan(steps)
    rate = scheduler.get_last_lr()[0]
    if before is not None and before != planned:
        now, then = (f"{length:.0f} steps" if math.isfinite(length) else "its time" for length in (planned, before))
        log.warning("The learning rate is planned for %s now, no longer for %s: it goes on at %.3g.", now, then, rate)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        _check_warmup(scheduler, planned)
    if math.isfinite(planned) and planned < steps:
        log.warning(
            "model.lr_scheduler has total_steps %.0f, and the run more: the learning rate is zero after them. Leave "
            "total_steps out to follow the run.",
            planned,
        )


def _check_warmup(scheduler: WarmupPolynomialLR, steps: float) -> None:
    """Refuse a warm-up as long as the run; note a long one."""
    warmup = scheduler.planned_warmup
    if scheduler.last_epoch >= warmup or warmup <= steps / 2:
        return
    remedy = "Set warmup_fraction of model.lr_scheduler in place of warmup_steps, or train for longer."
    if warmup >= steps:
        share = steps / warmup
        raise SettingError(
            f"model.lr_scheduler warms up for {warmup} steps, but the run has {steps:.0f}: it would end at {share:.0%} "
            f"of its learning rate. {remedy}"
        )
    log.warning("model.lr_scheduler warms up for %d of the run's %.0f steps. %s", warmup, steps, remedy)


def _require_length(scheduler: OneCycleLR, interval: str, steps: float, trainer: Trainer) -> None:
    """Refuse a cycle that ends before the run."""
    # Torch would stop training in its middle.
    needed = steps if interval == "step" else trainer.max_epochs or 0
    if math.isfinite(needed) and needed > scheduler.total_steps:
        raise SettingError(
            f"model.lr_scheduler OneCycleLR ends after {scheduler.total_steps} {interval}s, but the run has "
            f"{needed:.0f}. Set its total_steps to {needed:.0f}."
        )


def _find_timers(trainer: Trainer) -> list[Timer]:
    """Find the timers that end a run."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return [timer for timer in timers if timer.time_remaining() is not None]


def _get_remaining(timer: Timer) -> float:
    return timer.time_remaining() or 0.0


def validate_at_end(trainer: Trainer, validated: int) -> None:
    """Validate where training ends, unless the last validation saw these weights.

    Lightning validates where its intervals say so, and a run may end between two of them, or before the first. Call
    this when an epoch ends, or the part of it that there is, before anyone saves or reads scores.

    Args:
        trainer: Fits.
        validated: After how many batches, of all epochs, the last validation was complete.
    """
    loop = trainer.fit_loop
    if validated > loop.total_batch_idx or not trainer.enable_validation or not _is_last_epoch(trainer):
        return
    # As every validation, this one belongs to the last step and to the epoch that ends: Lightning counts both up after
    # it, and what is saved in it goes on from there.
    _shift_counters(trainer, -1)
    trainer.validating = True
    loop.epoch_loop.val_loop.run()
    trainer.training = True
    _shift_counters(trainer, 1)


def _is_last_epoch(trainer: Trainer) -> bool:
    """Check whether training ends with this epoch."""
    # Lightning's answer counts the epoch as completed as well, which comes later.
    current = trainer.fit_loop.epoch_progress.current
    completed = current.completed
    ends = trainer.fit_loop.done
    current.completed = completed
    return ends


def _shift_counters(trainer: Trainer, change: int) -> None:
    """Change the counters of steps for the loggers, and of epochs."""
    progress = trainer.fit_loop.epoch_progress
    progress.total.processed += change  # type: ignore[attr-defined]
    progress.current.processed += change  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop._batches_that_stepped += change


class PhaseTracker(Callback):
    """Track the phase of the current batch, for errors.

    Lightning's own state forgets that as soon as something fails.

    Attributes:
        phase: `preparation` before the first batch; the end of a phase, where scores are merged, belongs to it.
    """

    def __init__(self) -> None:
        self.phase: Phase = "preparation"

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter training."""
        self.phase = "training"

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter validation, during a training or by itself."""
        self.phase = "validation"

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter the test."""
        self.phase = "test"

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        """Enter prediction."""
        self.phase = "prediction"


class LengthTracker(Callback):
    """Track how many optimizer steps a training is planned to have.

    Checkpoints keep the plan: a resumed run with nothing left to train does not start, and makes none.

    Attributes:
        planned_steps: Infinite where only time ends the training; `None` where nobody planned it.
    """

    def __init__(self) -> None:
        self.planned_steps: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps, of a resumed run those that are done included."""
        self.planned_steps = count_run_steps(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the plan."""
        return {"planned_steps": self.planned_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the plan."""
        self.planned_steps = state_dict["planned_steps"]

    def describe_end(self, trainer: Trainer) -> dict[str, Any]:
        """Describe how far a training came, and whether a time limit ended it.

        Returns:
            `epochs`, `steps`, `planned_steps` (`None` where it is not known, or infinite), and `out_of_time`.
        """
        steps, planned = trainer.global_step, self.planned_steps
        return {
            "epochs": trainer.current_epoch,
            "steps": steps,
            "planned_steps": None if planned is None or math.isinf(planned) else int(planned),
            # The time may also be up in the validation after the last step.
            "out_of_time": planned is not None and steps < planned and is_time_up(trainer),
        }


class ProgressBar(RichProgressBar):
    """Lightning's progress bar without the run's number.

    It ends before results are printed.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal, unless training goes on."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            self.teardown(trainer, pl_module, "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal."""
        super().on_test_end(trainer, pl_module)
        self.teardown(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal."""
        super().on_predict_end(trainer, pl_module)
        self.teardown(trainer, pl_module, "predict")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values beside the bar."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class LogLines(Callback):
    """Print one plain line after each validation of a training.

    It is for log files, where a bar would be noise. Lines are 78 characters long, under a header that comes again and
    again, since logs are read from their end.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._first_step = 0
        self._steps = math.inf
        self._lines = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_step = time.monotonic(), trainer.global_step
        self._steps = count_run_steps(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, steps, losses, score, rate and time left."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            header = _align({name: name for name in _WIDTHS}) if self._lines % _LINES_TO_A_HEADER == 0 else ""
            sys.stdout.write(header + _align(self._read_values(trainer)))
            sys.stdout.flush()  # log files are buffered, and someone may be watching them
            self._lines += 1

    def _read_values(self, trainer: Trainer) -> dict[str, str]:
        seconds = time.monotonic() - self._started
        rate = (trainer.global_step - self._first_step) / seconds if seconds else 0.0
        left = estimate_seconds_left(trainer, (self._steps - trainer.global_step) / rate if rate else math.inf)
        total = f"/{self._steps:.0f}" if math.isfinite(self._steps) else ""
        metrics = {name: f"{float(value):.4f}" for name, value in trainer.callback_metrics.items() if name in _WIDTHS}
        return {
            "epoch": f"{trainer.current_epoch + 1}",
            "step": f"{trainer.global_step}{total}",
            **metrics,
            "steps/s": f"{rate:.2f}",
            "min left": f"{left / 60:.1f}",
        }


def _align(values: dict[str, str]) -> str:
    """Align a line of the table; missing values become a dash."""
    return "".join(f"{values.get(name, '–'):>{width}}" for name, width in _WIDTHS.items()) + "\n"
