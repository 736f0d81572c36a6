"""The signals with which a cluster asks a training to stop."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from multiprocessing.util import Finalize
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


class ParentEnding:
    """Whether the process that made this is about to end; the processes that load data for it are handed it.

    An interpreter that ends sends SIGTERM to its workers and waits for each of them; Slurm may send the same signal to
    all processes of a job. A worker cannot tell one from the other by the signal, so it looks here.
    """

    def __init__(self) -> None:
        self._is_near = multiprocessing.RawValue(ctypes.c_bool, False)
        # Not `atexit`, which is not run where a process was started by multiprocessing.
        Finalize(None, self._announce, exitpriority=0)

    def _announce(self) -> None:
        self._is_near.value = True

    def leave(self, number: int, frame: FrameType | None) -> None:
        """End this process if its parent is about to: a handler of signals."""
        if self._is_near.value:
            os._exit(0)


def leave_signals_to_main(parent: ParentEnding) -> None:
    """Keep a process that loads data alive: Slurm may signal all processes of a job, and a lost worker ends the run.

    Handlers hold for all threads of a process; a mask would hold for those alone that are started after it, and some
    libraries start threads at each fork.
    """
    signal.signal(TIME_IS_UP, signal.SIG_IGN)
    signal.signal(LEAVE, parent.leave)
