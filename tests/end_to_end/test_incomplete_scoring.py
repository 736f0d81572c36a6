"""An evaluation that did not see everything gives no score, or says that it did not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.data.samplers import CaseBatchSampler
from medseg_pl.metrics import OverlapMetric


@pytest.fixture
def copied(checkpoint: str, tmp_path: Path) -> Path:
    """The checkpoint in a folder of its own, where its scores will lie."""
    return Path(shutil.copy(checkpoint, tmp_path / "best.ckpt"))


def score(checkpoint: Path, *options: str) -> int:
    return main(["test", "--ckpt_path", str(checkpoint), "--trainer.accelerator=cpu", *options])


def written(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.parent.glob("s*_test*"))


class Forgetful(CaseBatchSampler):
    """Leaves out the last slice."""

    def __iter__(self) -> Iterator[list[int]]:
        *batches, last = self.batches
        return iter([*batches, last[:-1]])


def test_a_slice_that_never_came(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medseg_pl.training.datamodule.CaseBatchSampler", Forgetful)
    assert score(copied) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"Slices of 1 case never came, case\d+_day\d+ among them, so no score is given\.", error)
    assert written(copied) == []


def test_an_evaluation_that_is_interrupted_leaves_nothing_and_can_be_repeated(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = OverlapMetric.update

    def interrupted(metric: OverlapMetric, case: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OverlapMetric, "update", interrupted)
    with pytest.raises(SystemExit) as ended:
        score(copied)
    assert ended.value.code
    assert written(copied) == []
    monkeypatch.setattr(OverlapMetric, "update", scored)
    assert score(copied) == 0
    assert written(copied) == ["scores_test.csv", "summary_test.json"]
    assert json.loads((copied.parent / "summary_test.json").read_text())["complete"] is True


def test_an_evaluation_that_was_cut_short_on_purpose_says_so(copied: Path) -> None:
    assert score(copied, "--trainer.limit_test_batches=2") == 0
    assert json.loads((copied.parent / "summary_test.json").read_text())["complete"] is False


def test_no_batch_is_no_score_and_not_that_of_an_earlier_run(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(copied) == 0
    capsys.readouterr()
    assert score(copied, "--trainer.limit_test_batches=0", "--json") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "No case was scored, as with trainer.limit_test_batches=0. Raise it." in said.err
