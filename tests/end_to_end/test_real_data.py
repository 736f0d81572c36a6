"""The shipped experiments on real data: briefly by default, to the promised score where `slow` is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.io import raster

pytestmark = pytest.mark.realdata

# In 32 bits: a processor without bf16 imitates it, eight times slower.
BRIEF = (
    "--trainer.precision=32-true",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=4",
)


def trained(experiment: str, root: Path, runs: Path, *options: str) -> Path:
    """The run folder of a fit."""
    config = f"configs/experiment/{experiment}.yaml"
    fit = ["fit", "--config", config, "--data.source.root", str(root), "--runs", str(runs)]
    assert main([*fit, "--trainer.accelerator=cpu", *options]) == 0
    return runs / experiment / "version_0"


def predict(run: Path, images: Path, output: Path) -> int:
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    return main(["predict", "--ckpt_path", checkpoint, "--input", str(images), "--output", str(output)])


def assert_same_grid(mask: Path, image: Path) -> None:
    written, given = nibabel.load(mask), nibabel.load(image)
    assert written.shape == given.shape
    assert np.array_equal(written.affine, given.affine)
    assert written.get_data_dtype() == np.uint8


def copies(paths: list[Path], folder: Path) -> Path:
    """A folder with these files alone."""
    folder.mkdir()
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def hippocampus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a brief training."""
    return trained("hippocampus", real_data / "msd_hippocampus", tmp_path_factory.mktemp("hippocampus"), *BRIEF)


def test_hippocampus_trains_tests_and_predicts(hippocampus: Path, real_data: Path, tmp_path: Path) -> None:
    assert main(["test", "--ckpt_path", str(hippocampus / "checkpoints" / "best.ckpt")]) == 0
    # There are no test cases, so the held-out fold is scored again: the same numbers as at the end of training.
    assert (hippocampus / "scores_test.csv").read_bytes() == (hippocampus / "scores_val.csv").read_bytes()
    images = copies(sorted((real_data / "msd_hippocampus" / "imagesTr").iterdir())[:4], tmp_path / "images")
    assert predict(hippocampus, images, tmp_path / "masks") == 0
    for path in images.iterdir():
        assert_same_grid(tmp_path / "masks" / path.name, path)


@pytest.mark.parametrize("image", ["spine_nifti/t2.nii.gz", "spine_nifti/t2s.nii.gz", "spine_nifti/mtr.nii.gz"])
def test_oblique_volumes_come_back_on_their_own_grid(
    hippocampus: Path, real_data: Path, tmp_path: Path, image: str
) -> None:
    path = real_data / image
    # A spine is no hippocampus: it is marked, and predicted all the same.
    assert predict(hippocampus, copies([path], tmp_path / "images"), tmp_path / "masks") == 1
    assert ",marked," in (tmp_path / "masks" / "predictions.csv").read_text()
    assert_same_grid(tmp_path / "masks" / path.name, path)


def test_chase_db1_trains_tests_and_predicts(real_data: Path, tmp_path: Path) -> None:
    run = trained("chase_db1", real_data / "chase_db1", tmp_path, *BRIEF)
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0
    with (run / "scores_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == {"11", "12", "13", "14"}
    assert len(rows) == 8
    images = copies(sorted((real_data / "chase_db1" / "images").iterdir())[:4], tmp_path / "images")
    assert predict(run, images, tmp_path / "masks") == 0
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == 4
    assert raster.read_mask(masks[0]).shape == (960, 999)


@pytest.mark.slow
def test_hippocampus_reaches_the_promised_dice(real_data: Path, tmp_path: Path) -> None:
    run = trained("hippocampus", real_data / "msd_hippocampus", tmp_path)
    summary = json.loads((run / "summary_val.json").read_text())
    assert summary["foreground_mean"]["dice"] >= 0.86
