"""Which run folder is gone on with, and from what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg_pl.core.errors import MissingDataError
from medseg_pl.models.ensemble_file import expand_ensembles, write_ensemble
from medseg_pl.training.checkpoints import ResumePoint, find_checkpoint, find_resume_point, remove_records


def test_a_run_that_was_never_saved_is_begun_again(tmp_path: Path) -> None:
    run = tmp_path / "version_3"
    run.mkdir()
    for name in ("config.yaml", "splits.json", "metrics.csv", "notes.txt", "dashboard.json"):
        (run / name).touch()
    assert find_resume_point("last", tmp_path) == ResumePoint(None, 0, 0, run)
    remove_records(run)
    assert sorted(path.name for path in run.iterdir()) == ["dashboard.json", "notes.txt"]


@pytest.mark.parametrize("left", ["complete.json", "scores_val.csv"])
def test_a_run_that_kept_no_checkpoints_but_ended_stays(left: str, tmp_path: Path) -> None:
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / left).touch()
    assert find_resume_point("last", tmp_path) is None


def test_without_a_run_there_is_nothing(tmp_path: Path) -> None:
    assert find_resume_point("last", tmp_path / "demo") is None


class TestFindCheckpoint:
    """`--ckpt_path` may be a file, a run folder, an experiment, or the name of a checkpoint."""

    def make(self, runs: Path, *names: str) -> None:
        for time, name in enumerate(names):
            path = runs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (time, time))

    def test_folders_have_their_best_weights(self, tmp_path: Path) -> None:
        self.make(tmp_path, *(f"demo/version_{n}/checkpoints/best.ckpt" for n in (10, 9)), "loose/best.ckpt")
        newest = tmp_path / "demo/version_10/checkpoints/best.ckpt"
        for name in ("demo", "demo/version_10", "demo/version_10/checkpoints", "demo/version_10/checkpoints/best.ckpt"):
            assert find_checkpoint(str(tmp_path / name)) == str(newest)
        assert find_checkpoint(str(tmp_path / "loose")) == str(tmp_path / "loose/best.ckpt")
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingDataError, match=r"empty is a folder without checkpoints/best\.ckpt"):
            find_checkpoint(str(tmp_path / "empty"))

    def test_a_name_is_that_of_the_newest_run(self, tmp_path: Path) -> None:
        files = ["a/version_0/checkpoints/last.ckpt", "b/version_3/checkpoints/best.ckpt"]
        self.make(tmp_path, *files, "a/version_0/checkpoints/best.ckpt")
        assert find_checkpoint("best", tmp_path) == str(tmp_path / "a/version_0/checkpoints/best.ckpt")
        assert find_checkpoint("best", tmp_path, "b") == str(tmp_path / files[1])
        assert find_checkpoint("last", tmp_path) == str(tmp_path / files[0])
        with pytest.raises(MissingDataError, match=r"There is no last\.ckpt of a run below"):
            find_checkpoint("last", tmp_path, "b")

    def test_only_a_choice_is_announced(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.make(tmp_path, "b/version_3/checkpoints/best.ckpt", "a/version_0/checkpoints/best.ckpt", "f/x.ckpt")
        files = [str(tmp_path / name / "checkpoints/best.ckpt") for name in ("a/version_0", "b/version_3")]
        for name, runs in (("best", tmp_path), (str(tmp_path / "a"), tmp_path), (files[1], tmp_path)):
            find_checkpoint(name, runs)
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", f"Using {files[0]}\n" * 2)
        write_ensemble(tmp_path / "f/ensemble.json", [tmp_path / "f/x.ckpt"])
        for name in ("f", "f/ensemble.json"):
            assert expand_ensembles([tmp_path / name]) == [str(tmp_path / "f/x.ckpt")]
        assert capsys.readouterr().err == f"Using {tmp_path / 'f/ensemble.json'}\n"
        monkeypatch.setenv("LOCAL_RANK", "1")
        find_checkpoint("best", tmp_path)
        assert capsys.readouterr().err == ""

    def test_a_run_folder_goes_on_from_its_last_state(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"There is no checkpoint .*version_0/checkpoints/last\.ckpt"):
            (tmp_path / "version_0").mkdir()
            find_resume_point(str(tmp_path / "version_0"), tmp_path)
