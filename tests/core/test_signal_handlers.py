"""What a signal does in this process: noted, an end, or nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from medseg_pl.core.errors import PreemptedError
from medseg_pl.core.stop_signals import ParentExitFlag, StoppedError, StopSignals, leave_if_asked, leave_signals_to_main


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process, put back afterwards."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
class TestSignals:
    def test_they_are_noted_while_there_is_something_to_save(self) -> None:
        with StopSignals(trains=True) as stop:
            stop.defers = True
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                signal.raise_signal(number)
            assert (stop.asked, stop.time_is_up, stop.names) == (True, True, "SIGHUP and SIGTERM and SIGUSR1")
            with pytest.raises(PreemptedError):
                leave_if_asked()
        leave_if_asked()  # nobody listens any more
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_by_hand_they_end_what_has_nothing_to_save(self) -> None:
        with pytest.raises(StoppedError, match="SIGINT"), StopSignals(trains=True):
            signal.raise_signal(signal.SIGINT)

    def test_a_command_that_does_not_train_ends_by_any(self) -> None:
        with pytest.raises(StoppedError, match="SIGTERM"), StopSignals(trains=False):
            signal.raise_signal(signal.SIGTERM)

    def test_what_is_ignored_stays_so(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked

    def test_other_threads_set_no_handler(self) -> None:
        def enter() -> None:
            with StopSignals():
                after.append(signal.getsignal(signal.SIGTERM))

        after: list[Any] = []
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert after == [signal.SIG_DFL]

    def test_loading_processes_leave_signals_to_the_main_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        left: list[int] = []
        monkeypatch.setattr(os, "_exit", left.append)
        parent = ParentExitFlag()
        leave_signals_to_main(parent)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
        assert left == []
        parent._set()
        signal.raise_signal(signal.SIGTERM)
        assert left == [0]

    def test_a_second_control_c_leaves_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leave(code: int) -> None:
            raise SystemExit(code)

        monkeypatch.setattr(os, "_exit", leave)
        with pytest.raises(SystemExit) as left, StopSignals() as stop:
            stop.defers = True
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert left.value.code == 130
