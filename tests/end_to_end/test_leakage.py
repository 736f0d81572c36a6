"""A copy of an image under another patient's name stops a run before it begins, unless it is allowed by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg_pl.__main__ import main
from medseg_pl.data import duplicates
from medseg_pl.data.duplicates import Duplicate
from medseg_pl.io import raster
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

FIT = ["fit", "--config=configs/data/folder.yaml", "--config=configs/model/tiny.yaml"]
OPTIONS = ["--data.source.init_args.group=null", "--model.channels=1", "--model.normalization=ZScore", "--data.folds=2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of texture, one of which comes again, mirrored and compressed, on the other side of the split."""
    root, rng = tmp_path / "data", np.random.default_rng(3)
    for number in range(6):
        coarse = torch.from_numpy(rng.normal(size=(1, 1, 12, 10)))
        smooth = torch.nn.functional.interpolate(coarse, (96, 80), mode="bicubic")[0, 0].numpy()
        pixels = np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8)
        raster.write_png(root / "images" / f"p{number}.png", pixels)
        raster.write_png(root / "masks" / f"p{number}.png", (pixels > 150).astype(np.uint8))
    with Image.open(root / "images" / "p1.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "images" / "p9.jpg", quality=60)
    raster.write_png(root / "masks" / "p9.png", raster.read_mask(root / "masks" / "p1.png")[:, ::-1])
    sides = {"train": ["p0", "p1", "p2", "p3"], "val": ["p4", "p5", "p9"]}
    (tmp_path / "split.json").write_text(json.dumps(sides))
    return root


def fit(folder: Path, *options: str) -> int:
    where = [f"--data.source.root={folder}", f"--data.split_file={folder.parent / 'split.json'}"]
    return main([*FIT, *SMALL, *OPTIONS, *where, "--runs", str(folder.parent / "runs"), *options])


def test_a_copy_on_the_other_side_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder) == 1
    error = capsys.readouterr().err
    assert "1 case shows what a case on another side of the split shows: p9 is p1 (nearly the same pixels" in error
    assert "data.allow_duplicates=true trains all the same, and the run records it." in error
    assert not (folder.parent / "runs").exists()


def test_an_allowed_copy_is_recorded(folder: Path) -> None:
    assert fit(folder, "--data.allow_duplicates=true") == 0
    run = folder.parent / "runs" / "default" / "version_0"
    record = json.loads((run / "splits.json").read_text())
    (copy,) = record["accepted_duplicates"]
    assert (copy["case_a"], copy["case_b"], copy["kind"]) == ("p1", "p9", "near")
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["SegmentationDataModule"]["split"]["accepted_duplicates"] == [copy]
    # The record is a split file, too.
    (folder.parent / "split.json").write_text((run / "splits.json").read_text())
    assert fit(folder, "--data.allow_duplicates=true") == 0


def test_copies_on_one_side_are_nobody_else_s_business(folder: Path) -> None:
    sides = {"train": ["p0", "p1", "p2", "p9"], "val": ["p3", "p4", "p5"]}
    (folder.parent / "split.json").write_text(json.dumps(sides))
    assert fit(folder) == 0
    run = folder.parent / "runs" / "default" / "version_0"
    assert "accepted_duplicates" not in json.loads((run / "splits.json").read_text())


def test_what_only_looks_alike_is_told_and_trained_on(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(folder.parent / "store"))  # another knows what was found before
    similar = Duplicate("p1", "p9", "similar", "perhaps the same picture, agreement 0.80")
    monkeypatch.setattr(duplicates, "find_duplicates", lambda *_: [similar])
    assert fit(folder) == 0
    assert "p9 is p1 (perhaps the same picture, agreement 0.80). Look at them; if they" in caplog.text
    run = folder.parent / "runs" / "default" / "version_0"
    assert "accepted_duplicates" not in json.loads((run / "splits.json").read_text())
