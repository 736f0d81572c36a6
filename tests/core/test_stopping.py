"""Who may end a process that loads: its own parent, and nobody else."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event

import pytest

from medseg_pl.core.stopping import leave_signals_to_main


def wait(ready: Event) -> None:
    leave_signals_to_main(0)
    ready.set()
    time.sleep(120)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot ask who sent a signal")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_heeds_its_parent_alone(method: str) -> None:
    context = multiprocessing.get_context(method)
    ready = context.Event()
    worker = context.Process(target=wait, args=(ready,), daemon=True)  # type: ignore[attr-defined]
    worker.start()
    assert ready.wait(60)
    for number in (signal.SIGUSR1, signal.SIGTERM):  # as Slurm does, which is another process
        subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {number:d})"], check=True)
    worker.join(0.2)
    assert worker.is_alive()
    worker.terminate()  # as an interpreter does at its end
    worker.join(60)
    assert worker.exitcode == 0
