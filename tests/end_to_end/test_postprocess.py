"""`medseg postprocess`: chosen on validation cases, kept in a copy of the checkpoint, and done from there on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.io.raster import write_png
from tests.end_to_end.conftest import SMALL


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images with a large bright disc, which is annotated, and a small one, which is not."""
    root = tmp_path_factory.mktemp("noisy")
    rows, columns = np.mgrid[:48, :48]
    for number in range(12):
        near, far = 14 + number % 4, 38 - number % 3
        large = (rows - near) ** 2 + (columns - near) ** 2 < 100
        small = (rows - far) ** 2 + (columns - far) ** 2 < 7
        write_png(root / "data" / "images" / f"{number:02}.png", np.where(large | small, 200, 30).astype(np.uint8))
        write_png(root / "data" / "masks" / f"{number:02}.png", large.astype(np.uint8))
    config = ["--config", "configs/data/folder.yaml", "--config", "configs/model/tiny.yaml"]
    labels = ["--model.labels.names=[disc]", "--model.labels.task=binary", "--model.channels=1", "--model.resize=none"]
    network = ["--model.network=tests.end_to_end.plugins.OnePixel", "--model.network.init_args={}", "--plugins=tests"]
    small_run = [option for option in SMALL if "network" not in option and "epochs" not in option]
    steps = ["--model.optimizer.lr=0.3", "--data.folds=2", "--data.allow_duplicates=true", "--trainer.max_epochs=20"]
    where = [f"--data.source.root={root / 'data'}", f"--runs={root / 'runs'}", "--experiment=discs"]
    normalization = ["--model.normalization=medseg_pl.ZScore"]
    assert main(["fit", *config, *labels, *network, *small_run, *steps, *normalization, *where]) == 0
    return root / "runs" / "discs" / "version_0"


def dices(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["dice"]) for row in csv.DictReader(file)]


def test_noise_goes_and_the_gain_is_kept(noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, cleaned = noisy / "checkpoints" / "best.ckpt", tmp_path / "cleaned.ckpt"
    before = best.read_bytes()
    assert main(["postprocess", "--plugins=tests", "--ckpt_path", str(best), "-o", str(cleaned)]) == 0
    said = capsys.readouterr().out
    assert "disc: largest_only 1: Dice 0." in said
    assert "on 6 cases" in said
    assert "; chosen" in said
    assert best.read_bytes() == before

    kept = torch.load(cleaned, weights_only=True)
    assert kept["hyper_parameters"]["postprocess"] == {
        "disc": {"fill_holes": False, "minimum_size": 0.0, "largest_only": True}
    }
    gain = kept["postprocess_gain"]["disc"]
    assert main(["validate", "--plugins=tests", "--ckpt_path", str(best)]) == 0
    assert main(["validate", "--plugins=tests", "--ckpt_path", str(cleaned)]) == 0
    assert np.mean(dices(noisy / "scores_val_2.csv")) == pytest.approx(gain["before"], abs=1e-9)
    assert np.mean(dices(tmp_path / "scores_val.csv")) == pytest.approx(gain["after"], abs=1e-9)
    assert gain["after"] > 0.99 > gain["before"]
    json.dumps(gain)


def test_nothing_is_overwritten(noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.ckpt").write_text("mine")
    best = str(noisy / "checkpoints" / "best.ckpt")
    assert main(["postprocess", "--plugins=tests", "--ckpt_path", best, "-o", str(tmp_path / "there.ckpt")]) == 1
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "there.ckpt").read_text() == "mine"


def test_the_validation_cases_must_be_there(noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("images", "masks"):
        write_png(tmp_path / "elsewhere" / kind / "00.png", np.ones((8, 8), np.uint8))
    best = str(noisy / "checkpoints" / "best.ckpt")
    options = ["-o", str(tmp_path / "new.ckpt"), "--data_root", str(tmp_path / "elsewhere")]
    assert main(["postprocess", "--plugins=tests", "--ckpt_path", best, *options]) == 1
    assert "of the checkpoint's 6 validation cases, or the mask" in capsys.readouterr().err
    assert not (tmp_path / "new.ckpt").exists()
