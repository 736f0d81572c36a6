"""Cross-validation from the command line: each case once, and one model of all folds."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.cli import crossval
from medseg_pl.cli.training_processes import Training
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.scores import SCORED_BY_FOLD
from medseg_pl.models.ensemble_file import read_ensemble
from medseg_pl.reporting import read_run
from medseg_pl.reporting.summary import audit_split
from tests.end_to_end.conftest import SMALL
from tests.sample_files import results
from tests.timeouts import HANG_S

CONFIG = ["crossval", "--config", "configs/experiment/demo.yaml", *SMALL]
Crossval = Callable[..., int]


def train_here(trainings: Sequence[Training], *_: Any, **__: Any) -> None:
    """Train folds in this process, which spares the imports."""
    for training in trainings:
        assert main(training.arguments) == 0


@pytest.fixture(scope="module")
def command(phantoms: dict[str, Path]) -> list[str]:
    objects = "--model.metrics+=medseg_pl.ObjectMetric"
    return [*CONFIG, "--data_root", str(phantoms["uw_madison"]), "--data.folds=2", objects]


@pytest.fixture(scope="module")
def folder(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation of two folds."""
    runs = tmp_path_factory.mktemp("crossval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossval, "run_trainings", train_here)
        assert main([*command, "--runs", str(runs)]) == 0
    return runs / "demo"


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def stat_files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.mark.trainings
def test_each_case_is_scored_once_by_the_fold_that_held_it_out(folder: Path, phantoms: dict[str, Path]) -> None:
    rows = read_rows(folder / "scores_crossval.csv")
    cases = sorted({row["case_id"] for row in rows})
    assert len(cases) == 8 and len(rows) == 8 * 3
    assert [row["case_id"] for row in rows] == [case for case in cases for _ in range(3)]
    for fold in range(2):
        run = folder / f"fold_{fold}" / "version_0"
        split = json.loads((run / "splits.json").read_text())
        held_out = [row for row in rows if row["fold"] == str(fold)]
        assert sorted({row["case_id"] for row in held_out}) == split["val"]
        assert not {row["group"] for row in held_out} & {split["groups"][name] for name in split["train"]}
        own = {(row["case_id"], row["label"]): row for row in read_rows(run / "scores_val.csv")}
        assert all(row == {**own[row["case_id"], row["label"]], "fold": str(fold)} for row in held_out)
    objects = [row for fold in range(2) for row in read_rows(folder / f"fold_{fold}/version_0/objects_val.csv")]
    joined = read_rows(folder / "objects_crossval.csv")
    assert sorted(map(str, objects)) == sorted(str({k: v for k, v in row.items() if k != "fold"}) for row in joined)
    summary = json.loads((folder / "summary_crossval.json").read_text())
    counts = [summary["objects"][label]["n_reference"] for label in summary["labels"]]
    assert sum(counts) == sum(row["mask"] == "reference" for row in objects) > 0
    assert summary["n_cases"] == 8 and summary["folds"]["foreground_mean"]["dice"]["n"] == 2
    assert summary["scored"]["split"].startswith("each fold of 2 by patient")
    assert summary["folds"]["runs"] == ["fold_0/version_0", "fold_1/version_0"]


@pytest.mark.trainings
def test_repeating_the_command_changes_nothing(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = stat_files(folder)
    assert main([*command, "--runs", str(folder.parent)]) == 0
    after = stat_files(folder)
    assert {name: after[name] for name in before if name != "ensemble.json"} == {
        name: stat for name, stat in before.items() if name != "ensemble.json"
    }
    assert set(after) == set(before)
    printed = capsys.readouterr().out
    assert "Fold 1: complete" in printed and SCORED_BY_FOLD in printed and "Quote the table's means" in printed


@pytest.mark.trainings
def test_what_a_kill_left_out_is_added_with_the_same_bytes(folder: Path, command: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "runs" / "demo")
    for name in ("scores_crossval.csv", "report.html", "ensemble.json"):
        (copy / name).unlink()
    assert main([*command, "--runs", str(copy.parent)]) == 0
    for name in ("scores_crossval.csv", "summary_crossval.json", "ensemble.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    assert (copy / "report.html").is_file()
    assert not list(copy.glob("*_2.*"))


@pytest.mark.trainings
def test_one_fold_at_a_time_ends_the_same(folder: Path, command: list[str], tmp_path: Path) -> None:
    alone = [*command, "--runs", str(tmp_path)]
    assert main([*alone, "--fold", "1"]) == 0
    assert not (tmp_path / "demo" / "scores_crossval.csv").exists()
    assert main([*alone, "--fold", "0"]) == 0
    for name in ("scores_crossval.csv", "summary_crossval.json", "ensemble.json"):
        assert (tmp_path / "demo" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.trainings
def test_the_ensemble_is_a_model(folder: Path, phantoms: dict[str, Path], tmp_path: Path) -> None:
    ensemble = folder / "ensemble.json"
    members = [str(member) for member in read_ensemble(ensemble)]
    assert [len(Predictor.from_checkpoint(each, device="cpu").models) for each in (ensemble, folder)] == [2, 2]
    images = ["--input", str(phantoms["uw_madison"] / "train"), "--trainer.accelerator=cpu"]
    assert main(["predict", "--ckpt_path", str(ensemble), *images, "-o", str(tmp_path / "one")]) == 0
    assert main(["predict", "--ckpt_path", *members, *images, "-o", str(tmp_path / "two")]) == 0
    assert results(tmp_path / "one") == results(tmp_path / "two")
    # Every label is reviewed, by the model that was not trained on its patient.
    review = ["--ckpt_path", str(ensemble), "--device=cpu", "--top=0"]
    assert main(["review", *review, "-o", str(tmp_path / "review")]) == 0
    assert len(read_rows(tmp_path / "review" / "review.csv")) == 8


@pytest.mark.trainings
def test_the_page_knows_the_folds(folder: Path) -> None:
    run = read_run(folder, None)
    audit = audit_split(run)
    assert (run.stage, len(run.folds), audit.verdict) == ("crossval", 2, "yes")
    assert [side.name for side in audit.sides] == ["held out by fold 0", "held out by fold 1"]
    assert sum(side.cases for side in audit.sides) == 8
    page = (folder / "report.html").read_text()
    assert "Over 2 folds the mean Dice is" in page
    assert SCORED_BY_FOLD in (folder / "table_crossval.md").read_text()
    assert "data:image/webp" in page, "pictures of the folds"


@pytest.mark.trainings
def test_scores_of_another_fold_are_seen(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "demo")
    text = (copy / "scores_crossval.csv").read_text()
    (copy / "scores_crossval.csv").write_text(text.replace(",0\n", ",1\n"))
    audit = audit_split(read_run(copy, None))
    assert audit.verdict == "no" and "4 cases were scored by a fold that did not hold them out" in audit.sentences[0]


@pytest.mark.trainings
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["--data.folds=3"], "data.folds"),
        (["--model.optimizer.init_args.lr=0.5"], "model.optimizer.init_args.lr"),
        (["--seed_everything=4"], "seed_everything"),
    ],
)
def test_folds_of_other_settings_are_not_mixed(
    folder: Path, command: list[str], changes: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--runs", str(folder.parent), *changes]) == 2
    message = capsys.readouterr().err
    assert "was begun with other settings" in message and reason in message and "--experiment" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["crossval"], "needs --config"),
        ([*CONFIG, "--ckpt_path", "last"], "Remove --ckpt_path"),
        ([*CONFIG, "--data.fold=1"], "--fold K"),
        ([*CONFIG, "--jobs=0"], "--jobs must be from 1"),
        ([*CONFIG, "--jobs=2", "--fold=1"], "one of the two"),
        ([*CONFIG, "--jobs=many"], "jobs"),
        ([*CONFIG, "--data.bach_size=2"], "batch_size"),
        ([*CONFIG, "--trainer.fast_dev_run=true"], "keeps no checkpoints"),
        (["test", "--ckpt_path", "ensemble.json"], "takes one checkpoint"),
    ],
)
def test_wrong_use_is_told_before_anything_is_trained(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ensemble.json").write_text("{}")
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_split_that_has_no_folds_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "split.json").write_text('{"train": ["a"], "val": ["b"]}')
    runs = ["--runs", str(tmp_path / "runs"), f"--data.split_file={tmp_path / 'split.json'}"]
    assert main([*command, *runs]) == 2
    assert "holds one split" in capsys.readouterr().err
    (tmp_path / "split.json").write_text('[{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]')
    assert crossval.make_plan([*command[1:], *runs]).folds == 2


