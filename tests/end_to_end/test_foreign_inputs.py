"""Images unlike the training images are marked, refused or ignored, by `predict` and `Predictor` alike."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl import Predictor
from medseg_pl.__main__ import main
from medseg_pl.core.errors import ForeignImageError
from medseg_pl.core.training_profile import TrainingProfile
from medseg_pl.io.raster import read_image, write_png
from medseg_pl.models.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def inputs(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of the phantom; the second one is inverted."""
    root = tmp_path_factory.mktemp("foreign") / "images"
    for case in sorted((phantoms["uw_madison"] / "train").glob("*/*"))[:2]:
        shutil.copytree(case, root / case.parent.name / case.name)
    invert(sorted(root.glob("*/*"))[1])
    return root


def invert(scan: Path) -> None:
    """Invert the slices of a scan."""
    for path in scan.rglob("*.png"):
        pixels = read_image(path)[0]
        path.unlink()
        write_png(path, (pixels.max() - pixels).astype(np.uint16))


def run(checkpoint: str, inputs: Path, output: Path, *options: str) -> int:
    predict = ["predict", "--ckpt_path", checkpoint, "--input", str(inputs), "--output", str(output)]
    return main([*predict, "--trainer.accelerator=cpu", "--data.num_workers=0", *options])


def read_table(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "predictions.csv").read_text(encoding="utf-8").splitlines()))


def test_a_foreign_image_is_marked_and_stays_so(
    checkpoint: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, inputs, tmp_path / "out") == 1
    first, second = read_table(tmp_path / "out")
    assert first["status"] == "written"
    assert second["status"] == "marked"
    assert "F105" in second["reason"]
    assert second["input"] in capsys.readouterr().err
    # A repeated command predicts nothing, and still says it.
    assert run(checkpoint, inputs, tmp_path / "out") == 1
    assert read_table(tmp_path / "out") == [first, second]
    printed = capsys.readouterr()
    said, trained = printed.out.splitlines()
    assert said == f"0 new cases written to {tmp_path / 'out'}; 1 marked; 2 finished before"
    assert trained == "1 of 2 cases has the name of a training case: its score says nothing of new images."
    assert sorted(row["trained"] for row in (first, second)) == ["", "yes"]
    assert second["input"] in printed.err and "F105" in printed.err


def test_refused_and_ignored_images(checkpoint: str, inputs: Path, tmp_path: Path) -> None:
    assert run(checkpoint, inputs, tmp_path / "refused", "--on_foreign=refuse") == 1
    assert [row["status"] for row in read_table(tmp_path / "refused")] == ["written", "failed"]
    assert run(checkpoint, inputs, tmp_path / "ignored", "--on_foreign=ignore") == 0
    assert [row["status"] for row in read_table(tmp_path / "ignored")] == ["written", "written"]


def test_python_finds_the_same(checkpoint: str, phantoms: dict[str, Path]) -> None:
    case = sorted((phantoms["uw_madison"] / "train").glob("*/*"))[1]
    image = np.stack([read_image(path)[0] for path in sorted(case.rglob("*.png"))])
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu")
    assert "F105" not in {finding.code for finding in predictor.predict(image).findings}
    assert "F105" in {finding.code for finding in predictor.predict(image.max() - image).findings}
    with pytest.raises(ForeignImageError, match="F105"):
        Predictor.from_checkpoint(checkpoint, device="cpu", on_foreign="refuse").predict(image.max() - image)


def test_a_review_lists_marked_and_refused_images(
    checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(phantoms["uw_madison"], tmp_path / "moved")
    groups = read_checkpoint(checkpoint).data["groups"]
    untrained = [scan for scan in sorted((moved / "train").glob("*/*")) if scan.parent.name not in groups]
    invert(untrained[0])
    review = ["review", "--ckpt_path", checkpoint, "--data_root", str(moved), "--device=cpu"]
    assert main([*review, "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"1 of {len(untrained)} cases" in error
    assert untrained[0].name in error and "F105" in error
    assert len((tmp_path / "out" / "review.csv").read_text().splitlines()) == 1 + len(untrained)
    assert main([*review, "-o", str(tmp_path / "refused"), "--on_foreign=refuse"]) == 1
    assert "1 case could not be reviewed" in capsys.readouterr().err
    assert len((tmp_path / "refused" / "review.csv").read_text().splitlines()) == len(untrained)
    assert main([*review, "-o", str(tmp_path / "ignored"), "--on_foreign=ignore"]) == 0


def test_the_checkpoint_holds_ranges_and_no_case(checkpoint: str) -> None:
    plain = read_checkpoint(checkpoint).profile
    assert plain is not None
    assert TrainingProfile.from_dict(plain).as_dict() == plain
    assert "case1" not in str(plain)


def test_an_old_checkpoint_is_compared_with_nothing(
    checkpoint: str, inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = torch.load(checkpoint, weights_only=True)
    del stored["training_profile"]
    old = tmp_path / "old.ckpt"
    torch.save(stored, old)
    assert run(str(old), inputs, tmp_path / "out") == 0
    assert "does not record what its training images were like" in caplog.text
