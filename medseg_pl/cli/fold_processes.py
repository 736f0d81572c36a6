"""Trainings of several folds as processes of their own, one after the other or side by side."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from medseg_pl.core.errors import InterruptedRunError, MedsegError, PreemptedError, SettingError, WorkerDiedError
from medseg_pl.core.stop_signals import LEAVE, TIME_IS_UP, StopSignals, make_stop_error
from medseg_pl.training.callbacks.stopping import requeue_job

_POLL_S = 0.05
_PREEMPTED = PreemptedError.exit_code
_PR_SET_PDEATHSIG = 1
_LAST_LINES = 4000
# By these a training puts its job back into the queue; here all folds are to be asked first.
_JOB_NAMES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID")


class FoldTraining(NamedTuple):
    """A fold to train.

    Attributes:
        fold: Its number.
        arguments: What follows `medseg`.
        log: The file that takes what it prints; `None` for this terminal.
    """

    fold: int
    arguments: list[str]
    log: Path | None


def train_folds(
    trainings: Sequence[FoldTraining],
    jobs: int,
    stop: StopSignals,
    *,
    environments: Sequence[Mapping[str, str]],
    report: Callable[[str], None],
    stdout: int | None = None,
) -> None:
    """Train folds until all are complete; where one fails, the others save their state and end.

    Args:
        trainings: What is to be trained.
        jobs: How many at once.
        stop: Notes that this process is asked to stop; the trainings are then asked as well, and waited for.
        environments: Variables of each of `jobs` places beside those of this process, such as its devices.
        report: Takes a line for the reader.
        stdout: What takes the output of trainings without a log; that of this process by default.

    Raises:
        MedsegError: A fold failed, or everything was asked to stop; the exit code is that of the fold.
    """
    waiting, running, forwarded = deque(trainings), _Running(environments, stdout), set[int]()
    failed: tuple[FoldTraining, int] | None = None
    stop.defers = True  # Ctrl-C as well: trainings have state to save
    try:
        while waiting or running.processes:
            while waiting and running.has_place(jobs) and not stop.asked and failed is None:
                running.start(waiting.popleft(), report)
            # Once each: a training takes a second Ctrl-C for an order to leave without saving.
            for number in sorted(stop.received - forwarded):
                forwarded.add(number)
                running.send(LEAVE if number == TIME_IS_UP else number)
            for training, code in running.collect():
                report(f"Fold {training.fold}: {'complete' if code == 0 else f'ended with exit code {code}'}.")
                if code and failed is None:
                    failed = (training, code)
                    running.send(LEAVE)
            if stop.asked or failed:
                waiting.clear()
            time.sleep(_POLL_S)
    finally:
        # Whatever went wrong here, no training is left behind.
        running.send(LEAVE)
        running.wait()
        stop.defers = False
    if stop.asked:
        if stop.time_is_up:
            requeue_job(os.environ)
        raise make_stop_error(stop.received, "The folds' states are saved; the same command goes on.")
    if failed:
        raise _make_fold_error(*failed)


class _Running:
    """The processes of trainings, by their place among those that run at once."""

    def __init__(self, environments: Sequence[Mapping[str, str]], stdout: int | None) -> None:
        self.environments = environments
        self.stdout = stdout
        self.processes: dict[int, tuple[FoldTraining, subprocess.Popen[bytes]]] = {}

    def has_place(self, jobs: int) -> bool:
        """Tell whether one more may run."""
        return len(self.processes) < jobs

    def start(self, training: FoldTraining, report: Callable[[str], None]) -> None:
        """Start a training in the first free place."""
        place = next(number for number in range(len(self.environments)) if number not in self.processes)
        where = f", log in {training.log}" if training.log else ""
        report(f"Fold {training.fold}: training{where}.")
        self.processes[place] = training, _start_process(training, self.environments[place], self.stdout)

    def send(self, number: int) -> None:
        """Send a signal to all of them."""
        for _, process in self.processes.values():
            process.send_signal(number)

    def collect(self) -> list[tuple[FoldTraining, int]]:
        """Remove those that have ended, and return their exit codes."""
        ended = [place for place, (_, process) in self.processes.items() if process.poll() is not None]
        return [(training, process.wait()) for training, process in map(self.processes.pop, ended)]

    def wait(self) -> None:
        """Wait until all have ended."""
        for _, process in self.processes.values():
            process.wait()
        self.processes.clear()


def _start_process(
    training: FoldTraining, environment: Mapping[str, str], stdout: int | None
) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in _JOB_NAMES}
    with ExitStack() as files:
        log = None
        if training.log is not None:
            training.log.parent.mkdir(parents=True, exist_ok=True)
            log = files.enter_context(training.log.open("ab"))
        return subprocess.Popen(
            [sys.executable, "-m", "medseg_pl", *training.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log or stdout,
            stderr=log,
            env={**inherited, **environment},
            # A session of its own: a terminal's Ctrl-C would reach it a second time, and a second one ends it at once.
            start_new_session=True,
            preexec_fn=_make_follower(),  # noqa: PLW1509  this process has no threads of its own yet
        )


def _make_follower() -> Callable[[], None] | None:
    """Make what lets a child be asked to stop when this process is killed; Linux alone knows how."""
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)

    return follow


def _make_fold_error(training: FoldTraining, code: int) -> MedsegError:
    """Make the error of a fold that failed, with the exit code that it gave."""
    said = f" {_read_message(training.log)}" if training.log else ""
    again = "The other folds kept their state, and the same command goes on."
    if code < 0:
        name = signal.Signals(-code).name
        return WorkerDiedError(f"The training of fold {training.fold} was killed ({name}).{said} {again}")
    if code == SettingError.exit_code:
        return SettingError(f"Fold {training.fold} cannot be trained.{said}")
    if code == _PREEMPTED:
        return PreemptedError(f"Fold {training.fold} was asked to stop.{said} {again}")
    if code > 128:
        return InterruptedRunError(f"Fold {training.fold} was interrupted.{said} {again}", code)
    return WorkerDiedError(f"Fold {training.fold} failed with exit code {code}.{said} {again}")


def _read_message(log: Path) -> str:
    """Read what medseg said last in a log; its name where it said nothing."""
    # The log has the lines of every life of the fold, and only the last one explains this end.
    text = log.read_text(encoding="utf-8", errors="replace")[-_LAST_LINES:]
    lines = [line.removeprefix("medseg: ") for line in text.splitlines() if line.startswith("medseg: ")]
    return lines[-1] if lines else f"See {log}."
