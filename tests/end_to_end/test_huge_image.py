"""An image that would not fit into memory as a network sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg_pl.__main__ import main
from medseg_pl.io.raster import read_mask, write_png
from tests.end_to_end.conftest import SMALL

SIDE, WINDOW = 20_000, 1024


def memory_of(session: int) -> int:
    """The bytes that the processes of a session hold, what they share counted once."""
    held = 0
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            own = os.getsid(int(directory.name)) == session
            found = re.search(r"^Pss:\s+(\d+) kB", (directory / "smaps_rollup").read_text(), re.MULTILINE)
        except (OSError, ProcessLookupError):
            continue  # it has ended meanwhile
        held += 1024 * int(found[1]) if found and own else 0
    return held


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network that tells bright from dark, pixel by pixel."""
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, : 16 + 4 * number] = 1
        write_png(tmp_path / "data" / "masks" / f"{number}.png", mask)
        write_png(
            tmp_path / "data" / "images" / f"{number}.png", mask * 150 + rng.integers(0, 50, mask.shape, np.uint8)
        )
    config = ["--config", "configs/data/folder.yaml", "--config", "configs/model/tiny.yaml"]
    labels = ["--model.labels.names=[bright]", "--model.labels.task=binary", "--model.channels=1"]
    network = ["--plugins=tests", "--model.network=tests.end_to_end.plugins.OnePixel", "--model.network.init_args={}"]
    options = [
        "--model.normalization=medseg_pl.IntensityWindow",
        "--model.normalization.low=0",
        "--model.normalization.high=255",
        "--model.optimizer.lr=0.3",
        "--model.resize=none",
        "--model.window_overlap=0.25",
    ]
    small = [option for option in SMALL if "network" not in option and "size" not in option and "epochs" not in option]
    where = [f"--data.source.root={tmp_path / 'data'}", f"--runs={tmp_path / 'runs'}", "--experiment=bright"]
    long = [f"--model.input_size=[{WINDOW},{WINDOW}]", "--data.batch_size=1", "--trainer.max_epochs=20"]
    assert main(["fit", *config, *labels, *network, *options, *small, *long, *where]) == 0
    return tmp_path / "runs" / "bright" / "version_0" / "checkpoints" / "best.ckpt"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is told by /proc")
def test_a_huge_image_is_predicted_within_four_gigabytes(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "huge").mkdir()
    bright = np.zeros((SIDE, SIDE), bool)
    bright[3_000:17_500, 123:9_876] = True
    tifffile.imwrite(tmp_path / "huge" / "slide.tif", np.where(bright, 180, 20).astype(np.uint8), tile=(512, 512))
    command = [sys.executable, "-m", "medseg_pl", "predict", "--ckpt_path", str(checkpoint), "--plugins=tests"]
    command += ["--input", str(tmp_path / "huge"), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, start_new_session=True)
    most = 0
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(0.2)
    assert process.returncode == 0
    assert most <= 4 << 30, f"{most / 2**30:.2f} GiB"
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "slide.png") > 0, bright)
