"""Signals by which a cluster or a person asks a command to stop."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

from medseg_pl.core.errors import InterruptedRunError, MedsegError, PreemptedError

TIME_IS_UP = signal.SIGUSR1
"""Slurm's warning before a job's time is over (`--signal=USR1@120`): we are to go back into the queue."""
LEAVE = signal.SIGTERM
"""The job ends: canceled, or preempted by another one, after which Slurm puts it back into the queue by itself."""
BY_HAND = (signal.SIGINT, signal.SIGHUP)
"""Ctrl-C, and a terminal that was closed."""

NOTHING_TO_SAVE = "No step was made since the start, so nothing is to be saved; the same command starts again."


class StoppedError(BaseException):
    """A signal ends a command that has no state to save.

    Not a `KeyboardInterrupt`, which Lightning answers with the exit code 1; and no `Exception`, so that nobody takes it
    for a fault of what is being done.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Interrupted ({signal.Signals(number).name}).")
        self.exit_code = 128 + number


class StopSignals:
    """Answer the signals that ask for a stop, within its block.

    A training that has state to save cannot do so at once: saving takes collectives and files, which hang or break in
    the middle of a step. There a signal is noted, and waits for a step's end, where someone looks here. Further ones
    are noted as well, so that none of them ends a save halfway; only a second Ctrl-C leaves at once. Everywhere else a
    signal raises `StoppedError`. Signals that the process was started to ignore, as by `nohup`, stay ignored.

    Args:
        trains: Whether the command is a training: those of a cluster are then noted from the start.

    Attributes:
        defers: Whether Ctrl-C and a closed terminal are noted, too; whoever looks for them sets it.

    >>> with StopSignals(trains=True) as stop:
    ...     before = stop.asked
    ...     signal.raise_signal(signal.SIGUSR1)
    >>> before, stop.asked, stop.names
    (False, True, 'SIGUSR1')
    """

    def __init__(self, *, trains: bool = True) -> None:
        self.received: set[int] = set()
        self.defers = False
        self._trains = trains
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether any signal came."""
        return bool(self.received)

    @property
    def time_is_up(self) -> bool:
        """Whether this process has to put the job back into the queue."""
        return TIME_IS_UP in self.received

    @property
    def names(self) -> str:
        """What came, for a message."""
        return name_signals(self.received)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (*BY_HAND, LEAVE, *([TIME_IS_UP] if self._trains else [])):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._answer)
        _ENTERED.append(self)
        return self

    def __exit__(self, *raised: object) -> None:
        _ENTERED.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by other than Python
        self._before.clear()

    def _answer(self, number: int, frame: FrameType | None) -> None:
        again = number in self.received
        self.received.add(number)
        if number == signal.SIGINT and again:
            _leave_at_once(number)
        if not again and not (self.defers or (self._trains and number not in BY_HAND)):
            raise StoppedError(number)


_ENTERED: list[StopSignals] = []
"""Objects of this process whose handlers are set: signals belong to a process and not to an object."""


def leave_if_asked() -> None:
    """Raise an error if the process was asked to stop.

    Long work before the first step of a training calls this.

    Raises:
        PreemptedError: Any signal came.
    """
    for stop in _ENTERED:
        if stop.asked:
            raise make_stop_error(stop.received, NOTHING_TO_SAVE)


def name_signals(numbers: Collection[int]) -> str:
    """Name signals, for a message.

    >>> name_signals([signal.SIGTERM, signal.SIGINT])
    'SIGINT and SIGTERM'
    """
    return " and ".join(sorted(signal.Signals(number).name for number in numbers))


def make_stop_error(received: Collection[int], saved: str) -> MedsegError:
    """Make the error that ends a training on request.

    Args:
        received: The signals; a cluster's signals decide the exit code.
        saved: A sentence about the saved state.
    """
    names = name_signals(received)
    if not set(received) <= set(BY_HAND):
        return PreemptedError(f"Asked to stop ({names}). {saved}")
    return InterruptedRunError(f"Interrupted ({names}). {saved}", 128 + max(received, default=signal.SIGINT))


def _leave_at_once(number: int) -> None:
    """End this process and those that it has started, without any clean-up."""
    for child in multiprocessing.active_children():
        child.kill()
    # Not `sys.stderr`, in the middle of whose writing the signal may have come.
    os.write(2, b"\nmedseg: Interrupted twice: left at once. Files that were complete before stay.\n")
    os._exit(128 + number)


class ParentExitFlag:
    """Tells loading processes that their parent is about to end.

    An interpreter that ends sends SIGTERM to its workers and waits for each of them; Slurm may send the same signal to
    all processes of a job. A worker cannot tell one from the other by the signal, so it looks here.
    """

    def __init__(self) -> None:
        self._is_set = multiprocessing.RawValue(ctypes.c_bool, False)
        # Not `atexit`, which is not run where a process was started by multiprocessing.
        Finalize(None, self._set, exitpriority=0)

    def _set(self) -> None:
        self._is_set.value = True

    def leave(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: end this process if its parent is about to."""
        if self._is_set.value:
            os._exit(0)


def leave_signals_to_main(parent: ParentExitFlag) -> None:
    """Keep a process that loads data alive when signals come.

    A lost worker ends the run. Slurm may signal all processes of a job, and a terminal sends Ctrl-C to all of them.

    Handlers hold for all threads of a process; a mask would hold for those alone that are started after it, and some
    libraries start threads at each fork.
    """
    for number in (TIME_IS_UP, *BY_HAND):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(LEAVE, parent.leave)
