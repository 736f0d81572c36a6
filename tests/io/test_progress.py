"""What a pool of threads does when its work is broken off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from medseg_pl.core.stop_signals import StoppedError
from medseg_pl.io.progress import open_thread_pool


def squares(begun: list[int], gate: threading.Event) -> Iterator[int]:
    def square(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait()
        return number * number

    with open_thread_pool(1) as pool:
        yield from pool.map(square, range(1000))


def test_nothing_more_is_begun_once_a_command_is_stopped() -> None:
    begun: list[int] = []
    gate = threading.Event()
    with pytest.raises(StoppedError):
        for square in squares(begun, gate):
            assert square == 0
            threading.Timer(0.05, gate.set).start()
            raise StoppedError(2)
    gate.set()
    assert len(begun) <= 2


def test_all_of_it_is_done_otherwise() -> None:
    gate = threading.Event()
    gate.set()
    assert list(squares([], gate)) == [number * number for number in range(1000)]
