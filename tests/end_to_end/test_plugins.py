"""A source, a loss, a metric and a network of one's own: one file outside the package, one line of configuration."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from tests.end_to_end.conftest import SMALL

OWN = '''
import numpy as np
import torch
from torch import nn

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import Source
from medseg_pl.metrics import CaseMetric


class Squares(Source):
    """Bright squares on dark ground, drawn and not read."""

    def __init__(self, directory: str, count: int = 6) -> None:
        self.directory = directory
        self.count = count

    def cases(self):
        from pathlib import Path

        files = [Path(self.directory, f"{number}.txt") for number in range(self.count)]
        return [Case(f"square{n}", f"square{n}", (file,), (file,)) for n, file in enumerate(files)]

    def read(self, case, labels):
        corner = int(case.images[0].read_text())
        mask = np.zeros((1, 1, 32, 32), np.uint8)
        mask[..., corner : corner + 12, corner : corner + 12] = 1
        return Volume((mask * 100 + 7).astype(np.uint8), mask, Geometry((1, 32, 32)))

    def open_unlabeled(self, directory):
        raise NotImplementedError

    def write(self, directory, case, mask, labels):
        raise NotImplementedError


class SquaredError(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits, target):
        return self.factor * ((logits.sigmoid() - target) ** 2).mean()


class Area(CaseMetric):
    def score(self, pair):
        return {"area": float(pair.prediction.sum())}


class OnePixel(nn.Module):
    def __init__(self, in_channels: int, classes: int, hidden: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, classes, 1)
        )

    def forward(self, image):
        return self.layers(image)
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_plugins.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    data = tmp_path / "squares"
    data.mkdir()
    for number in range(6):
        (data / f"{number}.txt").write_text(str(2 * number))
    return tmp_path


def test_each_enters_by_its_class_path(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--model.network=own_plugins.OnePixel",
        "--model.network.hidden=3",
        "--model.loss=own_plugins.SquaredError",
        "--model.loss.factor=2.0",
        "--model.metrics+=own_plugins.Area",
        "--model.normalization=ZScore",
        "--model.labels.names=[square]",
        "--model.labels.task=binary",
        "--model.optimizer=torch.optim.Adam",
        "--model.optimizer.lr=0.05",
        "--data.source=own_plugins.Squares",
        f"--data.source.directory={own / 'squares'}",
        "--data.folds=3",
        f"--runs={own / 'runs'}",
    ]
    small = [option for option in SMALL if "network" not in option]
    assert (
        main(
            [
                "fit",
                *options,
                *small,
                "--plugins",
                "own_plugins",
                "--trainer.max_epochs=20",
                "--trainer.check_val_every_n_epoch=20",
            ]
        )
        == 0
    )
    with (own / "runs/default/version_0/scores_val.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert float(row["area"]) == int(row["tp"]) + int(row["fp"])
        assert float(row["dice"]) == 1.0  # a bright pixel is a square: one layer can tell
    checkpoint = own / "runs/default/version_0/checkpoints/best.ckpt"
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 2
    assert "add --plugins own_plugins" in capsys.readouterr().err
    assert main(["test", "--ckpt_path", str(checkpoint), "--plugins=own_plugins"]) == 0
