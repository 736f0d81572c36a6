"""`--json` prints the result of a command as one object, and everything else goes to stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import SMALL
from tests.printed_json import run_json


def test_phantom_says_what_it_wrote(tmp_path: Path) -> None:
    options = ["--layout=folder", "--cases=2", "--slices=3", "--size=40x32"]
    assert run_json("phantom", tmp_path / "data", *options) == (
        0,
        {"directory": str(tmp_path / "data"), "layout": "folder", "cases": 2, "seed": 0, "slices": 3, "size": [40, 32]},
    )


def test_new_says_what_the_project_is_called(
    phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = run_json("new", tmp_path / "Liver MRI", "--data_root", phantoms["folder"], "--num_workers=1")
    assert code == 0
    assert (made["project"], made["package"]) == (str(tmp_path / "Liver MRI"), "liver_mri_parts")
    assert "24 cases" in made["summary"]  # each image one
    assert "make demo" in capsys.readouterr().err


def test_predict_says_what_became_of_each_input(checkpoint: str, phantoms: dict[str, Path], tmp_path: Path) -> None:
    command = ["predict", "--ckpt_path", checkpoint, "--input", phantoms["uw_madison"] / "train"]
    code, result = run_json(*command, "--output", tmp_path / "masks")
    assert code == 0
    assert result["output"] == str(tmp_path / "masks")
    assert result["counts"] == {"written": 8}
    assert {each["status"] for each in result["inputs"]} == {"written"}
    code, again = run_json(*command, "--output", tmp_path / "masks")
    assert (code, again["counts"]) == (0, {"written": 8})
    assert {each["before"] for each in result["inputs"]} == {False}
    assert {each["before"] for each in again["inputs"]} == {True}


def test_fit_says_what_the_run_has_left(phantoms: dict[str, Path], tmp_path: Path) -> None:
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data_root", phantoms["uw_madison"], *SMALL]
    code, result = run_json(*fit, "--runs", tmp_path)
    run = tmp_path / "demo" / "version_0"
    assert (code, result["run"], result["checkpoint"]) == (0, str(run), str(run / "checkpoints" / "best.ckpt"))
    assert result["summary"] == json.loads((run / "summary_val.json").read_text())
    assert run_json(*fit, "--runs", tmp_path, "--ckpt_path=last") == (0, result)
    assert "json" not in yaml.safe_load((run / "config.yaml").read_text())


def test_report_names_the_page(run_folder: Path, tmp_path: Path) -> None:
    code, result = run_json("report", run_folder, "-o", tmp_path / "page.html", "--pictures=0")
    assert (code, result["page"], result["readme"]) == (0, str(tmp_path / "page.html"), None)
    assert result["runs"] == [str(run_folder)]
    assert (tmp_path / "page.html").is_file()
