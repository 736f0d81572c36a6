"""The masks that a stage keeps: whole beside their scores, or not there."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.io.case_pictures import read_picture
from medseg_pl.io.scores import pictures_in
from tests.sample_files import tree


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A run of one's own to score again."""
    return shutil.copytree(run_folder, tmp_path / "run")


def validate(run: Path, *options: str) -> int:
    return main(["validate", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--trainer.accelerator=cpu", *options])


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def write(*args: Any) -> None:
        raise error

    monkeypatch.setattr(UWMadisonSource, "write", write)


def test_masks_have_the_number_of_their_scores(run: Path) -> None:
    assert validate(run, "--save_predictions=false") == 0
    assert validate(run) == 0
    assert sorted(path.name for path in run.glob("scores_*")) == [f"scores_val{n}.csv" for n in ("", "_2", "_3")]
    assert sorted(path.name for path in (run / "predictions").iterdir()) == ["val", "val_3"]
    assert tree(run / "predictions" / "val") == tree(run / "predictions" / "val_3")


def test_a_full_disk_leaves_neither_masks_nor_scores(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(run)
    refuse_to_write(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert validate(run) == 1
    said = capsys.readouterr().err
    assert "No space left" in said and "predictions" in said and ".writing" not in said
    assert tree(run) == before


def test_what_a_killed_stage_left_goes_with_the_next(run: Path) -> None:
    left = run / "predictions" / ".writing-val-0123"
    left.mkdir()
    (left / "half.csv").write_text("half a mask")
    assert validate(run) == 0
    assert sorted(path.name for path in (run / "predictions").iterdir()) == ["val", "val_2"]


@pytest.mark.parametrize("reason", ["", "this format holds no masks"])
def test_without_a_writer_there_are_scores_and_pictures(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    refuse_to_write(monkeypatch, NotImplementedError(reason))
    assert validate(run) == 0
    cases = json.loads((run / "splits.json").read_text())["val"]
    why = reason or "UWMadisonSource has no write"
    assert f"Masks are not kept of {len(cases)} cases, such as {cases[0]}: {why}" in caplog.text
    assert (run / "scores_val_2.csv").is_file()
    pictures = list(pictures_in(run / "predictions" / "val_2").iterdir())
    assert len(pictures) == len(cases)
    for picture in pictures:
        assert picture.read_bytes() == (pictures_in(run / "predictions" / "val") / picture.name).read_bytes()
        assert read_picture(picture).reference.shape == (3, 6, 36, 40)
