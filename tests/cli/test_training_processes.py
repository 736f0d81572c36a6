"""Folds run as processes of their own: none is left behind, and their exit codes come through."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from medseg_pl.cli import training_processes
from medseg_pl.cli.training_processes import Training, run_trainings
from medseg_pl.core.errors import InterruptedRunError, MedsegError, PreemptedError, SettingError, WorkerDiedError
from medseg_pl.core.stop_signals import StopSignals
from tests.timeouts import HANG_S

PROGRAM = """#!{python}
import os, signal, sys, time
folder, name, what = sys.argv[3:]
def leave(number, frame):
    open(f"{{folder}}/{{name}}.{{signal.Signals(number).name}}", "w").close()
    print("medseg: Step 3 is saved.", flush=True)
    sys.exit(75 if number == signal.SIGTERM else 130)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, leave)
open(f"{{folder}}/{{name}}.started", "w").write(" ".join([str(os.getpid()), os.environ.get("PLACE", "")]))
if what == "wait":
    time.sleep(600)
print("medseg: what went wrong.")
sys.exit(int(what))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a small program stands for `python`, and says what happens to it."""
    program = tmp_path / "python"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(training_processes.sys, "executable", str(program))
    return tmp_path


def train(folder: Path, *whats: object, jobs: int = 1, stop: StopSignals | None = None) -> list[str]:
    lines: list[str] = []
    trainings = [
        Training("Fold", fold, [str(folder), f"f{fold}", str(what)], folder / f"f{fold}.log")
        for fold, what in enumerate(whats)
    ]
    places = [{"PLACE": f"p{place}"} for place in range(jobs)]
    run_trainings(trainings, jobs, stop or StopSignals(), environments=places, report=lines.append)
    return lines


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + HANG_S
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.01)


def find_started(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.started"))


def test_all_folds_are_trained_in_their_places(folder: Path) -> None:
    lines = train(folder, 0, 0, 0, jobs=2)
    assert find_started(folder) == ["f0", "f1", "f2"]
    assert sorted(line for line in lines if "complete" in line) == [f"Fold {fold}: complete." for fold in range(3)]
    places = {(folder / f"f{fold}.started").read_text().split()[1] for fold in (0, 1)}
    assert places == {"p0", "p1"}


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [(2, SettingError, 2), (1, WorkerDiedError, 1), (75, PreemptedError, 75), (130, InterruptedRunError, 130)],
)
def test_a_failure_ends_the_others_and_says_why(
    folder: Path, code: int, kind: type[MedsegError], exit_code: int
) -> None:
    with pytest.raises(kind, match=r"Fold 1.*what went wrong") as caught:
        train(folder, "wait", code, 0, jobs=2)
    assert caught.value.exit_code == exit_code
    # Unless it was asked before it could answer.
    assert (folder / "f0.SIGTERM").exists() or not (folder / "f0.started").exists()
    assert "f2" not in find_started(folder)


def test_a_fold_that_was_killed_is_named(folder: Path) -> None:
    def kill() -> None:
        wait_for(folder / "f0.started")
        os.kill(int((folder / "f0.started").read_text().split()[0]), signal.SIGKILL)

    Thread(target=kill).start()
    with pytest.raises(WorkerDiedError, match=r"Fold 0 was killed \(SIGKILL\)"):
        train(folder, "wait")


@pytest.mark.parametrize(
    ("number", "kind", "exit_code", "passed_on"),
    [
        (signal.SIGINT, InterruptedRunError, 130, "SIGINT"),
        (signal.SIGTERM, PreemptedError, 75, "SIGTERM"),
        (signal.SIGUSR1, PreemptedError, 75, "SIGTERM"),
    ],
)
def test_signals_stop_all_folds_once(
    folder: Path, number: int, kind: type[MedsegError], exit_code: int, passed_on: str
) -> None:
    def interrupt() -> None:
        wait_for(folder / "f0.started", folder / "f1.started")
        os.kill(os.getpid(), number)

    with StopSignals() as stop:
        Thread(target=interrupt).start()
        with pytest.raises(kind, match="the same command goes on") as caught:
            train(folder, "wait", "wait", 0, jobs=2, stop=stop)
    assert caught.value.exit_code == exit_code
    assert sorted(path.name for path in folder.glob("f*.SIG*")) == [f"f0.{passed_on}", f"f1.{passed_on}"]
    assert find_started(folder) == ["f0", "f1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells a child that its parent has died")
def test_folds_end_when_the_command_is_killed(folder: Path) -> None:
    parent = os.fork()
    if not parent:
        train(folder, "wait")
    wait_for(folder / "f0.started")
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + HANG_S
    while not (folder / "f0.SIGTERM").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
