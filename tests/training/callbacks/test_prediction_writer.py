"""What a prediction says of its inputs when it ends, well or not."""

from __future__ import annotations

import csv
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer

from medseg_pl.core.errors import OutputExistsError
from medseg_pl.core.image_findings import ImageFinding
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.data.sources import FolderSource
from medseg_pl.io.folders import FolderLocks, OutputFolder
from medseg_pl.training.callbacks import Inputs, PredictionWriter, prediction_writer
from medseg_pl.training.prediction import CaseResult
from tests.sample_files import noise, save_raster

LABELS = LabelMap(["lesion"], "binary")
MODULE = LightningModule()


def trainer(limit: float = 1.0, rank: int = 0) -> Trainer:
    trainer = MagicMock(spec=Trainer)
    trainer.is_global_zero, trainer.limit_predict_batches = rank == 0, limit
    return trainer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[PredictionWriter]:
    """Has begun to predict a, b and c, with the table of an earlier run in its folder."""
    for name in "abc":
        save_raster(tmp_path / "in" / f"{name}.png", noise((9, 8)))
    source = FolderSource("elsewhere").open_unlabeled(tmp_path / "in")
    inputs = Inputs(tmp_path / "in", source.cases(), [], frozenset())
    with FolderLocks() as locks:
        OutputFolder(tmp_path / "out", {}, locks).begin()
    (tmp_path / "out/predictions.csv").write_text("of an earlier run")
    with FolderLocks() as locks:
        writer = PredictionWriter(OutputFolder(tmp_path / "out", {}, locks), source, inputs, LABELS)
        writer.on_predict_start(trainer(), MODULE)
        yield writer


def predict(writer: PredictionWriter, number: int, fault: str = "", findings: tuple[ImageFinding, ...] = ()) -> None:
    case = writer.inputs.cases[number]
    volume = writer.source.read(case, LABELS)
    mask = np.zeros((1, *volume.geometry.shape), np.uint8)
    prediction = None if fault else Prediction(case.case_id, case.group, volume.geometry, mask, findings=findings)
    writer.on_predict_batch_end(trainer(), MODULE, [CaseResult(case, volume, prediction, fault)])


def statuses(writer: PredictionWriter) -> dict[str, str]:
    with (writer.output.directory / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["case_id"]: row["status"] for row in csv.DictReader(file)}


def test_a_run_that_is_stopped_lists_its_inputs(writer: PredictionWriter) -> None:
    predict(writer, 0)
    predict(writer, 1, "Damaged.")
    writer.on_exception(trainer(), MODULE, KeyboardInterrupt())
    assert statuses(writer) == {"a": "written", "b": "failed", "c": "not reached"}
    assert [each.case_id for each in writer.outcomes if each.is_fault] == ["b", "c"]


def test_masks_of_other_ranks_are_known_by_their_marks(writer: PredictionWriter) -> None:
    case = writer.inputs.cases[2]
    with writer.output.case(case.case_id, case.images):
        pass
    writer.on_exception(trainer(rank=1), MODULE, KeyboardInterrupt())
    assert not (writer.output.directory / "predictions.csv").exists()  # other ranks write none
    writer.on_exception(trainer(), MODULE, KeyboardInterrupt())
    assert statuses(writer) == {"a": "not reached", "b": "not reached", "c": "written"}


def test_a_full_disk_leaves_no_table_of_an_earlier_run(
    writer: PredictionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prediction_writer, "write_outcomes", fail)
    writer.on_exception(trainer(), MODULE, OSError(errno.ENOSPC, "No space left on device"))
    assert not (writer.output.directory / "predictions.csv").exists()


def test_the_folder_of_another_run_is_left_alone(writer: PredictionWriter, tmp_path: Path) -> None:
    (tmp_path / "out/predictions.csv").write_text("of the other run")
    with FolderLocks() as locks, pytest.raises(OutputExistsError):
        second = PredictionWriter(
            OutputFolder(tmp_path / "out", {"model": "b"}, locks), writer.source, writer.inputs, LABELS
        )
        second.on_predict_start(trainer(), MODULE)
    second.on_exception(trainer(), MODULE, OutputExistsError())
    assert (tmp_path / "out/predictions.csv").read_text() == "of the other run"


@pytest.mark.parametrize(("limit", "status"), [(1, "not asked for"), (0.5, "not asked for"), (1.0, "not reached")])
def test_what_was_not_asked_for_is_no_fault(
    writer: PredictionWriter, monkeypatch: pytest.MonkeyPatch, limit: float, status: str
) -> None:
    predict(writer, 0)
    monkeypatch.setattr(writer.source, "finish", lambda directory: None)
    writer.on_predict_end(trainer(limit), MODULE)
    assert statuses(writer) == {"a": "written", "b": status, "c": status}
    assert any(each.is_fault for each in writer.outcomes) == (status == "not reached")


def test_a_repeated_prediction_changes_no_row(
    writer: PredictionWriter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer.source, "finish", lambda directory: None)
    finding = ImageFinding("F101", "warning", "The image is dark.")
    for number, findings in enumerate(((), (finding,), ())):
        predict(writer, number, findings=findings)
    writer.on_predict_end(trainer(), MODULE)
    table = (writer.output.directory / "predictions.csv").read_text()
    assert "b.png,b,marked,F101 The image is dark." in table
    root, cases, left_out, *_ = writer.inputs
    again = Inputs(root, cases, left_out, frozenset("abc"))
    second = PredictionWriter(writer.output, writer.source, again, LABELS)
    second.on_predict_start(trainer(), MODULE)
    capsys.readouterr()
    second.on_predict_end(trainer(), MODULE)
    assert (writer.output.directory / "predictions.csv").read_text() == table
    assert capsys.readouterr().out.endswith("; 1 marked; 3 finished before\n")
    assert [outcome.before for outcome in second.outcomes] == [True] * 3


def test_small_bright_lesions_keep_their_shades() -> None:
    """Both voxels lie above 99.5 % of the image."""
    image = np.full((1, 1, 50, 50), 20, np.int16)
    image[0, 0, 10, 10:12] = 100, 180
    planes = image > 50
    rgb = prediction_writer.rgb_of(image, compute_channel_statistics(image), planes, depth=0)
    assert rgb[10, 10:12, 0].tolist() == [127, 255]
