"""Trainings that are made longer or shorter, that end by time or steps, and settings that change in between."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.optim.lr_scheduler import OneCycleLR

from medseg_pl.__main__ import main
from medseg_pl.core.errors import count_noun
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

Fit = Callable[..., int]
BATCHES = 3  # in an epoch
STOPPING = (
    "--trainer.callbacks+=EarlyStopping",
    "--trainer.callbacks.monitor=val/dice",
    "--trainer.callbacks.mode=max",
    "--trainer.callbacks.patience=1",
    "--trainer.callbacks.min_delta=1",
)


@pytest.fixture
def fit(phantoms: dict[str, Path], tmp_path: Path) -> Fit:
    """`medseg fit` of a few steps into a folder of the test's."""
    arguments = ["--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    limits = [f"--trainer.limit_train_batches={BATCHES}", "--model.surface_metrics=false"]

    def run(*options: str) -> int:
        return main(["fit", *arguments, "--runs", str(tmp_path), *SMALL, *limits, *options])

    return run


def logged(run: Path, name: str) -> dict[int, float]:
    """A column of `metrics.csv` by step."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


def test_a_run_is_made_longer_and_never_shorter(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "demo" / "version_0"
    assert fit("--trainer.max_epochs=2") == 0
    faster = "--model.optimizer.init_args.lr=0.006"
    assert fit("--trainer.max_epochs=4", "--ckpt_path=last", faster) == 0
    rates = logged(run, "lr-AdamW")
    # The twelve steps are one decay: what was added goes on where its own second half begins, at twice the rate.
    expected = {step: 0.006 * (1 - step / 12) ** 0.9 for step in range(6, 12)}
    assert {step: rate for step, rate in rates.items() if step >= 6} == pytest.approx(expected)
    assert "in force from here on: optimizer.lr 0.003 → 0.006." in caplog.text

    complete = (run / "complete.json").read_bytes()
    for shorter, done in (("max_epochs=3", "4 epochs"), ("max_steps=7", "12 steps")):
        assert fit("--trainer.max_epochs=4", f"--trainer.{shorter}", "--ckpt_path=last") == 1
        name, value = shorter.split("=")
        said = capsys.readouterr().err
        assert (
            f"trainer.{name} is {value}, but {run / 'checkpoints' / 'last.ckpt'} has {done} behind it. Set it" in said
        )
        assert "Traceback" not in said
    assert (run / "complete.json").read_bytes() == complete


ENDS = {
    # Where Lightning would not have validated, and after how many steps.
    "before the first validation": (["--trainer.check_val_every_n_epoch=5"], 3),
    "by steps": (["--trainer.max_steps=2", *STOPPING], 2),
    "by time": (
        ["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01", "--trainer.check_val_every_n_epoch=99"],
        None,
    ),
    "between two validations": (["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"], 9),
    "by steps in a later epoch": (["--trainer.max_steps=4", "--trainer.max_epochs=-1"], 4),
    "between validations by steps": (
        ["--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null", *STOPPING],
        3,
    ),
}
SLOW_ENDS = list(ENDS)[3:]


@pytest.mark.parametrize("end", [pytest.param(end, marks=[pytest.mark.slow] * (end in SLOW_ENDS)) for end in ENDS])
def test_a_run_validates_at_its_end_at_the_latest(
    end: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, steps = ENDS[end]
    assert fit(*options) == 0
    terminal = capsys.readouterr().out
    run = tmp_path / "demo" / "version_0"
    timed = steps is None
    steps = steps or 1 + max(logged(run, "train/loss"))
    assert (f"Trained for {count_noun(steps, 'step')}, ended by the time limit (trainer.max_time" in terminal) == timed
    # The best weights are scored in the end, after the last step; what was trained was, at that step and once.
    scores, epochs = logged(run, "val/dice"), logged(run, "epoch")
    assert sorted(scores)[-2:] == [steps - 1, steps]
    assert epochs[steps - 1] == (steps - 1) // BATCHES
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert (run / "scores_val.csv").is_file()
    record = json.loads((run / "complete.json").read_text())
    assert (record["steps"], record["out_of_time"]) == (steps, timed)
    best = max(sorted(scores)[:-1], key=lambda step: scores[step])
    assert record["best"] == {"step": best + 1, "epoch": epochs[best] + 1}
    assert f"Scored with the best weights, of step {best + 1} (epoch {epochs[best] + 1:.0f})" in terminal
    assert all(rate > 0 for rate in logged(run, "lr-AdamW").values())


def test_a_run_that_time_ends_names_its_planned_steps(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = "--trainer.max_epochs=5000", "--trainer.max_time=00:00:00:01"
    assert fit(*limits) == 0
    record = json.loads((tmp_path / "demo/version_0/complete.json").read_text())
    assert record["planned_steps"] == 5000 * BATCHES
    terminal = capsys.readouterr().out
    ended = f"Trained for {record['steps']} of 15000 steps, ended by the time limit (trainer.max_time: 00:00:00:01)."
    assert f"{ended} The run is complete." in terminal
    assert main(["report", str(tmp_path / "demo"), "-o", str(tmp_path / "page.html")]) == 0
    assert ended in (tmp_path / "page.html").read_text()
    assert fit(*limits, "--ckpt_path=last") == 0
    assert f"steps done: {record['steps']}. A higher trainer.max_time goes on with it;" in capsys.readouterr().out
    assert fit(limits[0], "--trainer.max_time=00:00:00:02", "--ckpt_path=last") == 0
    longer = json.loads((tmp_path / "demo/version_0/complete.json").read_text())
    assert longer["steps"] > record["steps"] and longer["planned_steps"] == 15000


def test_a_resume_with_nothing_left_was_not_ended_by_time(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "demo/version_0/complete.json"
    assert fit("--trainer.max_time=00:01:00:00") == 0
    record.unlink()  # as if it was killed before its end
    capsys.readouterr()
    assert fit('--trainer.max_time={"milliseconds": 1}', "--ckpt_path=last") == 0
    end = json.loads(record.read_text())
    assert (end["steps"], end["planned_steps"], end["out_of_time"]) == (BATCHES, BATCHES, False)
    assert "time limit" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.limit_val_batches=0", *STOPPING], "EarlyStopping waits for scores, but trainer.limit_val_batches"),
        (
            [*STOPPING, "--trainer.callbacks.monitor=val/dic"],
            "EarlyStopping monitors val/dic, which is not logged. Set",
        ),
        (["--model.lr_scheduler.init_args.warmup_steps=100"], "warms up for 100 steps, but the run has 3"),
        (["--trainer.max_epochs=-1"], "no end that the learning rate could follow. Set trainer.max_epochs"),
    ],
)
def test_what_cannot_end_well_is_a_sentence(
    options: list[str], said: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_one_cycle_goes_on_in_a_longer_run(fit: Fit, tmp_path: Path) -> None:
    def cycle(steps: int) -> str:
        settings = {"max_lr": 0.01, "total_steps": steps}
        return "--model.lr_scheduler=" + json.dumps({"class_path": "OneCycleLR", "init_args": settings})

    assert fit("--trainer.max_epochs=1", cycle(3)) == 0
    assert fit("--trainer.max_epochs=2", cycle(6), "--ckpt_path=last") == 0
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=6)
    expected = []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rates = logged(tmp_path / "demo" / "version_0", "lr-AdamW")
    assert [rates[step] for step in (3, 4, 5)] == expected[3:]


def test_torchs_schedules_count_epochs(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halving = {"class_path": "StepLR", "init_args": {"step_size": 1, "gamma": 0.5}}
    assert fit("--trainer.max_epochs=2", "--model.lr_scheduler=" + json.dumps(halving)) == 0
    assert "learning rate 0.003 (StepLR per epoch)" in capsys.readouterr().out
    rates = logged(tmp_path / "demo" / "version_0", "lr-AdamW")
    assert sorted(rates.values(), reverse=True) == [0.003, 0.0015]


def test_accumulation_that_grows_ends_at_the_last_step(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grows = {"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {1: 3}}}
    config = tmp_path / "grows.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [grows]}}))
    assert fit("--trainer.max_epochs=3", "--config", str(config)) == 0
    assert "5/5" in capsys.readouterr().out
    rates = logged(tmp_path / "demo" / "version_0", "lr-AdamW")
    assert rates[4] == pytest.approx(0.003 * 0.2**0.9)


def test_twenty_pictures_in_three_lines(tmp_path: Path) -> None:
    root = tmp_path / "mydata"
    chance = np.random.default_rng(0)
    for number in range(20):
        mask = np.zeros((32, 32), np.uint8)
        row, column = chance.integers(2, 18, 2)
        mask[row : row + 12, column : column + 10] = 255
        picture = chance.integers(0, 90, (32, 32, 3)) + mask[..., None] // 3
        for kind, pixels in (("images", picture.astype(np.uint8)), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"img_{number:02}.png")
    configs = [f"--config=configs/{name}.yaml" for name in ("data/folder", "model/tiny", "trainer/cpu")]
    data = [f"--data.source.root={root}", "--model.labels.names=[lesion]", "--model.channels=3", "--data.num_workers=0"]
    small = [*SMALL, "--data.batch_size=8", "--trainer.max_epochs=20", "--trainer.check_val_every_n_epoch=99"]
    assert main(["fit", *configs, *data, *small, f"--runs={tmp_path}", "--model.surface_metrics=false"]) == 0
    rates = logged(tmp_path / "default" / "version_0", "lr-AdamW")
    steps = len(rates)
    assert steps == 40
    assert rates[1] == max(rates.values()) == 0.003  # a twentieth of the run are two steps
    assert rates[39] == pytest.approx(0.003 * (1 / 38) ** 0.9)
