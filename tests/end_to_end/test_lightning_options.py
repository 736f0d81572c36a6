"""Callbacks and flags that Lightning's users reach for work through the command line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main
from medseg_pl.training.module import SegmentationModule
from tests.end_to_end.conftest import SMALL

Fit = Callable[..., list[dict[str, str]]]
FPN = (
    "--model.network={class_path: segmentation_models_pytorch.FPN, "
    "init_args: {encoder_name: resnet18, encoder_weights: null}}"
)


@pytest.fixture
def fit(phantoms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A training with further options; returns the rows of its metrics.csv."""
    root = Path.cwd()

    def run(*options: str) -> list[dict[str, str]]:
        data = ["--data.source.root", str(phantoms["uw_madison"]), "--model.surface_metrics=false"]
        data.append("--data.split_fractions=[0.6, 0.2, 0.2]")  # four cases to train on: a finder needs its steps
        config = str(root / "configs/experiment/demo.yaml")
        assert main(["fit", "--config", config, "--runs", str(tmp_path), *data, *SMALL, *options]) == 0
        with (tmp_path / "demo/version_0/metrics.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    monkeypatch.chdir(tmp_path)  # Lightning's tuners write into the working directory
    return run


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.mark.trainings
def test_the_learning_rate_finder_sets_the_rate_of_the_schedule(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    finder = "--trainer.callbacks+=LearningRateFinder"
    settings = ["min_lr=0.0001", "max_lr=0.01", "num_training_steps=14", "early_stop_threshold=null"]
    named = [f"--trainer.callbacks.{setting}" for setting in settings]
    rows = fit(finder, *named, "--model.lr_scheduler=null", "--trainer.max_epochs=3")
    (found,) = [record.args for record in caplog.records if "learning rate is set to" in record.message]
    rates = column(rows, "lr-AdamW")
    assert rates == pytest.approx([found[0]] * len(rates))
    assert found[0] != pytest.approx(found[1])


@pytest.mark.trainings
@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_backbone_finetuning_thaws_the_encoder_under_a_schedule(fit: Fit) -> None:
    rows = fit(
        "--trainer.callbacks+=BackboneFinetuning",
        "--trainer.callbacks.unfreeze_backbone_at_epoch=1",
        "--trainer.max_epochs=3",
        "--model.lr_scheduler.init_args.warmup_steps=0",
    )
    heads, backbones = column(rows, "lr-AdamW/network"), column(rows, "lr-AdamW/pg3")
    assert 0 < len(backbones) < len(column(rows, "lr-AdamW") + heads)
    assert backbones[0] == pytest.approx(heads[-len(backbones)] / 10, rel=0.2)


@pytest.mark.trainings
def test_overfitting_repeats_the_same_batch(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    step = SegmentationModule.training_step

    def note(self: SegmentationModule, batch: Any, batch_idx: int) -> Any:
        seen.append(batch.image.clone())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", note)
    fit("--trainer.overfit_batches=1", "--trainer.max_epochs=3")
    assert len(seen) == 3
    assert all((image == seen[0]).all() for image in seen)


@pytest.mark.trainings
@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_a_progress_bar_of_lightnings_takes_the_place_of_ours(
    fit: Fit, bar: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(f"--trainer.callbacks+={bar}")
    assert "min left" not in capsys.readouterr().out  # our lines


@pytest.mark.trainings
def test_a_log_of_nothing_still_trains(fit: Fit) -> None:
    rows = fit("--trainer.log_every_n_steps=0")
    assert column(rows, "val/dice")
    assert not column(rows, "train/images_per_second")


@pytest.mark.trainings
@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("--trainer.precision=64-true", "32-true"),
        ("--trainer.barebones=true", "trainer.profiler"),
        ("--model.network.init_args.aux_params={classes: 2}", "aux_params to null"),
        (FPN, "model.input_size to"),
        ("--trainer.limit_train_batches=0", "Set it to 1.0"),
    ],
)
def test_the_rest_is_refused_before_a_run_folder_is_made(
    fit: Fit, tmp_path: Path, option: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        fit("--model.input_size=[33,40]", option)
    error = capsys.readouterr().err
    assert error.startswith("medseg: ")
    assert len(error.splitlines()) == 1
    assert re.search(remedy, error)
    assert not (tmp_path / "demo").exists()
