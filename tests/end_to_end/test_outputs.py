"""What a training leaves behind, whatever its callbacks are and however often it goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from medseg_pl.__main__ import main
from medseg_pl.training.checkpoints import LastCheckpoint
from tests.end_to_end.conftest import SMALL

# Lightning's own remark on an OnExceptionCheckpoint, which it takes for a wish to go on.
pytestmark = [
    pytest.mark.trainings,
    pytest.mark.filterwarnings(r"ignore:.*\.fit\(ckpt_path="),
]

Fit = Callable[..., int]

SHORT = ("--trainer.limit_train_batches=4", "--model.surface_metrics=false", "--trainer.num_sanity_val_steps=0")


@pytest.fixture(scope="module")
def fit(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """`medseg fit` into a folder that `fit.runs` names."""
    runs = tmp_path_factory.mktemp("runs")
    # Four of six cases are trained on, so that the third epoch is the best.
    shares = "--data.split_fractions=[0.6, 0.2, 0.2]"
    arguments = ["--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"]), shares]

    def run(*options: str) -> int:
        return main(["fit", *arguments, "--runs", str(runs), *SMALL, *SHORT, *options])

    run.runs = runs  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def crowded(fit: Fit) -> Path:
    """The run of two epochs with three callbacks of the user's that keep checkpoints."""
    own = [
        "--trainer.callbacks+=medseg_pl.training.checkpoints.LastCheckpoint",
        "--trainer.callbacks.minutes=5",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.every_n_epochs=1",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks+=OnExceptionCheckpoint",
        f"--trainer.callbacks.dirpath={fit.runs}",  # type: ignore[attr-defined]
    ]
    assert fit("--experiment=crowded", "--trainer.max_epochs=2", *own) == 0
    return Path(fit.runs) / "crowded" / "version_0"  # type: ignore[attr-defined]


def steps_with(run: Path, column: str) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get(column)]


def test_further_checkpoints_change_nothing_of_what_a_run_leaves(crowded: Path) -> None:
    left = {path.name for path in crowded.iterdir()}
    assert {"scores_val.csv", "summary_val.json", "overlays", "complete.json"} <= left
    periodic = {f"epoch={epoch}-step={4 * (epoch + 1)}.ckpt" for epoch in range(2)}
    assert {path.name for path in (crowded / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "last.previous.ckpt"),
        *periodic,
    }
    with (crowded / "metrics.csv").open(newline="") as file:
        dice = [float(row["val/dice"]) for row in csv.DictReader(file) if row.get("val/dice")]
    best = torch.load(crowded / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    assert best == max(range(2), key=lambda epoch: dice[epoch])
    scored = json.loads((crowded / "summary_val.json").read_text())["foreground_mean"]["dice"]
    assert scored == pytest.approx(max(dice[:2]), abs=1e-6)


def test_a_run_that_went_on_is_reported_and_compared_by_its_newest_scores(
    crowded: Path, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--experiment=crowded", "--ckpt_path=last", "--trainer.max_epochs=3"]
    first = (crowded / "scores_val.csv").read_bytes()
    assert fit(*more) == 0
    (crowded / "complete.json").unlink()  # as after a kill between the scores and the note
    assert fit(*more) == 0
    assert main(["validate", "--ckpt_path", str(crowded / "checkpoints/best.ckpt"), "--trainer.accelerator=cpu"]) == 0
    assert (crowded / "scores_val.csv").read_bytes() == first
    names = [f"scores_val{number}.csv" for number in ("", "_2", "_3", "_4")]
    assert sorted(path.name for path in crowded.glob("scores_*")) == names
    capsys.readouterr()

    page = tmp_path / "page.html"
    assert main(["report", str(crowded), "-o", str(page), "--pictures=0"]) == 0
    said = capsys.readouterr().out
    assert (
        f"Note: {crowded / names[-1]} is read, the newest scores of val; older ones: {', '.join(names[:-1])}." in said
    )
    assert main(["compare", str(crowded), str(crowded / names[0])]) == 0
    said = capsys.readouterr().out
    assert f"A  {crowded / names[-1]}" in said
    assert f"Note: {names[-1]} of A is the newest of several" in said


class Cut(Checkpoint):
    """Ends the process, as `kill -9` does, right after a checkpoint was saved; keeps what was in the log then."""

    def __init__(self, run: Path, hook: str) -> None:
        self.run, self.hook, self.seen = run, hook, [-1]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.hook == "batch" and trainer.global_step == 3:
            self._cut()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.hook == "epoch":
            self._cut()

    def _cut(self) -> None:
        self.seen = steps_with(self.run, "train/loss")
        raise PowerCutError


class PowerCutError(BaseException):
    """Ends a run at once."""


@pytest.mark.parametrize("hook", ["batch", "epoch"])
def test_the_log_is_never_behind_a_checkpoint(hook: str, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(fit.runs) / hook / "version_0"  # type: ignore[attr-defined]
    cut = Cut(run, hook)
    often = ["--trainer.callbacks+=medseg_pl.training.checkpoints.LastCheckpoint", "--trainer.callbacks.minutes=0"]
    options = [f"--experiment={hook}", "--ckpt_path=last", *often]
    original = LastCheckpoint.setup

    def setup(self: LastCheckpoint, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        original(self, trainer, *args, **kwargs)
        trainer.callbacks.append(cut)  # type: ignore[attr-defined]

    with monkeypatch.context() as context, pytest.raises(PowerCutError):
        context.setattr(LastCheckpoint, "setup", setup)
        fit(*options)
    made = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert cut.seen == list(range(made)), "on the disk when the process is killed"
    assert fit(*options) == 0
    assert steps_with(run, "train/loss") == list(range(4)), "each step once"
    assert len(steps_with(run, "lr-AdamW")) == 4


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_limit_that_cuts_every_volume_is_an_error(
    command: str, fit: Fit, crowded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--data.eval_batch_size=2"
    if command == "fit":
        code = fit("--experiment=part", "--trainer.limit_val_batches=2", small)
    else:
        best = str(crowded / "checkpoints/best.ckpt")
        code = main(["test", "--ckpt_path", best, "--trainer.accelerator=cpu", "--trainer.limit_test_batches=2", small])
    assert code == 1
    stage = {"fit": "val", "test": "test"}[command]
    assert f"No case is complete within trainer.limit_{stage}_batches=2" in capsys.readouterr().err
    assert not list(Path(fit.runs).rglob("scores_test*"))  # type: ignore[attr-defined]
    assert not (Path(fit.runs) / "part/version_0/complete.json").exists()  # type: ignore[attr-defined]
