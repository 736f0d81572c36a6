"""fit, validate, test and predict, through the command line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.data.datasets import PatchDataset
from medseg_pl.io import raster
from medseg_pl.io.regions import decode_runs
from tests.end_to_end.conftest import SMALL
from tests.sample_files import tree
from tests.timeouts import HANG_S

ORGANS = ["large_bowel", "small_bowel", "stomach"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_leaves_the_whole_run_folder(run_folder: Path) -> None:
    names = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    expected = {"config.yaml", "splits.json", "environment.json", "metrics.csv", "scores_val.csv", "summary_val.json"}
    assert expected | {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert any(name.startswith("overlays/val/") for name in names)


def test_scores_have_a_row_for_each_case_and_label(run_folder: Path) -> None:
    split = json.loads((run_folder / "splits.json").read_text())
    rows = rows_of(run_folder / "scores_val.csv")
    assert [(row["case_id"], row["label"]) for row in rows] == [(c, o) for c in split["val"] for o in ORGANS]
    assert {row["unit"] for row in rows} == {"mm"}


def test_summary_follows_from_the_scores(run_folder: Path) -> None:
    rows = rows_of(run_folder / "scores_val.csv")
    summary = json.loads((run_folder / "summary_val.json").read_text())
    means = []
    for organ in ORGANS:
        dice = [float(row["dice"]) for row in rows if row["label"] == organ and row["dice"]]
        means.append(np.mean(dice))
        assert summary["labels"][organ]["dice"]["mean"] == pytest.approx(means[-1])
    assert summary["foreground_mean"]["dice"] == pytest.approx(np.mean(means))


def test_the_split_names_the_patient_of_each_case(run_folder: Path) -> None:
    split = json.loads((run_folder / "splits.json").read_text())
    sides = {side: {split["groups"][name] for name in split[side]} for side in ("train", "val", "test")}
    assert all(sides.values())
    assert not sides["train"] & sides["val"] and not (sides["train"] | sides["val"]) & sides["test"]
    assert {row["group"] for row in rows_of(run_folder / "scores_val.csv")} == sides["val"]


def test_metrics_are_logged_under_their_names(run_folder: Path) -> None:
    logged = set().union(*(row.keys() for row in rows_of(run_folder / "metrics.csv")))
    assert {"train/loss", "val/loss", "val/dice", "val/iou", "val/dice/stomach", "val/iou/large_bowel"} <= logged


def test_test_needs_only_the_checkpoint(
    checkpoint: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "checkpoints" / "best.ckpt"
    moved.parent.mkdir()
    shutil.copy(checkpoint, moved)
    assert main(["test", "--ckpt_path", str(moved), "--trainer.enable_progress_bar=true"]) == 0
    split = json.loads((run_folder / "splits.json").read_text())
    assert sorted({row["case_id"] for row in rows_of(tmp_path / "scores_test.csv")}) == split["test"]
    said = capsys.readouterr().out
    assert "95 % interval" in said
    proof, page = said.splitlines()[-2:]
    assert proof == "By its record, the run trained on none of these patients."
    assert page.startswith("See it on a page: medseg report ")


def test_validate_repeats_the_end_of_training_to_the_last_digit(
    checkpoint: str, run_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    assert main(["validate", f"--ckpt_path={tmp_path / 'best.ckpt'}", "--trainer.enable_progress_bar=true"]) == 0
    assert (tmp_path / "scores_val.csv").read_bytes() == (run_folder / "scores_val.csv").read_bytes()
    assert (tmp_path / "summary_val.json").read_bytes() == (run_folder / "summary_val.json").read_bytes()


def test_a_second_test_overwrites_nothing(checkpoint: str, tmp_path: Path) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    (tmp_path / "scores_test.csv").write_text("mine")
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    assert (tmp_path / "scores_test.csv").read_text() == "mine"
    assert rows_of(tmp_path / "scores_test_2.csv")
    assert not (tmp_path / "summary_test.json").exists()  # files that belong together have one number
    assert (tmp_path / "summary_test_2.json").is_file()


def test_given_settings_win_over_the_checkpoint(checkpoint: str, tmp_path: Path) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    pattern = "--data.source.root=nowhere"
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt"), pattern]) == 1
    options = ["--data.eval_batch_size=1", "--model.metrics+=tests.end_to_end.plugins.Area", "--plugins=tests"]
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt"), *options]) == 0
    assert all(row["area"] for row in rows_of(tmp_path / "scores_test.csv"))


def test_new_patients_do_not_change_whom_a_checkpoint_is_tested_on(
    checkpoint: str, run_folder: Path, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    write_phantom(tmp_path / "more", "uw_madison", cases=14, seed=0, slices=6, size=(40, 36))
    grown = f"--data.source.root={tmp_path / 'more'}"
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt"), grown]) == 0
    split = json.loads((run_folder / "splits.json").read_text())
    assert sorted({row["case_id"] for row in rows_of(tmp_path / "scores_test.csv")}) == split["test"]
    assert json.loads((tmp_path / "summary_test.json").read_text())["scored"] == {
        "side": "test",
        "split": split["origin"],
    }


def test_patients_that_were_trained_on_are_not_scored(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt"), "--data.split_fractions=[0.2,0.2,0.6]"]) == 1
    assert "The checkpoint was trained on the patients of" in capsys.readouterr().err
    assert not list(tmp_path.glob("scores*"))


def test_a_resumed_fit_goes_on_where_it_stopped(
    run_folder: Path, phantoms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []
    original = PatchDataset.__getitem__
    monkeypatch.setattr(PatchDataset, "__getitem__", lambda self, draw: (drawn.append(draw), original(self, draw))[1])
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    shutil.copytree(run_folder, tmp_path / "demo" / "version_0")  # the run goes on in its own folder
    last = str(tmp_path / "demo" / "version_0" / "checkpoints" / "last.ckpt")
    options = [*SMALL, "--trainer.max_epochs=3", "--ckpt_path", last]
    assert main([*fit, "--runs", str(tmp_path), *options]) == 0
    assert [epoch for epoch, _ in drawn] == [1] * (len(drawn) // 2) + [2] * (len(drawn) // 2)
    first, second = [[index for e, index in drawn if e == epoch] for epoch in (1, 2)]
    assert len(set(first)) == len(first)  # no slice twice; a rest that fills no batch is left out
    assert len(set(second)) == len(second)
    assert first != second


def test_a_resumed_fit_refuses_other_patients(
    checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    options = [*SMALL, "--trainer.max_epochs=3", "--data.split_seed=5", "--ckpt_path", checkpoint]
    assert main([*fit, "--runs", str(tmp_path), *options]) == 1
    assert "The checkpoint was trained on" in capsys.readouterr().err


def test_a_second_run_gets_a_folder_of_its_own(run_folder: Path, phantoms: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "demo" / "version_0")
    before = tree(tmp_path / "demo" / "version_0")
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    assert main([*fit, "--runs", str(tmp_path), *SMALL, "--trainer.limit_train_batches=1"]) == 0
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["version_0", "version_1"]
    assert tree(tmp_path / "demo" / "version_0") == before


def test_predict_writes_a_submission_that_decodes(checkpoint: str, phantoms: dict[str, Path], tmp_path: Path) -> None:
    scans = phantoms["uw_madison"] / "train"
    assert main(["predict", "--ckpt_path", checkpoint, "--input", str(scans), "--output", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "submission.csv")
    files = sorted(scans.rglob("slice_*.png"))
    assert len(rows) == len(files) * len(ORGANS)
    for row in rows:
        case, number = row["id"].rsplit("_slice_", 1)
        file = next(f for f in files if f.parent.parent.name == case and f.name.startswith(f"slice_{number}_"))
        decode_runs(row["predicted"], raster.read_image_size(file))  # raises where a run leaves the image
    assert any(row["predicted"] for row in rows)


def test_predict_refuses_a_folder_with_something_in_it(
    checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    scans = str(phantoms["uw_madison"])
    assert main(["predict", "--ckpt_path", checkpoint, "--input", scans, "--output", str(tmp_path)]) == 1
    assert "is not empty; nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.trainings
@pytest.mark.parametrize("resampling", ["--model.spacing_mm=null", "--model.spacing_mm=[12,7]"])
def test_a_decathlon_volume_comes_back_on_its_own_grid(
    resampling: str, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    fit = ["fit", "--config", "configs/experiment/hippocampus.yaml", "--data.folds=2"]
    labels = "--model.labels.names=[large_bowel,small_bowel,stomach]"
    root = f"--data.source.root={phantoms['decathlon']}"
    assert main([*fit, root, labels, resampling, "--runs", str(tmp_path), *SMALL]) == 0
    checkpoint = str(tmp_path / "hippocampus" / "version_0" / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint]) == 0
    images = phantoms["decathlon"] / "imagesTr"
    output = tmp_path / "masks"
    assert main(["predict", "--ckpt_path", checkpoint, "--input", str(images), "--output", str(output)]) == 0
    assert sorted(path.name for path in output.glob("*.nii.gz")) == sorted(path.name for path in images.iterdir())
    for path in images.iterdir():
        image, mask = nibabel.load(path), nibabel.load(output / path.name)
        assert mask.shape == image.shape
        assert np.array_equal(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 3}


@pytest.mark.trainings
@pytest.mark.parametrize("resize", ["fit", "none"])
def test_images_of_twenty_sizes_train_test_and_predict(resize: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(24 + 3 * i, 60 - 2 * i) for i in range(20)]
    for i, (height, width) in enumerate(sizes):
        ids = np.zeros((height, width), np.uint8)
        ids[: height // 3], ids[height // 3 : height // 2] = 1, 2
        ids[-4:, -4:] = 3
        raster.write_png(
            tmp_path / "data" / "images" / f"p{i}.png", ids * 60 + rng.integers(20, size=ids.shape, dtype=np.uint8)
        )
        raster.write_png(tmp_path / "data" / "masks" / f"p{i}.png", ids)
    small = [option for option in SMALL if "network" not in option]
    configs = [f"--config=configs/{name}.yaml" for name in ("data/folder", "model/tiny", "trainer/cpu")]
    options = [
        f"--data.source.root={tmp_path / 'data'}",
        "--data.allow_duplicates=true",  # such figures resemble each other
        "--model.labels.names=[top,middle,corner]",
        "--model.labels.task=multiclass",
        "--model.channels=1",
        f"--model.resize={resize}",
        "--model.normalization=ZScore",
        "--model.size_divisor=16",
    ]
    assert main(["fit", *configs, *options, "--runs", str(tmp_path / "runs"), *small, "--model.size_divisor=16"]) == 0
    checkpoint = str(tmp_path / "runs" / "default" / "version_0" / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint]) == 0
    images, output = tmp_path / "data" / "images", tmp_path / "masks"
    assert main(["predict", "--ckpt_path", checkpoint, "--input", str(images), "--output", str(output)]) == 0
    for i, size in enumerate(sizes):
        mask = raster.read_mask(output / f"p{i}.png")
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 1, 2, 3}


def test_the_checkpoint_holds_plain_values_only(checkpoint: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    settings = {"model": content["hyper_parameters"], "data": content["datamodule_hyper_parameters"]}
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings


def test_print_config_is_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.optimizer.init_args.lr=0.01", "--print_config"]
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", "configs/experiment/demo.yaml", *options])
    assert left.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["optimizer"]["init_args"]["lr"] == 0.01
    assert printed["model"]["optimizer"]["init_args"]["weight_decay"] == 0.01


@pytest.mark.processes
@pytest.mark.parametrize(
    ("processes", "why"),
    [(2, "whole cases each"), pytest.param(5, "more than there are cases", marks=pytest.mark.slow)],
)
def test_several_processes_write_the_table_of_one(
    processes: int, why: str, checkpoint: str, run_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    several = ["--trainer.accelerator=cpu", f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "medseg_pl", "validate", f"--ckpt_path={tmp_path / 'best.ckpt'}", *several]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores_val.csv").read_bytes() == (run_folder / "scores_val.csv").read_bytes()
    assert [path.name for path in tmp_path.glob("scores_val*")] == ["scores_val.csv"]


def test_averaged_weights_and_windows(phantoms: dict[str, Path], tmp_path: Path) -> None:
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    options = [
        "--trainer.callbacks+=medseg_pl.training.callbacks.WarmupEMA",
        "--trainer.callbacks.decay=0.5",
        "--model.whole_image_max_pixels=1100",
        "--trainer.check_val_every_n_epoch=2",  # training ends before: it is validated at its end all the same
    ]
    assert main([*fit, "--runs", str(tmp_path), *SMALL, *options]) == 0
    run = tmp_path / "demo" / "version_0"
    logged = [row["val/dice"] for row in rows_of(run / "metrics.csv") if row["val/dice"]]
    summary = json.loads((run / "summary_val.json").read_text())
    # What was scored while training are the averaged weights, and they are what was saved.
    assert float(logged[-1]) == pytest.approx(summary["foreground_mean"]["dice"], abs=1e-6)


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_a_second_logger_beside_the_run_folder(logger: str, phantoms: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip(logger)
    fit = ["fit", "--config", "configs/experiment/demo.yaml", f"--config=configs/logger/{logger}.yaml", *SMALL]
    data = ["--data.source.root", str(phantoms["uw_madison"]), "--runs", str(tmp_path)]
    save_dir = f"--trainer.logger.init_args.save_dir={tmp_path}"
    media = ["--trainer.callbacks+=medseg_pl.training.callbacks.MediaLogger", "--trainer.callbacks.overlays=1"]
    offline = ["--trainer.logger.init_args.offline=true"] if logger == "wandb" else []
    assert main([*fit, *data, save_dir, *offline, *media, "--trainer.limit_train_batches=1"]) == 0
    assert (tmp_path / "demo" / "version_0" / "metrics.csv").is_file()
    written = {"tensorboard": "tensorboard/version_0/events*", "wandb": "wandb/offline-run-*"}[logger]
    assert list(tmp_path.glob(written))
    if logger == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        tags = EventAccumulator(str(tmp_path / "tensorboard" / "version_0")).Reload().Tags()
        assert {"val/overlays/fixed/0", "val/overlays/worst/0"} <= set(tags["images"])
    if logger == "wandb":
        import wandb

        assert list(tmp_path.rglob("media/images/val/overlays/*.png"))

        wandb.finish()
