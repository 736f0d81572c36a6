"""What signals do: to a command, to a training, and to the processes that load data for it."""

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

from medseg_pl.core.errors import InterruptedRunError, MedsegError, PreemptedError
from medseg_pl.core.stop_signals import ParentExitFlag, leave_signals_to_main, make_stop_error
from tests.timeouts import HANG_S

pytestmark = pytest.mark.processes

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


def wait(parent: ParentExitFlag, ready: Event) -> None:
    leave_signals_to_main(parent)
    ready.set()
    time.sleep(120)


def tell(process: int | None) -> None:
    """As Slurm does, which is another process."""
    told = f"import os; [os.kill({process}, number) for number in ({signal.SIGUSR1:d}, {signal.SIGTERM:d}, 2, 1)]"
    subprocess.run([sys.executable, "-c", told], check=True)


def threads(process: int | None) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


@METHODS
def test_a_worker_ends_with_its_parent_and_by_no_signal_before(method: str) -> None:
    context = multiprocessing.get_context(method)
    ready, parent = context.Event(), ParentExitFlag()
    worker = context.Process(target=wait, args=(parent, ready), daemon=True)  # type: ignore[attr-defined]
    worker.start()
    assert ready.wait(HANG_S)
    tell(worker.pid)
    worker.join(0.2)
    assert worker.is_alive()
    parent._set()
    worker.terminate()  # as an interpreter does at its end
    worker.join(60)
    assert worker.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_threads_of_a_library_give_no_signal_a_way_in() -> None:
    # From here on each fork has the threads of this library, whose masks are their own.
    scipy.fft.fft(np.zeros((64, 1024)), workers=2)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=wait, args=(ParentExitFlag(), ready), daemon=True)
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
        "from medseg_pl.core.stop_signals import ParentExitFlag\n"
        "from tests.core.test_stop_signals import wait\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    ready = context.Event()\n"
        "    worker = context.Process(target=wait, args=(ParentExitFlag(), ready), daemon=True)\n"
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


def answered(script: str, *numbers: int, ignored: int | None = None) -> tuple[int, str, str]:
    """Run a script that prints `ready` and is then sent signals, one after the other; its exit code and its output."""
    # Whoever starts the tests may have made them ignore Ctrl-C.
    usual = "import signal; [signal.signal(number, signal.SIG_DFL) for number in (1, 2, 15)]\n"
    ignoring = f"signal.signal({ignored:d}, signal.SIG_IGN)\n" if ignored else ""
    process = subprocess.Popen(
        [sys.executable, "-c", usual + ignoring + script],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for number in numbers:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    out, error = process.communicate(timeout=HANG_S)
    return process.returncode, out, error


NOTES = """
import sys, time
from medseg_pl.core.stop_signals import StopSignals
with StopSignals(trains={trains}) as stop:
    stop.defers = {defers}
    for _ in range(2):
        heard = len(stop.received)
        print("ready", flush=True)
        while len(stop.received) == heard:
            time.sleep(0.01)
print(stop.names)
"""


def test_a_second_control_c_leaves_at_once() -> None:
    script = NOTES.format(trains=True, defers=True)
    code, out, error = answered(script, signal.SIGINT, signal.SIGINT)
    assert (code, out) == (130, "")
    assert "Interrupted twice: left at once." in error


def test_other_signals_are_noted_while_there_is_something_to_save() -> None:
    code, out, error = answered(NOTES.format(trains=True, defers=True), signal.SIGHUP, signal.SIGTERM)
    assert (code, out, error) == (0, "SIGHUP and SIGTERM\n", "")


COMMAND = """
import sys, time, types
from medseg_pl import __main__
def run(arguments):
    print("ready", flush=True)
    time.sleep({seconds})
    return 0
__main__.MODULES = {{"work": "work"}}
sys.modules["work"] = types.SimpleNamespace(__doc__="Work.", add_arguments=lambda parser: None, run=run)
sys.exit(__main__.main(["work"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_any_command_ends_with_a_sentence(number: int) -> None:
    code, out, error = answered(COMMAND.format(seconds=600), number)
    assert (code, out) == (128 + number, "")
    said = f"Interrupted ({signal.Signals(number).name}). What was begun is left out, nothing is half written"
    assert error == f"medseg: {said}; the same command begins again.\n"


def test_a_command_that_was_started_to_outlive_its_terminal_does() -> None:
    assert answered(COMMAND.format(seconds=1), signal.SIGHUP, ignored=signal.SIGHUP) == (0, "", "")


@pytest.mark.parametrize(
    ("received", "code", "kind"),
    [
        ([signal.SIGINT], 130, InterruptedRunError),
        ([signal.SIGHUP], 129, InterruptedRunError),
        ([signal.SIGHUP, signal.SIGINT], 130, InterruptedRunError),
        ([signal.SIGINT, signal.SIGTERM], 75, PreemptedError),
    ],
)
def test_a_training_that_was_stopped_says_by_what(received: list[int], code: int, kind: type[MedsegError]) -> None:
    error = make_stop_error(received, "Step 3 is saved.")
    assert type(error) is kind and error.exit_code == code
    assert all(signal.Signals(number).name in str(error) for number in received)
    assert str(error).endswith(". Step 3 is saved.")
