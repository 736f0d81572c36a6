"""The script on the page runs as it stands there, and its checkpoint is one like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from tests.docs.commands import blocks
from tests.sample_files import save_raster
from tests.timeouts import HANG_S

PAGE = Path("docs/script.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the script was run."""
    folder = tmp_path_factory.mktemp("script")
    rows, columns = np.mgrid[:64, :64]
    rng = np.random.default_rng(0)
    for number in range(10):
        row, column = rng.integers(16, 48, 2)
        mask = ((rows - row) ** 2 + (columns - column) ** 2 < 81).astype(np.uint8)
        for kind, pixels in (("images", 60 + 100 * mask + rng.integers(0, 9, mask.shape)), ("masks", mask)):
            path = folder / "data" / "discs" / kind / f"p{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_raster(path, pixels.astype(np.uint8))
    ((_, script),) = blocks(PAGE, "python")
    # As short as the page says, its imports and blank lines left aside.
    assert len([line for line in script.splitlines() if line and not line.startswith(("from ", "import "))]) <= 25
    (folder / "train.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.processes
class TestScript:
    def test_it_exports(self, folder: Path) -> None:
        assert (folder / "exported" / "model.onnx").is_file()

    def test_its_checkpoint_is_plain_data_of_allowed_classes(self, folder: Path) -> None:
        (path,) = folder.glob("lightning_logs/*/checkpoints/best.ckpt")
        settings = torch.load(path, weights_only=True)["hyper_parameters"]
        assert settings["network"]["class_path"] == "segmentation_models_pytorch.Unet"
        assert settings["loss"] == {"class_path": "medseg_pl.DiceCELoss", "init_args": {}}

    def test_the_commands_take_its_checkpoint(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        (path,) = folder.glob("lightning_logs/*/checkpoints/best.ckpt")
        assert main(["test", "--ckpt_path", str(path)]) == 0
        images = ["--input", "data/discs/images", "--output", str(tmp_path / "masks")]
        assert main(["predict", "--ckpt_path", str(path), *images]) == 0
        assert len(list((tmp_path / "masks").glob("*.png"))) == 10

    def test_lightning_loads_its_checkpoint(self, folder: Path) -> None:
        (path,) = folder.glob("lightning_logs/*/checkpoints/best.ckpt")
        module = SegmentationModule.load_from_checkpoint(path)
        data = SegmentationDataModule.load_from_checkpoint(path)
        assert (data.labels, data.channels, data.resize.size) == (module.labels, module.model.channels, (64, 64))
