"""A training that is asked to stop leaves with exit code 75, and goes on where it was."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.training.module import SegmentationModule
from tests.end_to_end.conftest import SMALL
from tests.timeouts import HANG_S

pytestmark = pytest.mark.processes

Fit = Callable[..., int]
Queue = Callable[[], list[str]]


@pytest.fixture
def fit(phantoms: dict[str, Path], tmp_path: Path) -> Fit:
    """Train in `tmp_path/runs`, in steps of four slices, two epochs with a validation each."""

    def run(*options: str) -> int:
        torch.manual_seed(1)
        data = ["--data.source.root", str(phantoms["uw_madison"]), "--runs", str(tmp_path / "runs")]
        data.append("--data.split_fractions=[0.6, 0.2, 0.2]")  # four cases to train on, one to validate
        return main(
            ["fit", "--config", "configs/experiment/demo.yaml", *data, *SMALL, "--trainer.max_epochs=2", *options]
        )

    return run


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Be a job of Slurm; how `scontrol` was called."""
    calls = tmp_path / "scontrol.txt"
    calls.touch()
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return lambda: calls.read_text().splitlines()


def during(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, what: Callable[[], Any], calls: int = 1) -> None:
    """Do something in the middle of the so many-th call of a method."""
    original, before = getattr(owner, name), [0]

    def method(*args: Any, **kwargs: Any) -> Any:
        before[0] += 1
        if before[0] == calls:
            what()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, method)


def send(*numbers: int) -> Callable[[], None]:
    """Send signals to this process."""

    def to_us() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return to_us


