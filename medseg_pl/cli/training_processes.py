"""Trainings as processes of their own, one after the other or side by side: folds, or trials of settings."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medseg_pl.core.errors import InterruptedRunError, MedsegError, PreemptedError, SettingError, WorkerDiedError
from medseg_pl.core.stop_signals import LEAVE, TIME_IS_UP, StopSignals, make_stop_error
from medseg_pl.training.callbacks.stopping import requeue_job

_POLL_S = 0.05
_PREEMPTED = PreemptedError.exit_code
_PR_SET_PDEATHSIG = 1
_LAST_LINES = 4000
# By these a training puts its job back into the queue; here all trainings are to be asked first.
_JOB_NAMES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID")


class Training(NamedTuple):
    """A training in a process of its own.

    Attributes:
        kind: What it belongs to: a fold, or a trial.
        number: Its number among them.
        arguments: The arguments after `medseg`.
        log: The file that takes its output; `None` for this terminal.
    """

    kind: Literal["Fold", "Trial"]
    number: int
    arguments: list[str]
    log: Path | None

    @property
    def name(self) -> str:
        """What a reader calls it, such as "Fold 3"."""
        return f"{self.kind} {self.number}"


def complete_or_stop(training: Training, code: int) -> bool:
    """Accept exit code 0 alone; any other ends the other trainings."""
    return code == 0


def run_trainings(
    trainings: Iterable[Training],
    jobs: int,
    stop: StopSignals,
    *,
    environments: Sequence[Mapping[str, str]],
    report: Callable[[str], None],
    stdout: int | None = None,
    goes_on: Callable[[Training, int], bool] = complete_or_stop,
) -> None:
    """Run trainings until all are complete.

    Where one fails, the others save their state and end.

    Args:
        trainings: The trainings; each is started when there is a place for it.
        jobs: How many run at once.
        stop: Notes that this process is asked to stop; the trainings are then asked as well, and waited for.
        environments: Variables of each of `jobs` places beside those of this process, such as its devices.
        report: Takes a line for the reader.
        stdout: Takes the output of trainings without a log; that of this process by default.
        goes_on: Takes a training that has ended and its exit code, and says whether the failure is tolerated.

    Raises:
        MedsegError: One failed, or everything was asked to stop; the exit code is that of the training.
    """
    upcoming, running, forwarded = iter(trainings), _Running(environments, stdout), set[int]()
    failed: tuple[Training, int] | None = None
    exhausted = False
    stop.defers = True  # Ctrl-C as well: trainings have state to save
    try:
        while not exhausted or running.processes:
            while not exhausted and running.has_place(jobs):
                training = None if stop.asked or failed else next(upcoming, None)
                exhausted = training is None
                if training is not None:
                    running.start(training, report)
            # Once each: a training takes a second Ctrl-C for an order to leave without saving.
            for number in sorted(stop.received - forwarded):
                forwarded.add(number)
                running.send(LEAVE if number == TIME_IS_UP else number)
            for training, code in running.collect():
                report(f"{training.name}: {'complete' if code == 0 else f'ended with exit code {code}'}.")
                if not goes_on(training, code) and failed is None:
                    failed = (training, code)
                    running.send(LEAVE)
            time.sleep(_POLL_S)
    finally:
        # Whatever went wrong here, no training is left behind.
        running.send(LEAVE)
        running.wait()
        stop.defers = False
    if stop.asked:
        if stop.time_is_up:
            requeue_job(os.environ)
        raise make_stop_error(stop.received, "What was trained is saved; the same command goes on.")
    if failed:
        raise _make_error(*failed)


def make_environments(jobs: int, devices: Any) -> list[dict[str, str]]:
    """Make environments for trainings that share this machine.

    Args:
        jobs: How many run at once.
        devices: `trainer.devices`, of one training.
    """
    # One training at a time needs no count, for which torch would be imported, which takes seconds.
    gpus = _count_gpus() if jobs > 1 else 0
    return share_machine(jobs, os.environ, gpus, devices, os.cpu_count() or 1)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def share_machine(
    jobs: int, environment: Mapping[str, str], gpus: int, devices: Any, cores: int
) -> list[dict[str, str]]:
    """Share GPUs and cores among trainings that run at once.

    Args:
        jobs: Their number.
        environment: The variables of this process; where one is set, it stays.
        gpus: The number of GPUs that it sees.
        devices: `trainer.devices`, of one training.
        cores: Of the machine.

    Returns:
        The variables of each training.

    >>> share_machine(2, {}, 2, 1, 8)
    [{'OMP_NUM_THREADS': '4', 'CUDA_VISIBLE_DEVICES': '0'}, {'OMP_NUM_THREADS': '4', 'CUDA_VISIBLE_DEVICES': '1'}]
    >>> share_machine(1, {}, 2, 1, 8)
    [{}]
    """
    if jobs == 1:
        return [{}]
    # Left alone, each training would take all cores, and together they would be slower than one by one.
    threads = {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    given = environment.get("CUDA_VISIBLE_DEVICES")
    visible = [name.strip() for name in given.split(",") if name.strip()] if given else [str(i) for i in range(gpus)]
    if gpus < 2:
        return [threads] * jobs
    each = devices if isinstance(devices, int) and devices > 0 else max(1, gpus // jobs)
    chosen = [[visible[(job * each + index) % len(visible)] for index in range(each)] for job in range(jobs)]
    return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(names)} for names in chosen]


class _Running:
    """The processes of running trainings, by their place."""

    def __init__(self, environments: Sequence[Mapping[str, str]], stdout: int | None) -> None:
        self.environments = environments
        self.stdout = stdout
        self.processes: dict[int, tuple[Training, subprocess.Popen[bytes]]] = {}

    def has_place(self, jobs: int) -> bool:
        """Tell whether one more may run."""
        return len(self.processes) < jobs

    def start(self, training: Training, report: Callable[[str], None]) -> None:
        """Start a training in the first free place."""
        place = next(number for number in range(len(self.environments)) if number not in self.processes)
        where = f", log in {training.log}" if training.log else ""
        report(f"{training.name}: training{where}.")
        self.processes[place] = training, _start_process(training, self.environments[place], self.stdout)

    def send(self, number: int) -> None:
        """Send a signal to all of them."""
        for _, process in self.processes.values():
            process.send_signal(number)

    def collect(self) -> list[tuple[Training, int]]:
        """Remove those that have ended, and return their exit codes."""
        ended = [place for place, (_, process) in self.processes.items() if process.poll() is not None]
        return [(training, process.wait()) for training, process in map(self.processes.pop, ended)]

    def wait(self) -> None:
        """Wait until all have ended."""
        for _, process in self.processes.values():
            process.wait()
        self.processes.clear()


def _start_process(training: Training, environment: Mapping[str, str], stdout: int | None) -> subprocess.Popen[bytes]:
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
    """Make a function that ties a child to this process."""
    # The child is asked to stop when this process is killed; Linux alone can do so.
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)

    return follow


def _make_error(training: Training, code: int) -> MedsegError:
    """Make the error of a failed training, with its exit code."""
    said = f" {_read_message(training.log)}" if training.log else ""
    again = "The others kept their state, and the same command goes on."
    if code < 0:
        return WorkerDiedError(f"{training.name} was killed ({signal.Signals(-code).name}).{said} {again}")
    if code == SettingError.exit_code:
        return SettingError(f"{training.name} cannot be trained.{said}")
    if code == _PREEMPTED:
        return PreemptedError(f"{training.name} was asked to stop.{said} {again}")
    if code > 128:
        return InterruptedRunError(f"{training.name} was interrupted.{said} {again}", code)
    return WorkerDiedError(f"{training.name} failed with exit code {code}.{said} {again}")


def _read_message(log: Path) -> str:
    """Read medseg's last message in a log, or the log's name."""
    # The log has the lines of every life of the training, and only the last one explains this end.
    text = log.read_text(encoding="utf-8", errors="replace")[-_LAST_LINES:]
    lines = [line.removeprefix("medseg: ") for line in text.splitlines() if line.startswith("medseg: ")]
    return lines[-1] if lines else f"See {log}."
