"""Metrics that a user adds with a line: their columns, and what they ask of the network's probabilities."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import EvaluationBatch, Prediction, ResizeMode, SliceReference
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.inferer import Inferer
from medseg_pl.metrics import CalibrationMetric
from medseg_pl.metrics.summary import COUNTS, SCORES, VOLUMES
from medseg_pl.models.normalization import MeanStd
from medseg_pl.models.segmentation_model import SegmentationModel
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

ORGANS = ["large_bowel", "small_bowel", "stomach"]
ADDED = ["brier", "ece", "entropy", "uw_madison"]
SETTINGS = {
    "model": {
        "metrics": [
            {"class_path": "medseg_pl.CalibrationMetric", "init_args": {"bins": 10}},
            {"class_path": "medseg_pl.UWMadisonScore"},
        ]
    }
}
WATCH = '''
from lightning.pytorch import Callback


class Watch(Callback):
    """Notes, for each whole case, what runs and whether probabilities were kept."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._note(trainer, outputs["cases"])

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._note(trainer, outputs["cases"])

    def _note(self, trainer, cases) -> None:
        with open(self.file, "a") as file:
            for case in cases:
                shape = None if case.probabilities is None else case.probabilities.shape[1:] == case.geometry.shape
                file.write(f"{trainer.state.fn.value} {shape}\\n")
