"""The log of a run, and the folder that it is in."""

from __future__ import annotations

from pathlib import Path

from medseg_pl.io.locks import FolderLocks
from medseg_pl.run_log import RunLog


def test_two_runs_that_begin_at_once_get_a_folder_each(tmp_path: Path) -> None:
    with FolderLocks() as locks:
        logs = [RunLog(tmp_path, "demo", locks) for _ in range(2)]
        assert len({log.log_dir for log in logs}) == 1, "both have chosen before one of them makes the folder"
        assert [log.experiment.path.parent.name for log in logs] == ["version_0", "version_1"]
        assert [Path(log.log_dir).name for log in logs] == ["version_0", "version_1"]
        again = RunLog(tmp_path, "demo", locks, version="version_0")
        assert again.experiment.path.parent.name == "version_0"
