"""Which run folder is gone on with, and from what."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.checkpointing import Resumption, find_resumption, remove_records


def test_a_run_that_was_never_saved_is_begun_again(tmp_path: Path) -> None:
    run = tmp_path / "version_3"
    run.mkdir()
    for name in ("config.yaml", "splits.json", "metrics.csv", "notes.txt", "dashboard.json"):
        (run / name).touch()
    assert find_resumption("last", tmp_path) == Resumption(None, 0, 0, run)
    remove_records(run)
    assert sorted(path.name for path in run.iterdir()) == ["dashboard.json", "notes.txt"]


@pytest.mark.parametrize("left", ["complete.json", "scores_val.csv"])
def test_a_run_that_kept_no_checkpoints_but_ended_stays(left: str, tmp_path: Path) -> None:
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / left).touch()
    assert find_resumption("last", tmp_path) is None


def test_without_a_run_there_is_nothing(tmp_path: Path) -> None:
    assert find_resumption("last", tmp_path / "demo") is None