def start(command: Sequence[str], runs: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "medseg_pl", *command, "--runs", str(runs), "--jobs", "2"]
    with (runs.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


@pytest.mark.processes
@pytest.mark.slow
def test_killed_three_times_it_ends_as_if_it_had_not_been(phantoms: dict[str, Path], tmp_path: Path) -> None:
    """In its first fold, between folds, and before its results, each time in another way."""
    command = [*CONFIG, "--data_root", str(phantoms["uw_madison"]), "--data.folds=5", "--trainer.max_epochs=2"]
    runs, calm = tmp_path / "disturbed" / "runs", tmp_path / "calm" / "runs"
    for each in (runs, calm):
        each.mkdir(parents=True)
    stops = [
        (signal.SIGKILL, "fold_0/version_0/checkpoints/last.ckpt"),
        (signal.SIGTERM, "fold_0/version_0/complete.json"),
    ]
    stops.append((signal.SIGINT, "fold_4/version_0/checkpoints/last.ckpt"))
    for number, mark in stops:
        process = start(command, runs)
        deadline = time.monotonic() + HANG_S
        while not (runs / "demo" / mark).exists():
            assert process.poll() is None and time.monotonic() < deadline, (runs.parent / "log.txt").read_text()
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(HANG_S) == {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}[number]
        while is_running(runs):  # what a killed command leaves saves its state and ends
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for each in (runs, calm):
        assert start(command, each).wait(HANG_S) == 0, (each.parent / "log.txt").read_text()
    for name in ("scores_crossval.csv", "summary_crossval.json", "ensemble.json"):
        assert (runs / "demo" / name).read_bytes() == (calm / "demo" / name).read_bytes(), name
    for member, other in zip(*(read_ensemble(each / "demo" / "ensemble.json") for each in (runs, calm)), strict=True):
        state, expected = (torch.load(path, weights_only=True)["state_dict"] for path in (member, other))
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def is_running(runs: Path) -> bool:
    """Whether a process names this folder among its arguments."""
    me = os.getpid()
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(me)]
    for path in commands:
        try:
            if str(runs).encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False
