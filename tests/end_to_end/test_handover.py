"""Settings of the prediction that travel with the weights: flips that are averaged, and masks that are cleaned up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medseg_pl.__main__ import main
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.inference.components import keep_largest_component
from medseg_pl.io.scores import read_rows
from tests.end_to_end.conftest import SMALL

ORGANS = ["large_bowel", "small_bowel", "stomach"]


def scored(checkpoint: str, folder: Path, *options: str) -> list[dict[str, str]]:
    """The table that `medseg test` writes beside a copy of the checkpoint."""
    folder.mkdir()
    shutil.copy(checkpoint, folder / "best.ckpt")
    assert main(["test", "--ckpt_path", str(folder / "best.ckpt"), *options]) == 0
    return read_rows(folder / "scores_test.csv")


def test_flips_change_the_scores_and_nothing_else(checkpoint: str, tmp_path: Path) -> None:
    plain = scored(checkpoint, tmp_path / "plain")
    flipped = scored(checkpoint, tmp_path / "flips", "--model.tta=flips")
    assert [(row["case_id"], row["label"]) for row in plain] == [(row["case_id"], row["label"]) for row in flipped]
    for before, after in zip(plain, flipped, strict=True):
        assert before["volume_reference_ml"] == after["volume_reference_ml"]
    assert [row["tp"] for row in plain] != [row["tp"] for row in flipped]


def predicted(checkpoint: str, phantom: Path, output: Path, *options: str) -> dict[str, NDArray[np.uint8]]:
    """The masks that `medseg predict` writes, read as if they were references."""
    images = phantom / "train"
    predict = ["predict", "--ckpt_path", checkpoint, "--input", str(images), "--output", str(output), *options]
    assert main(predict) == 0
    (output / "train").symlink_to(images)
    submission = (output / "submission.csv").read_text()
    (output / "train.csv").write_text(submission.replace("predicted", "segmentation", 1))
    source = UWMadisonSource(str(output))
    masks = {case.case_id: source.read(case, LabelMap(ORGANS, "multilabel")).mask for case in source.cases()}
    return {name: mask for name, mask in masks.items() if mask is not None}


@pytest.mark.trainings
def test_cleaning_is_kept_in_the_checkpoint_and_done_by_predict(phantoms: dict[str, Path], tmp_path: Path) -> None:
    data = f"--data.source.root={phantoms['uw_madison']}"
    fit = ["fit", "--config", "configs/experiment/demo.yaml", data, "--runs", str(tmp_path / "runs"), *SMALL]
    assert main([*fit, "--model.postprocess", "{stomach: {largest_only: true}}", "--model.tta", "horizontal"]) == 0
    best = tmp_path / "runs" / "demo" / "version_0" / "checkpoints" / "best.ckpt"
    kept = torch.load(best, weights_only=True)["hyper_parameters"]
    assert kept["tta"] == "horizontal"
    assert kept["postprocess"]["stomach"]["largest_only"] is True

    raw = predicted(str(best), phantoms["uw_madison"], tmp_path / "raw", "--model.postprocess=null")
    cleaned = predicted(str(best), phantoms["uw_madison"], tmp_path / "cleaned")
    assert any((raw[name] != cleaned[name]).any() for name in raw)  # otherwise nothing is shown
    for name in raw:
        expected = np.stack([*raw[name][:2], keep_largest_component(raw[name][2] == 1)])
        np.testing.assert_array_equal(cleaned[name], expected)


def test_wrong_settings_are_answered(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", checkpoint, "--model.postprocess", "{liver: {largest_only: true}}"]) == 2
    assert "names the label 'liver'" in capsys.readouterr().err
    assert main(["test", "--ckpt_path", checkpoint, "--model.tta=sideways"]) == 2
    assert "sideways" in capsys.readouterr().err
