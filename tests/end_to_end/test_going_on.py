"""A run that was cut off goes on in its own folder, whatever was left of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.__main__ import main
from medseg_pl.training.checkpoints import LastCheckpoint
from tests.end_to_end.conftest import SMALL

Fit = Callable[..., int]

SHORT = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=3")


class PowerCutError(BaseException):
    """Ends a run at once; nothing but what is on the disk is left of it."""


@pytest.fixture
def fit(phantoms: dict[str, Path], tmp_path: Path) -> Fit:
    """`medseg fit` into a folder of the test's, for two epochs unless it is told otherwise."""
    arguments = ["--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]

    def run(*options: str) -> int:
        return main(["fit", *arguments, "--runs", str(tmp_path), *SMALL, *SHORT, *options])

    return run


def cut(monkeypatch: pytest.MonkeyPatch, fit: Fit, *options: str, at: int) -> None:
    """Train until the power fails, right before a step."""

    def fail(self: Callback, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == at:
            raise PowerCutError

    with monkeypatch.context() as context, pytest.raises(PowerCutError):
        context.setattr(LastCheckpoint, "on_train_batch_start", fail, raising=False)
        fit(*options)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(run: Path) -> list[int]:
    return [int(row["step"]) for row in rows_of(run) if row["train/loss"]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_command_begins_goes_on_and_ends(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "demo" / "version_0"
    cut(monkeypatch, fit, "--ckpt_path=last", at=5)
    assert f"There is nothing to go on from in {tmp_path / 'demo'}: a new run begins." in capsys.readouterr().out
    before = {name: (run / name).read_bytes() for name in ("config.yaml", "splits.json")}
    epoch = int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])
    assert 0 < epoch < 5
    with (run / "metrics.csv").open("a") as file:
        file.write("0.25,9,99")  # the process was killed in the middle of a row

    assert fit("--ckpt_path=last") == 0
    said = capsys.readouterr().out
    assert f"Going on from {run / 'checkpoints' / 'last.ckpt'}, epochs done: 1, steps done: {epoch}." in said
    assert "\nTraining: effective batch 4 = 4 × 1 devices × 1 accumulated, learning rate 0.003 (Warmup" in said
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["version_0"]
    assert {name: (run / name).read_bytes() for name in before} == before
    assert len(json.loads((run / "environment.json").read_text())["resumed"]) == 1
    assert steps_of(run) == list(range(2 * epoch))  # each step once, those that the power cut took included
    assert [int(row["step"]) for row in rows_of(run) if row["val/dice"]][:2] == [epoch - 1, 2 * epoch - 1]
    assert (run / "summary_val.json").is_file()

    left = files(tmp_path)
    assert fit("--ckpt_path=last") == 0
    assert f"{run} is complete: epochs done: 2, steps done: {2 * epoch}." in capsys.readouterr().out
    assert files(tmp_path) == left


@pytest.mark.trainings
def test_other_settings_are_kept_beside_the_first_ones(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "demo" / "version_0"
    assert fit("--trainer.max_epochs=1") == 0
    first = (run / "config.yaml").read_bytes()
    again = ["--trainer.max_epochs=2", f"--ckpt_path={run}/checkpoints/last.ckpt", "--experiment=other"]
    often = ["--trainer.callbacks+=medseg_pl.training.checkpoints.LastCheckpoint", "--trainer.callbacks.minutes=0"]
    assert fit(*again, *often) == 0
    assert not (tmp_path / "other").exists()
    assert (run / "config.yaml").read_bytes() == first
    assert yaml.safe_load((run / "config_resumed_1.yaml").read_text())["trainer"]["max_epochs"] == 2
    changed = "trainer.callbacks, trainer.max_epochs, experiment"
    assert f"Settings differ from those that this run had before: {changed}." in caplog.text
    assert json.loads((run / "complete.json").read_text())["epochs"] == 2
    assert len(set(steps_of(run))) == len(steps_of(run))


@pytest.mark.trainings
@pytest.mark.parametrize("died", ["before its scores", "in the validation at its end"])
def test_a_run_that_died_before_its_scores_gets_them(died: str, fit: Fit, tmp_path: Path) -> None:
    run = tmp_path / "demo" / "version_0"
    assert fit("--trainer.max_epochs=1") == 0
    scores = (run / "scores_val.csv").read_bytes()
    validated = ["checkpoints/best.ckpt"] if died == "in the validation at its end" else []
    for name in ("complete.json", "scores_val.csv", "summary_val.json", *validated):
        (run / name).unlink()
    shutil.rmtree(run / "predictions" / "val")  # masks get their name after the scores have theirs
    logged = steps_of(run)
    assert fit("--trainer.max_epochs=1", "--ckpt_path=last") == 0
    assert (run / "scores_val.csv").read_bytes() == scores
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert steps_of(run) == logged


@pytest.mark.trainings
def test_any_other_checkpoint_begins_a_new_run(
    checkpoint: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(Path(checkpoint).parent.parent)
    assert fit("--ckpt_path", checkpoint) == 0
    assert f"{checkpoint} is not the last.ckpt of a run folder: a new run begins" in capsys.readouterr().out
    assert files(Path(checkpoint).parent.parent) == before
    assert (tmp_path / "demo" / "version_0" / "checkpoints" / "last.ckpt").is_file()