def checkpoint(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def logged(folder: Path, name: str) -> list[str]:
    """At which steps a value was logged."""
    with (folder / "metrics.csv").open() as file:
        return [row["step"] for row in csv.DictReader(file) if row[name]]


def test_time_is_up_in_mid_epoch(
    fit: Fit, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        # The second one is what Slurm sends to a job that was put back into the queue.
        during(patch, SegmentationModule, "training_step", send(signal.SIGUSR1, signal.SIGTERM), calls=3)
        assert fit() == 75
    assert handlers == [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    assert queue() == ["requeue 17"]
    assert "Asked to stop (SIGTERM and SIGUSR1). Step 3 is saved; the same command" in capsys.readouterr().err
    folder = tmp_path / "runs" / "demo" / "version_0"
    assert checkpoint(folder)["global_step"] == 3
    assert logged(folder, "train/loss") == ["0", "1", "2"], "the last step before the stop as well"

    assert fit("--ckpt_path", "last") == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["version_0"]
    resumed = checkpoint(folder)
    assert fit("--runs", str(tmp_path / "undisturbed")) == 0
    undisturbed = checkpoint(tmp_path / "undisturbed" / "demo" / "version_0")
    assert resumed["global_step"] == undisturbed["global_step"]
    for name, tensor in undisturbed["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name


def test_a_validation_is_broken_off_and_run_again(
    fit: Fit, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sanity = ["--trainer.num_sanity_val_steps=0"]
    with monkeypatch.context() as patch:
        during(patch, SegmentationModule, "validation_step", send(signal.SIGTERM))
        assert fit(*sanity) == 75
    assert queue() == [], "Slurm itself puts a job back that another one has preempted"
    folder = tmp_path / "runs" / "demo" / "version_0"
    assert checkpoint(folder)["global_step"] == 9
    assert not (folder / "checkpoints" / "best.ckpt").exists()
    assert fit("--ckpt_path", "last", *sanity) == 0
    # After both epochs, and once more with the best weights when training is done.
    assert set(logged(folder, "val/dice")) == {"8", "17", "18"}
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_nothing_is_saved_before_the_first_step(
    fit: Fit, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    during(monkeypatch, CaseCache, "build", send(signal.SIGUSR1))
    assert fit() == 75
    assert "No step was made since the start" in capsys.readouterr().err
    assert queue() == ["requeue 17"]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_signal_to_all_processes_ends_no_worker(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_all() -> None:
        children = multiprocessing.active_children()
        assert children
        for child in children:
            assert child.pid
            os.kill(child.pid, signal.SIGUSR1)
            os.kill(child.pid, signal.SIGTERM)
        children[0].join(0.5)
        assert all(child.is_alive() for child in children)
        os.kill(os.getpid(), signal.SIGTERM)

    during(monkeypatch, SegmentationModule, "training_step", to_all, calls=2)
    assert fit("--data.num_workers=1") == 75
    assert checkpoint(tmp_path / "runs" / "demo" / "version_0")["global_step"] == 2


def test_a_refusal_to_put_the_job_back_is_told(
    fit: Fit, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Job is not requeueable' >&2\nexit 1\n")
    during(monkeypatch, SegmentationModule, "training_step", send(signal.SIGUSR1))
    assert fit() == 75
    assert "Slurm does not put job 17 back into the queue (Job is not requeueable)" in caplog.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_control_c_saves_and_leaves(
    number: int,
    code: int,
    fit: Fit,
    queue: Queue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        during(monkeypatch, SegmentationModule, "training_step", send(number), calls=3)
        assert fit("--trainer.num_sanity_val_steps=0") == code
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, handler)
    name = signal.Signals(number).name
    assert f"medseg: Interrupted ({name}). Step 3 is saved; the same command with" in capsys.readouterr().err
    folder = tmp_path / "runs" / "demo" / "version_0"
    assert checkpoint(folder)["global_step"] == 3
    assert logged(folder, "train/loss") == ["0", "1", "2"]
    assert queue() == [], "a job that a person has stopped stays away"


def test_a_run_that_was_never_saved_is_begun_again_in_its_folder(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patch:
            # While there is nothing to save, a signal ends the command at once; here the run folder is made already.
            during(patch, SegmentationModule, "validation_step", send(signal.SIGINT))
            assert fit() == 130
    finally:
        signal.signal(signal.SIGINT, usual)
    assert "medseg: Interrupted (SIGINT). No step was made since the start" in capsys.readouterr().err
    folder = tmp_path / "runs" / "demo" / "version_0"
    before = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "splits.json"} <= before and not list(folder.rglob("*.ckpt"))

    again = ["--trainer.max_epochs=1", "--data.split_seed=5", "--trainer.limit_train_batches=2"]
    assert fit("--ckpt_path", "last", *again) == 0
    assert f"{folder} was stopped before its first save: the run begins again there." in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert not list(folder.glob("config_resumed*"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["split_seed"] == 5
    assert "seed 5" in json.loads((folder / "splits.json").read_text())["origin"]
    assert logged(folder, "train/loss") == ["0", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "where", "steps"),
    [("torchrun", "training", 3), ("lightning", "training", 3), ("torchrun", "validation", 4)],
)
def test_whichever_rank_is_asked_all_leave_at_the_same_step(
    launcher: str, where: str, steps: int, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    script = str(Path(__file__).with_name("ask_one_rank.py"))
    start = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script],
        "lightning": [script],
    }
    data = ["--data.source.root", str(phantoms["uw_madison"]), "--runs", str(tmp_path / "runs")]
    configs = ["--config=configs/experiment/demo.yaml", "--config=configs/trainer/ddp_cpu.yaml"]
    command = [sys.executable, *start[launcher], "fit", *configs, *data, *SMALL, "--trainer.max_epochs=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "ASK_IN": where}
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert stopped.returncode == (1 if launcher == "torchrun" else 75), stopped.stderr  # torchrun has a code of its own
    for rank in range(2):
        assert f"rank {rank} ends with 75" in stopped.stdout
    run = tmp_path / "runs" / "demo" / "version_0"
    assert checkpoint(run)["global_step"] == steps
    going_on = [*command, "--ckpt_path", "last"]
    finished = subprocess.run(going_on, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert finished.returncode == 0, finished.stderr
    assert (run / "scores_val.csv").is_file()
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
