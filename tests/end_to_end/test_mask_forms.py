"""Color masks and volumes cut across another axis, from training to the prediction of a checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medseg_pl.__main__ import main
from medseg_pl.inference.predictor import Predictor
from tests.end_to_end.conftest import SMALL
from tests.sample_files import noise, save_raster, save_volume

pytestmark = pytest.mark.trainings

COLORS = np.array([(0, 0, 0), (255, 0, 0), (255, 255, 0)], np.uint8)
LABELS = {"names": ["large_bowel", "small_bowel"], "task": "multiclass"}


def fit(folder: Path, labels: dict[str, Any], channels: int, **source: Any) -> Path:
    """The best checkpoint of a short run on a folder."""
    settings = {
        "model": {"labels": labels, "channels": channels, "context_slices": 0},
        "data": {"source": {"class_path": "FolderSource", "init_args": {"root": str(folder), **source}}},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(settings))
    configs = ["--config", "configs/experiment/demo.yaml", "--data.source=FolderSource"]
    assert main(["fit", *configs, "--config", str(folder / "own.yaml"), "--runs", str(folder / "runs"), *SMALL]) == 0
    return folder / "runs/demo/version_0/checkpoints/best.ckpt"


def predict(checkpoint: Path, images: Path, output: Path) -> None:
    assert main(["predict", "--ckpt_path", str(checkpoint), "--input", str(images), "--output", str(output)]) == 0


def test_a_checkpoint_knows_the_colors(tmp_path: Path) -> None:
    for seed in range(6):
        indices = noise((40, 36), seed) % 3
        save_raster(tmp_path / "images" / f"p{seed}.png", noise((40, 36, 3), seed))
        save_raster(tmp_path / "masks" / f"p{seed}.png", COLORS[indices])
    colors = {"large_bowel": [255, 0, 0], "small_bowel": [255, 255, 0]}
    checkpoint = fit(tmp_path, {**LABELS, "colors": colors, "tolerance": 3}, channels=3)
    kept = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["labels"]
    assert {name: list(color) for name, color in kept["colors"].items()} == colors
    assert kept["tolerance"] == 3
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 0
    predict(checkpoint, tmp_path / "images", tmp_path / "out")
    found = set()
    for seed in range(6):
        with Image.open(tmp_path / "out" / f"p{seed}.png") as written:
            assert (written.mode, written.size) == ("RGB", (36, 40))
            found |= {tuple(color) for color in np.asarray(written).reshape(-1, 3).tolist()}
    assert found <= {tuple(color) for color in COLORS.tolist()}
    assert len(found) > 1


def test_predictions_of_volumes_cut_anew_lie_on_the_grid_of_the_file(tmp_path: Path) -> None:
    for seed in range(5):
        save_volume(tmp_path / "images" / f"p{seed}.nii.gz", noise((4, 40, 36), seed, np.int16), (7.5, 0.5, 0.5))
        mask = (noise((4, 40, 36), seed) % 3).astype(np.uint8)
        save_volume(tmp_path / "masks" / f"p{seed}.nii.gz", mask, (7.5, 0.5, 0.5))
    checkpoint = fit(tmp_path, LABELS, channels=1, slicing="sagittal")
    predict(checkpoint, tmp_path / "images", tmp_path / "out")
    for seed in range(5):
        written, image = (nibabel.load(tmp_path / part / f"p{seed}.nii.gz") for part in ("out", "images"))
        assert written.shape == image.shape == (4, 40, 36)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(written.affine, image.affine)  # type: ignore[attr-defined]
    found = Predictor.from_checkpoint(checkpoint, device="cpu").predict(tmp_path / "images/p4.nii.gz")
    np.testing.assert_array_equal(found.mask[0], np.asanyarray(written.dataobj).T)  # type: ignore[attr-defined]
