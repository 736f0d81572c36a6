"""The log of a run, and the folder that it is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.core.errors import UnwritableFileError
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import read_metrics
from medseg_pl.training.csv_logger import MetricsFile, RunLogger


def test_two_runs_that_begin_at_once_get_a_folder_each(tmp_path: Path) -> None:
    with FolderLocks() as locks:
        logs = [RunLogger(tmp_path, "demo", locks) for _ in range(2)]
        assert len({log.log_dir for log in logs}) == 1, "both have chosen before one of them makes the folder"
        assert [log.experiment.path.parent.name for log in logs] == ["version_0", "version_1"]
        assert [Path(log.log_dir).name for log in logs] == ["version_0", "version_1"]
        again = RunLogger(tmp_path, "demo", locks, version="version_0")
        assert again.experiment.path.parent.name == "version_0"


def test_a_value_that_a_step_has_logged_is_not_logged_again(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    for values, step in [({"lr": 0.1}, 0), ({"lr": 0.1}, 0), ({"loss": 2.0, "epoch": 0}, 0), ({"lr": 0.1}, 1)]:
        file.log_metrics(values, step)
    file.log_metrics({"loss": 2.0, "epoch": 0}, 1)
    file.save()
    file.log_metrics({"loss": 2.0, "epoch": 0, "grad": 1.5}, 1)  # as what is logged before a save comes again
    file.save()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [{name: value for name, value in row.items() if name != "epoch"} for row in rows] == [
        {"step": "0", "lr": "0.1"},
        {"step": "0", "loss": "2.0"},
        {"step": "1", "lr": "0.1"},
        {"step": "1", "loss": "2.0"},
        {"step": "1", "grad": "1.5"},
    ]


def test_a_file_that_cannot_be_written_keeps_what_it_held(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.log_metrics({"loss": 2.0}, 0)
    file.save()
    held = file.path.read_bytes()
    file.path = tmp_path / "gone" / "metrics.csv"
    (tmp_path / "gone").write_text("a file in the place of the folder")
    for values in ({"loss": 1.0}, {"grad": 1.0}):  # appended, and with a new column
        file.log_metrics(values, 1)
        with pytest.raises(
            UnwritableFileError, match=r"metrics\.csv could not be written: (Not a directory|File exists)"
        ):
            file.save()
    assert (tmp_path / "metrics.csv").read_bytes() == held


def test_a_file_in_the_place_of_the_run_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    with FolderLocks() as locks:
        log = RunLogger(tmp_path, "demo", locks)
        Path(log.log_dir).write_text("mine")
        with pytest.raises(FileExistsError):
            _ = log.experiment
    assert (tmp_path / "demo" / "version_0").read_text() == "mine"


def test_the_settings_of_the_first_start_stay(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.log_hparams({"lr": 0.1})
    file.log_hparams({"lr": 0.2})
    assert file.settings.read_text() == "lr: 0.1\n"
