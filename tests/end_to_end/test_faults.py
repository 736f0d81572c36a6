"""What goes wrong in the middle of a run, injected: the sentence, the exit code, and what is left on the disk.

`docs/troubleshooting.md` promises how each of them ends, and names the test that holds it to that.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import wandb
from lightning_utilities.core import imports

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.data.datasets import PatchDataset
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.models.checkpoint import load_verified
from medseg_pl.models.losses import DiceCELoss
from tests.end_to_end.conftest import SMALL
from tests.subprocess_holder import working_in
from tests.timeouts import HANG_S

pytestmark = pytest.mark.trainings

DOCUMENT = Path("docs/troubleshooting.md")

Fit = Callable[..., int]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def fit(phantoms: dict[str, Path], runs: Path) -> Fit:
    """Run a small `fit`; two epochs of two steps."""
    data = f"--data.source.root={phantoms['uw_madison']}"
    short = ["--trainer.max_epochs=2", "--data.samples_per_epoch=8"]

    def run(*options: str) -> int:
        command = ["fit", "--config", "configs/experiment/demo.yaml", data, *SMALL, *short]
        return main([*command, "--runs", str(runs), *options])

    return run


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The one paragraph on stderr."""

    def read() -> str:
        (paragraph,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medseg: ")]
        assert "Traceback" not in paragraph
        return paragraph

    return read


def spoil_loss(monkeypatch: pytest.MonkeyPatch, at_step: int, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the loss of one training step, counted from 1, be something else."""
    steps, original = [0], DiceCELoss.forward

    def forward(self: DiceCELoss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = original(self, logits, target)
        if not logits.requires_grad:
            return loss
        steps[0] += 1
        return spoil(loss) if steps[0] == at_step else loss

    monkeypatch.setattr(DiceCELoss, "forward", forward)


def checkpoints(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.rglob("*.ckpt"))


def step_of_last(runs: Path) -> int:
    """At which step the state is that the one run there goes on from; every number of it has to be finite."""
    (last,) = runs.rglob("last.ckpt")
    state = load_verified(last)
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values() if value.is_floating_point())
    return int(state["global_step"])


def logged_steps(runs: Path) -> list[int]:
    """The steps whose training loss is in the log of the one run there."""
    (log,) = runs.rglob("metrics.csv")
    with log.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def assert_nothing_looks_finished(runs: Path) -> None:
    assert not list(runs.rglob("scores_*"))
    assert not list(runs.rglob("summary_*"))
    assert not list(runs.rglob(".writing-*"))


def test_nan_loss(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_loss(monkeypatch, 3, lambda loss: loss * float("nan"))
    assert fit() == 1
    error = told()
    assert "The training loss is nan at step 3, in a batch of the cases case" in error
    assert "Lower model.optimizer's lr" in error
    assert checkpoints(runs) == ["best.ckpt", "last.ckpt"]  # of the first epoch
    assert step_of_last(runs) == 2
    assert_nothing_looks_finished(runs)


def infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
    """The same loss, with a slope that is no number."""
    return loss + (0 * loss).sqrt()


def test_inf_gradient(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_loss(monkeypatch, 1, infinite_gradient)
    assert fit() == 1
    assert "The training loss is nan at step 2" in told()  # the first step that sees what it did to the weights
    assert checkpoints(runs) == []
    assert_nothing_looks_finished(runs)


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # without a validation there is no best
@pytest.mark.parametrize(
    ("spoil", "where"),
    [(infinite_gradient, "model.network."), (lambda loss: 1e30 * loss, "the optimizer's exp_avg_sq of parameter")],
    ids=["weights", "optimizer"],
)
def test_what_is_saved_is_looked_at_before(
    spoil: Callable[[torch.Tensor], torch.Tensor],
    where: str,
    fit: Fit,
    runs: Path,
    told: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil_loss(monkeypatch, 2, spoil)
    # No step follows, and no validation: nothing but the state itself can tell.
    assert fit("--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--trainer.gradient_clip_val=null") == 1
    error = told()
    assert "not finite, " in error
    assert where in error
    assert checkpoints(runs) == []


def test_nan_image(runs: Path, told: Callable[[], str], tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", "decathlon", cases=6, seed=0, slices=4, size=(40, 36))
    file = sorted((tmp_path / "data" / "imagesTr").iterdir())[2]
    image = nibabel.load(file)
    voxels = np.full(image.shape, np.nan, np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    command = ["fit", "--config", "configs/experiment/hippocampus.yaml", f"--data.source.root={tmp_path / 'data'}"]
    labels = "--model.labels.names=[large_bowel,small_bowel,stomach]"
    assert main([*command, *SMALL, labels, "--runs", str(runs)]) == 1
    error = told()
    assert f"Case {file.name.split('.')[0]} ({file})" in error
    assert "holds no number at all" in error
    assert not runs.exists()

    voxels[: image.shape[0] // 2] = np.asarray(image.dataobj)[: image.shape[0] // 2]
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    assert main([*command, *SMALL, labels, "--runs", str(runs)]) == 0  # single voxels are replaced; `check` names them


def test_out_of_memory(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(loss: torch.Tensor) -> torch.Tensor:
        return loss + torch.empty(1 << 50, dtype=torch.uint8)[0]  # a petabyte

    spoil_loss(monkeypatch, 3, greedy)
    assert fit() == 1
    error = told()
    assert "There is not enough memory for the training" in error
    assert "Lower data.batch_size (trainer.accumulate_grad_batches makes up for it), model.input_size" in error
    assert step_of_last(runs) == 2
    assert_nothing_looks_finished(runs)


@pytest.mark.parametrize(("command", "phase"), [("fit", "validation"), ("test", "test"), ("predict", "prediction")])
def test_a_gpu_out_of_memory_is_told_alike(
    command: str,
    phase: str,
    fit: Fit,
    checkpoint: str,
    phantoms: dict[str, Path],
    told: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def refuse(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("medseg_pl.inference.sliding_window.SlidingWindow.iterate_blocks", refuse)
    folders = [f"--input={phantoms['uw_madison']}", f"--output={tmp_path / 'masks'}"] if command == "predict" else []
    assert (fit() if command == "fit" else main([command, "--ckpt_path", checkpoint, *folders])) == 1
    error = told()
    assert f"There is not enough memory for the {phase} with these settings" in error
    assert "Lower data.eval_batch_size or model.whole_image_max_pixels" in error
    assert not list(Path(checkpoint).parents[1].glob("scores_test*"))
    assert not list(tmp_path.rglob("*.png"))


def test_truncated_image(runs: Path, told: Callable[[], str], tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", "uw_madison", cases=6, seed=0, slices=4, size=(40, 36))
    file = sorted(tmp_path.rglob("slice_*.png"))[7]
    file.write_bytes(file.read_bytes()[:100])
    command = ["fit", "--config", "configs/experiment/demo.yaml", f"--data.source.root={tmp_path / 'data'}"]
    assert main([*command, *SMALL, "--runs", str(runs)]) == 1
    assert str(file) in told()
    assert not runs.exists()


def test_missing_file(runs: Path, told: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantom(tmp_path / "data", "uw_madison", cases=6, seed=0, slices=4, size=(40, 36))
    file = sorted(tmp_path.rglob("slice_*.png"))[7]
    original = UWMadisonSource.cases

    def cases(self: UWMadisonSource) -> Any:
        found = original(self)
        file.unlink(missing_ok=True)  # after it was listed
        return found

    monkeypatch.setattr(UWMadisonSource, "cases", cases)
    command = ["fit", "--config", "configs/experiment/demo.yaml", f"--data.source.root={tmp_path / 'data'}"]
    assert main([*command, *SMALL, "--runs", str(runs)]) == 1
    assert f"{file} is not there, or no more" in told()
    assert not runs.exists()


def in_worker(monkeypatch: pytest.MonkeyPatch, do: Callable[[PatchDataset, int], None]) -> None:
    """Let something happen in a loading process, as soon as it is asked for the second epoch."""
    original = PatchDataset.__getitem__

    def getitem(self: PatchDataset, draw: tuple[int, int]) -> Any:
        if torch.utils.data.get_worker_info() is not None and draw[0] == 1:
            do(self, draw[1])
        return original(self, draw)

    monkeypatch.setattr(PatchDataset, "__getitem__", getitem)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 of fork
def test_worker_killed(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    in_worker(monkeypatch, lambda dataset, index: os.kill(os.getpid(), signal.SIGKILL))
    assert fit("--data.num_workers=1") == 1
    error = told()
    assert "A data-loading process died" in error
    assert "Lower data.num_workers" in error
    assert step_of_last(runs) == 2
    assert_nothing_looks_finished(runs)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_error_in_a_worker_is_told_once(
    fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(dataset: PatchDataset, index: int) -> None:
        dataset.index = replace(dataset.index, directory=dataset.index.directory / "gone")

    in_worker(monkeypatch, lose)
    assert fit("--data.num_workers=1") == 1
    assert re.search(r"medseg: Case case\w+: its folder in the cache, \S+, is gone or damaged", told())
    assert step_of_last(runs) == 2
    assert_nothing_looks_finished(runs)


LOSE_A_RANK = """
import os, signal, sys
from lightning.pytorch import Callback
from medseg_pl.training.callbacks import FiniteCheck
from medseg_pl.__main__ import main

original = FiniteCheck.on_train_batch_end
def lose(self, trainer, *arguments):
    original(self, trainer, *arguments)
    if trainer.global_rank == {rank} and trainer.global_step == 3:
        {deed}
FiniteCheck.on_train_batch_end = lose
sys.exit(main(sys.argv[1:]))
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "rank", "deed"),
    [
        ("lightning", 1, KILL),
        ("lightning", 1, "raise ZeroDivisionError('a bug')"),
        ("torchrun", 1, KILL),
        ("torchrun", 0, KILL),
    ],
)
def test_rank_killed(
    launcher: str, rank: int, deed: str, phantoms: dict[str, Path], runs: Path, tmp_path: Path
) -> None:
    script = str(tmp_path / "lose.py")
    Path(script).write_text(LOSE_A_RANK.format(rank=rank, deed=deed))
    start = {
        "lightning": [script],
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script],
    }
    several = ["--config=configs/trainer/ddp_cpu.yaml", "--trainer.max_epochs=1000", "--data.samples_per_epoch=16"]
    data = f"--data.source.root={phantoms['uw_madison']}"
    command = ["fit", "--config=configs/experiment/demo.yaml", data, *several, *SMALL, "--trainer.max_epochs=1000"]
    done = subprocess.run(
        [sys.executable, *start[launcher], *command, "--runs", str(runs)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode != 0
    assert re.search(
        r"medseg: Another process of this run ended, so this one stops \(.+\)\. See its message for the cause\. "
        r"Go on with --ckpt_path last\.",
        done.stderr,
    ), done.stderr
    assert step_of_last(runs) == 2
    assert_nothing_looks_finished(runs)
    left = subprocess.run(["pgrep", "-f", script], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_disk_full(fit: Fit, small_disk: Path, told: Callable[[], str]) -> None:
    # Room for one whole run; of what is left, none.
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    last = ["--runs", str(small_disk), "--ckpt_path=last"]
    assert fit("--runs", str(small_disk), "--trainer.max_epochs=1") == 0
    scores = {path.name: path.read_bytes() for path in small_disk.rglob("*_val.*")}
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert fit(*last) == 1
    assert os.strerror(errno.ENOSPC) in told()
    assert step_of_last(small_disk) == 2
    assert {path.name: path.read_bytes() for path in small_disk.rglob("*_val.*")} == scores
    assert not list(small_disk.rglob(".writing-*"))

    filler.unlink()
    assert fit(*last) == 0
    assert step_of_last(small_disk) == 4
    assert logged_steps(small_disk) == [0, 1, 2, 3]


def test_read_only_run_folder(fit: Fit, small_disk: Path, told: Callable[[], str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert fit("--runs", str(small_disk)) == 1
    assert "Read-only file system" in told()
    assert list(small_disk.iterdir()) == []


def test_logger_offline(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()  # it reads its environment once in a process, and another test may have had it do so
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    logger = ["--config=configs/logger/wandb.yaml", f"--trainer.logger.init_args.save_dir={runs}"]
    assert fit(*logger) == 1
    error = told()
    assert "Weights & Biases cannot be reached" in error
    assert "offline to true" in error
    assert checkpoints(runs) == []


def test_logger_missing(fit: Fit, runs: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where `pip install medseg` came without the extra."""

    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "wandb", None)
    with monkeypatch.context() as patch:
        patch.setattr(imports, "_version", version)
        absent = imports.RequirementCache("wandb>=0.12.10")
        assert not absent
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", absent)
    assert fit("--config=configs/logger/wandb.yaml") == 2
    error = told()
    assert "lightning.pytorch.loggers.WandbLogger needs a package that is not installed (" in error
    assert "wandb>=0.12.10" in error
    assert "Install it with pip install 'medseg[wandb]', or leave out what needs it." in error
    assert not runs.exists()


def damage(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_corrupt_checkpoint(checkpoint: str, told: Callable[[], str], tmp_path: Path) -> None:
    damaged = tmp_path / "best.ckpt"
    shutil.copy(checkpoint, damaged)
    damage(damaged)
    assert main(["test", "--ckpt_path", str(damaged)]) == 1
    assert f"{damaged} is not a checkpoint that medseg fit wrote, or it is damaged" in told()
    assert not list(tmp_path.glob("scores*"))


def test_corrupt_last_checkpoint(
    fit: Fit, run_folder: Path, runs: Path, told: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(run_folder, runs / "demo" / "version_0")
    last, previous = (run / "checkpoints" / name for name in ("last.ckpt", "last.previous.ckpt"))
    shutil.copy(last, previous)
    whole, steps = previous.read_bytes(), step_of_last(run)
    damage(last)
    damage(previous)
    (run / "checkpoints" / "best.ckpt").unlink()
    assert fit("--ckpt_path=last") == 1
    assert f"Nothing to go on from: {last} and {previous} cannot be read" in told()

    previous.write_bytes(whole)
    assert fit(f"--ckpt_path={last}") == 0
    assert f"{last} is not a checkpoint that medseg fit wrote, or it is damaged" in caplog.text
    assert f"Going on from {previous} instead" in caplog.text
    assert step_of_last(run) == steps + 2
    assert logged_steps(run) == list(range(steps + 2))


def test_two_trainings_in_one_run_folder(fit: Fit, runs: Path, told: Callable[[], str]) -> None:
    """The second one finds a run that has begun and saved nothing yet."""
    run = runs / "demo" / "version_0"
    run.mkdir(parents=True)
    with working_in(run) as first:
        assert fit("--ckpt_path=last") == 1
        assert f"{run} is in use: process {first} on" in told()
        assert [path.name for path in run.iterdir()] == [".lock"]
    assert fit("--ckpt_path=last", "--trainer.max_epochs=1") == 0
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


def test_the_document_names_every_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text()))
    beside = Path(__file__).with_name("test_every_command.py").read_text()
    tests = {*globals(), *re.findall(r"^def (test_\w+)", beside, re.M)} - {"test_the_document_names_every_test"}
    assert named == {name for name in tests if name.startswith("test_")}


@pytest.mark.processes
def test_a_small_shared_memory(phantoms: dict[str, Path], runs: Path) -> None:
    fit = ["fit", "--config", "configs/experiment/demo.yaml", f"--data.source.root={phantoms['uw_madison']}", *SMALL]
    large = ["--model.input_size=[256,256]", "--data.batch_size=16", "--data.num_workers=1", "--runs", str(runs)]
    # In a mount namespace of its own, so that nobody else's shared memory shrinks.
    shell = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "bash", "-c", shell, "-", sys.executable, "-m", "medseg_pl", *fit, *large]
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("This user may not mount a file system, which the test needs to shrink /dev/shm.")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^medseg: /dev/shm is full.*--shm-size.*data\.num_workers to 0", done.stderr, re.M)
