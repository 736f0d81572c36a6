"""What may end a process that loads: the end of its parent, and no signal before."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from medseg_pl.core.stopping import ParentEnding, leave_signals_to_main
from tests.patience import HANG_S

pytestmark = pytest.mark.processes

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


def wait(parent: ParentEnding, ready: Event) -> None:
    leave_signals_to_main(parent)
    ready.set()
    time.sleep(120)


def tell(process: int | None) -> None:
    """As Slurm does, which is another process."""
    told = f"import os; [os.kill({process}, number) for number in ({signal.SIGUSR1:d}, {signal.SIGTERM:d})]"
    subprocess.run([sys.executable, "-c", told], check=True)


def threads(process: int | None) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


@METHODS
def test_a_worker_ends_with_its_parent_and_by_no_signal_before(method: str) -> None:
    context = multiprocessing.get_context(method)
    ready, parent = context.Event(), ParentEnding()
    worker = context.Process(target=wait, args=(parent, ready), daemon=True)  # type: ignore[attr-defined]
    worker.start()
    assert ready.wait(HANG_S)
    tell(worker.pid)
    worker.join(0.2)
    assert worker.is_alive()
    parent._announce()
    worker.terminate()  # as an interpreter does at its end
    worker.join(60)
    assert worker.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_threads_of_a_library_give_no_signal_a_way_in() -> None:
    # From here on each fork has the threads of this library, whose masks are their own.
    scipy.fft.fft(np.zeros((64, 1024)), workers=2)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=wait, args=(ParentEnding(), ready), daemon=True)
    worker.start()
    assert ready.wait(HANG_S)
    assert threads(worker.pid) > 1
    tell(worker.pid)
    worker.join(0.2)
    assert worker.is_alive()
    worker.kill()
    worker.join(60)


@METHODS
def test_an_interpreter_that_ends_ends_its_workers(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from medseg_pl.core.stopping import ParentEnding\n"
        "from tests.core.test_stopping import wait\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    ready = context.Event()\n"
        "    worker = context.Process(target=wait, args=(ParentEnding(), ready), daemon=True)\n"
        "    worker.start()\n"
        f"    assert ready.wait({HANG_S})\n"
        "    print('ready')\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("ready\n", "")
