"""`medseg info` says what a path is, without torch where it can, and names no case."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import medseg_pl
from medseg_pl.__main__ import main
from medseg_pl.models.ensemble_file import write_ensemble
from medseg_pl.models.segmentation_model import load_model
from tests.printed_json import run_json
from tests.reporting.run_folders import some_scores, write_run


def test_without_a_path_it_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    code, described = run_json("info")
    assert (code, described["kind"], described["medseg"]) == (0, "installation", medseg_pl.__version__)
    assert described["packages"]["torch"] == torch.__version__.split("+")[0] or "+" in described["packages"]["torch"]
    assert described["cuda"] == torch.version.cuda
    assert main(["info"]) == 0
    assert f"medseg: {medseg_pl.__version__}" in capsys.readouterr().out


def test_a_checkpoint(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, described = run_json("info", checkpoint)
    assert (code, described["kind"], described["resumable"]) == (0, "checkpoint", True)
    model = load_model(checkpoint)
    assert described["parameters"] == sum(each.numel() for each in model.network.parameters())
    assert described["model"]["labels"]["names"] == list(model.labels.names)
    assert described["data"]["source"] == "UWMadisonSource"
    split = torch.load(checkpoint, weights_only=True)["SegmentationDataModule"]["split"]
    assert described["data"]["cases"] == {side: len(split[side]) for side in ("train", "val", "test")}
    assert main(["info", checkpoint]) == 0
    printed = capsys.readouterr().out
    assert "large_bowel, small_bowel, stomach" in printed
    assert not any(name in printed for name in split["train"]), "no names of cases"


def test_runs_experiments_and_ensembles(run_folder: Path, tmp_path: Path) -> None:
    code, described = run_json("info", run_folder)
    assert (code, described["kind"], described["complete"], described["epochs"]) == (0, "run", True, 1)
    assert (described["planned_steps"], described["out_of_time"]) == (described["steps"], False)
    assert described["checkpoints"] == ["best.ckpt", "last.ckpt"]
    assert described["scores"]["val"]["cases"] == described["cases"]["val"]
    code, described = run_json("info", run_folder.parent)
    assert (code, described["kind"], described["newest"]["kind"]) == (0, "experiment", "run")
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(run_folder / "checkpoints" / "best.ckpt", tmp_path / "checkpoints")
    write_ensemble(tmp_path / "ensemble.json", [tmp_path / "checkpoints" / "best.ckpt"])
    code, described = run_json("info", tmp_path / "ensemble.json")
    assert (code, described["kind"], described["members"]) == (0, "ensemble", ["checkpoints/best.ckpt"])
    assert described["first"]["kind"] == "checkpoint"


def test_validation_cases_behind_a_test_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, some_scores(4, seed=1))
    assert "caution" not in run_json("info", run)[1]["scores"]["test"]
    summary = json.loads((run / "summary_test.json").read_text())
    (run / "summary_test.json").write_text(json.dumps({**summary, "scored": {"side": "val"}}))
    assert main(["info", str(run)]) == 0
    assert "caution: the validation cases are scored again. They chose the weights" in capsys.readouterr().out


@pytest.mark.parametrize(("layout", "source"), [("uw_madison", "UWMadisonSource"), ("decathlon", "DecathlonSource")])
def test_a_data_set(phantoms: dict[str, Path], layout: str, source: str) -> None:
    code, described = run_json("info", phantoms[layout])
    assert (code, described["kind"], described["source"], described["cases"]) == (0, "data set", source, 8)
    assert described["first_image"]["shape"][0] == 6
    assert "large_bowel" in described["labels"]


def test_runs_and_checkpoints_need_no_torch(run_folder: Path, checkpoint: str) -> None:
    for path in ("", str(run_folder), checkpoint):
        words = json.dumps(["info", *([path] if path else []), "--json"])
        code = f"import sys; from medseg_pl.__main__ import main; main({words}); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["nothing", "text.txt", "empty"])
def test_anything_else_is_an_error_of_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    assert main(["info", str(tmp_path / name)]) in (1, 2)
    assert capsys.readouterr().err.startswith("medseg: ")
