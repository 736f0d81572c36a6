"""The signals with which a cluster asks a training to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from medseg_pl.core.errors import PreemptedError

TIME_IS_UP = signal.SIGUSR1
"""Slurm's warning before a job's time is over (`--signal=USR1@120`): we are to go back into the queue."""
LEAVE = signal.SIGTERM
"""The job ends: cancelled, or preempted by another one, after which Slurm puts it back into the queue by itself."""

NOTHING_TO_SAVE = "No step was made since the start, so nothing is to be saved; the same command starts again."


class StopRequest:
    """Notes the signals that ask for a stop while it is entered, and does nothing about them.

    What is to be done takes collectives and files, which hang or break in the middle of a step: it waits for a step's
    end, where someone looks here. Further signals are noted as well, so that none of them ends a save halfway.

    >>> with StopRequest() as stop:
    ...     before = stop.asked
    ...     signal.raise_signal(signal.SIGUSR1)
    >>> before, stop.asked, stop.names
    (False, True, 'SIGUSR1')
    """

    def __init__(self) -> None:
        self.received: set[int] = set()
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether any signal came."""
        return bool(self.received)

    @property
    def time_is_up(self) -> bool:
        """Whether the job is to be put back into the queue by us."""
        return TIME_IS_UP in self.received

    @property
    def names(self) -> str:
        """What came, for a message."""
        return " and ".join(sorted(signal.Signals(number).name for number in self.received))

    def leave_before_training(self) -> None:
        """Raise if asked to stop, in long work that comes before the first step: nothing needs to be saved then.

        Raises:
            PreemptedError: Any signal came.
        """
        if self.asked:
            raise PreemptedError(f"Asked to stop ({self.names}). {NOTHING_TO_SAVE}")

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (TIME_IS_UP, LEAVE):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by other than Python
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.add(number)


def leave_signals_to_main(worker: int) -> None:
    """Keep a process that loads data alive: Slurm may signal all processes of a job, and a lost worker ends the run.

    A worker ends when it is told to by the process that it works for, or when that process is gone. An interpreter
    that ends tells its workers with SIGTERM and waits for them, so that signal is asked who sent it.
    """
    signal.signal(TIME_IS_UP, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":  # elsewhere nobody can be asked, and there is no Slurm
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {LEAVE})
    threading.Thread(target=_leave_when_told, args=(parent.pid,), daemon=True).start()


def _leave_when_told(by: int | None) -> None:
    while signal.sigwaitinfo({LEAVE}).si_pid != by:
        pass
    os._exit(0)
