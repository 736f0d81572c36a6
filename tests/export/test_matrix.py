"""Every kind of network and task, exported and run where there is no torch: the masks are those of medseg."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.export import runner
from medseg_pl.export.exporter import REQUIREMENTS
from medseg_pl.export.image_files import read_picture
from medseg_pl.inference.predictor import Predictor
from tests.export.checkpoints import write_checkpoint
from tests.sample_files import save_raster

pytestmark = pytest.mark.slow

NETWORKS = {
    "Unet": "resnet18",
    "UnetPlusPlus": "resnet18",
    "FPN": "resnet18",
    "DeepLabV3Plus": "resnet18",
    "Segformer": "mit_b0",
}
NAMES = {"binary": ("a",), "multiclass": ("a", "b", "c"), "multilabel": ("a", "b", "c")}
SIZES = [(97, 131), (33, 65), (211, 149), (129, 257)]
SETTINGS: dict[str, dict[str, Any]] = {
    "binary": {"resize": "fit", "input_size": [128, 96]},
    "multiclass": {
        "context_slices": 1,
        "input_size": [64, 64],
        "whole_image_max_pixels": 20_000,
        "window_overlap": 0.5,
    },
    "multilabel": {"input_size": [96, 64], "tta": "horizontal", "postprocess": {"b": {"largest_only": True}}},
}


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has what the runner needs, and no torch."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", folder / "requirements.txt"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    return python


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Blobs under noise, in 8 or 16 bits."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((size[0] // 16 + 2, size[1] // 16 + 2))
    smooth = np.kron(coarse, np.ones((16, 16)))[: size[0], : size[1]]
    pixels = 0.8 * smooth + 0.2 * rng.random(size)
    return (255 * pixels).astype(np.uint8) if seed % 2 else (3000 * pixels).astype(np.uint16)


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("network", NETWORKS)
def test_masks_agree(network: str, task: str, clean_python: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "a.ckpt",
        network=f"segmentation_models_pytorch.{network}",
        arguments={"encoder_name": NETWORKS[network], "encoder_weights": None},
        names=NAMES[task],
        task=task,
        size_divisor=32,
        **SETTINGS[task],
    )
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out")]) == 0
    assert runner.read_specification(tmp_path / "out")["any_size"]
    paths = [save_raster(tmp_path / f"{i}.png", picture(size, i)) for i, size in enumerate(SIZES)]
    script = [clean_python, str(tmp_path / "out" / "run.py")]
    subprocess.run([*script, "--self-test"], check=True)
    subprocess.run([*script, *map(str, paths), "-o", str(tmp_path / "masks")], check=True)

    predictor = Predictor.from_checkpoint(checkpoint, device="cpu")
    agreed, values = [], set()
    for path in paths:
        expected = predictor.predict(path, probabilities=False).mask[:, 0]
        folders = NAMES[task] if task == "multilabel" else ("",)
        found = np.stack([read_picture(tmp_path / "masks" / name / path.name)[0] for name in folders])
        agreed.append((found == expected * (255 if task == "multilabel" else 1)).ravel())
        values |= set(np.unique(expected).tolist())
    share = float(np.concatenate(agreed).mean())
    sys.stderr.write(f"{network} {task}: {100 * share:.4f} % of {sum(map(len, agreed))} pixels agree\n")
    assert share >= 0.9999
    assert values == set(range(2 if task != "multiclass" else 4))
