"""The log of a run, and the folder that it is in."""

from __future__ import annotations

from pathlib import Path

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