'''


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that add the callback above, which writes `noted.txt`."""
    (tmp_path / "own_watch.py").write_text(WATCH)
    monkeypatch.syspath_prepend(tmp_path)
    callback = ["--trainer.callbacks+=own_watch.Watch", f"--trainer.callbacks.file={tmp_path / 'noted.txt'}"]
    return [*callback, "--plugins=own_watch"]


def noted(folder: Path) -> set[str]:
    """What was noted since the last call."""
    lines = set((folder / "noted.txt").read_text().splitlines())
    (folder / "noted.txt").unlink()
    return lines


def test_columns_come_with_a_line_and_probabilities_only_when_scored(
    phantoms: dict[str, Path], tmp_path: Path, watch: list[str]
) -> None:
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(SETTINGS))
    data = ["--data.source.root", str(phantoms["uw_madison"]), f"--runs={tmp_path / 'runs'}"]
    configs = ["--config=configs/experiment/demo.yaml", f"--config={tmp_path / 'metrics.yaml'}"]
    assert main(["fit", *configs, *data, *SMALL, *watch]) == 0
    assert noted(tmp_path) == {"fit None", "validate True"}
    run = tmp_path / "runs/demo/version_0"
    logged = rows_of(run / "metrics.csv")
    assert not any(column.endswith(tuple(ADDED)) for column in logged[0])

    best = ["--ckpt_path", str(run / "checkpoints/best.ckpt")]
    assert main(["test", *best, *watch]) == 0  # the checkpoint knows the metrics
    assert noted(tmp_path) == {"test True"}
    for stage in ("val", "test"):
        rows = rows_of(run / f"scores_{stage}.csv")
        standard = [*COUNTS, *SCORES, *VOLUMES, "status", "unit"]
        columns = [name for name in rows[0] if name in (*standard, *ADDED)]
        assert columns == [*standard, *ADDED]
        check_scores(rows)
        check_summary(json.loads((run / f"summary_{stage}.json").read_text()), rows)

    assert main(["test", *best, *watch, "--model.metrics=[]"]) == 0
    assert noted(tmp_path) == {"test None"}
    without, with_them = (rows_of(run / f"scores_test{number}.csv") for number in ("_2", ""))
    assert without == [{name: value for name, value in row.items() if name not in ADDED} for row in with_them]


def check_scores(rows: list[dict[str, str]]) -> None:
    """What follows from the status of a row."""
    assert {row["label"] for row in rows} == set(ORGANS)
    for row in rows:
        undefined = row["status"] == "undefined"
        assert all((row[name] == "") == undefined for name in ("brier", "ece", "uw_madison"))
        assert (row["entropy"] == "") == (int(row["tp"]) + int(row["fp"]) == 0)
        if not undefined:
            assert 0 < float(row["ece"]) ** 2 <= float(row["brier"]) < 1
            assert (float(row["uw_madison"]) > 0) == (row["status"] == "ok")
        if row["entropy"]:
            assert 0 < float(row["entropy"]) <= math.log(2)


def check_summary(summary: dict[str, Any], rows: list[dict[str, str]]) -> None:
    """The means are those of the rows."""
    for name in ADDED:
        means = []
        for organ in ORGANS:
            values = [float(row[name]) for row in rows if row["label"] == organ and row[name]]
            assert summary["labels"][organ][name]["n"] == len(values)
            if values:
                means.append(np.mean(values))
                assert summary["labels"][organ][name]["mean"] == pytest.approx(means[-1])
        assert summary["foreground_mean"][name] == (pytest.approx(np.mean(means)) if means else None)
    assert summary["foreground_mean"]["brier"] is not None


def test_a_setting_that_cannot_work_is_a_sentence(
    phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--config=configs/experiment/demo.yaml", f"--data.source.root={phantoms['uw_madison']}"]
    metric = ["--model.metrics+=medseg_pl.CalibrationMetric", "--model.metrics.bins=0"]
    assert main([*fit, *SMALL, *metric, f"--runs={tmp_path / 'runs'}"]) == 2
    assert "CalibrationMetric needs bins of at least 1; got 0." in capsys.readouterr().err


LABELS = LabelMap(["liver", "spleen"], "multiclass")
NATIVE_SIZE = (50, 74)


def assembled(resize: ResizeMode, max_pixels: int) -> Prediction:
    """Two slices through a network of one layer, whole or in windows, back on the native grid."""
    torch.manual_seed(0)
    model = SegmentationModel(
        torch.nn.Conv2d(1, LABELS.classes, 5, padding=2),
        LABELS,
        MeanStd([0.0], [0.25], 1.0),
        resize=resize,
        input_size=(40, 40) if resize == "fit" else (16, 16),
        size_divisor=8,
        whole_image_max_pixels=max_pixels,
    )
    size = model.input_size if resize == "fit" else NATIVE_SIZE
    image = torch.randn(2, 1, *size)
    geometry = Geometry((2, *NATIVE_SIZE))
    reference = np.random.default_rng(0).integers(0, 3, (2, 1, *NATIVE_SIZE)).astype(np.uint8)
    slices = [SliceReference("case", "patient", z, geometry) for z in range(2)]
    with torch.no_grad():
        blocks = Inferer([model]).infer_batch(EvaluationBatch(image, torch.zeros(2, 1, 4), slices, list(reference)))
        (case,) = CaseAssembler(LABELS, keep_probabilities=True).add(blocks, slices, list(reference))
    return case


@pytest.mark.parametrize("max_pixels", [1 << 20, 0], ids=["whole", "windows"])
@pytest.mark.parametrize("resize", ["none", "fit"])
def test_probabilities_on_the_native_grid_are_a_distribution(resize: ResizeMode, max_pixels: int) -> None:
    case = assembled(resize, max_pixels)
    assert case.probabilities is not None
    assert case.probabilities.shape == (3, 2, *NATIVE_SIZE)
    np.testing.assert_allclose(case.probabilities.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(case.probabilities.argmax(axis=0), case.mask[0])
    metric = CalibrationMetric(LABELS)
    metric.update(case)
    for index, score in enumerate(metric.table(), start=1):
        p, r, chosen = case.probabilities[index], case.reference == index, case.mask[0] == index
        assert score.values["brier"] == pytest.approx(float(np.mean((p - r[0].astype(np.float64)) ** 2)), rel=1e-6)
        surprise = -(case.probabilities[:, chosen] * np.log(case.probabilities[:, chosen])).sum(axis=0).mean()
        assert 0 < score.values["entropy"] == pytest.approx(float(surprise), rel=1e-5)
