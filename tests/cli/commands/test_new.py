"""`medseg new`: a project that works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.new import make_package_name
from medseg_pl.cli.commands.phantom import write_phantom

pytestmark = pytest.mark.documents

MARKS = ["dataset", "model", "configuration", "train", "evaluate"]
SECTIONS = [
    "## 1. Problem Statement",
    "## 2. Related Works",
    "## 3. The Proposed Method",
    "### 4.1 Dataset",
    "### 4.2 Model",
    "### 4.3 Configurations",
    "### 4.4 Train",
    "### 4.5 Evaluate",
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "store"))
    write_phantom(tmp_path / "data", "folder", cases=6, seed=0, slices=4, size=(40, 36))
    return tmp_path / "data"


def files_of(project: Path) -> list[str]:
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file())


def test_a_project_for_a_data_set(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "liver-mri"
    assert main(["new", str(project), "--data_root", str(data), "--group", r"(case\d+)_"]) == 0
    assert f"cd {project} && make demo" in capsys.readouterr().out
    assert files_of(project) == [
        ".github/workflows/tests.yml",
        ".gitignore",
        ".pre-commit-config.yaml",
        "LICENSE",
        "Makefile",
        "README.md",
        "configs/demo.yaml",
        "configs/own.yaml",
        "configs/train.yaml",
        "liver_mri_parts/__init__.py",
        "liver_mri_parts/metrics.py",
        "pyproject.toml",
        "slurm/train.sbatch",
        "tests/test_metrics.py",
    ]
    assert 'name = "liver-mri"' in (project / "pyproject.toml").read_text()
    for words in (("check", "--no-cache", "--select=E,F,I"), ("format", "--no-cache", "--check")):
        ruff = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=project, capture_output=True, check=False)
        assert ruff.returncode == 0, ruff.stdout.decode()
    readme = (project / "README.md").read_text()
    assert readme.startswith("# liver-mri\n")
    assert [line for line in readme.splitlines() if line in SECTIONS] == SECTIONS
    assert all(f"<!-- medseg:{mark} -->" in readme and f"<!-- /medseg:{mark} -->" in readme for mark in MARKS)
    assert re.search(r"^12 cases of 4 patients, 12 slices, about ", readme, re.MULTILINE)
    assert "{{" not in "".join((project / name).read_text() for name in files_of(project))


def test_its_configuration_is_the_plan(data: Path, tmp_path: Path) -> None:
    project = tmp_path / "data-project"
    assert main(["new", str(project), "--data_root", str(data)]) == 0
    assert main(["plan", str(data), "-o", str(tmp_path / "plan.yaml"), "--no_probe"]) == 0
    made, planned = (
        yaml.safe_load(path.read_text()) for path in (project / "configs/train.yaml", tmp_path / "plan.yaml")
    )
    assert made.pop("experiment") == "data-project"
    assert planned.pop("experiment") == "data"
    assert made == planned


def test_its_own_score_enters_by_its_configuration(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "p"
    assert main(["new", str(project), "--data_root", str(data)]) == 0
    monkeypatch.syspath_prepend(project)
    configs = [
        part for name in ("train", "demo", "own") for part in ("--config", str(project / f"configs/{name}.yaml"))
    ]
    small = [
        "--trainer.max_epochs=1",
        "--data.samples_per_epoch=8",
        "--data.num_workers=0",
        "--runs",
        str(tmp_path / "runs"),
    ]
    assert main(["fit", *configs, "--plugins", "p_parts", *small]) == 0
    header = (tmp_path / "runs" / "demo" / "version_0" / "scores_val.csv").read_text().splitlines()[0]
    assert "volume_error_percent" in header


def test_without_data_it_begins_with_synthetic_ones(tmp_path: Path) -> None:
    assert main(["new", str(tmp_path / "p")]) == 0
    assert "configs/train.yaml" not in files_of(tmp_path / "p")
    steps = subprocess.run(
        ["make", "-n", "demo"], cwd=tmp_path / "p", capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in steps.splitlines() if line.startswith("medseg")]
    assert lines[:3] == [
        "medseg phantom data/phantom --layout folder",
        "medseg plan data/phantom -o configs/train.yaml",
        "medseg fit --config configs/train.yaml --config configs/demo.yaml ",
    ]


def test_nothing_is_overwritten_and_nothing_half_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "README.md").write_text("mine")
    assert main(["new", str(tmp_path / "p"), "--data_root", str(data)]) == 1
    assert "is not empty; nothing was written" in capsys.readouterr().err
    assert files_of(tmp_path / "p") == ["README.md"]
    assert main(["new", str(tmp_path / "q"), "--data_root", str(tmp_path / "nowhere")]) == 1
    assert "Set --data_root to the folder that holds it." in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_package_name_is_one() -> None:
    for name in ("p", "Größe 3", "2024", "torch", "--", "class"):
        assert make_package_name(name).isidentifier()


@pytest.mark.slow
def test_make_demo_trains_and_reports(data: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    assert main(["new", str(project), "--data_root", str(data)]) == 0
    settings = "SETTINGS=--data.samples_per_epoch=8 --data.num_workers=0"
    own = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    medseg = f"MEDSEG=env PYTHONPATH={Path.cwd()}:{project} {sys.executable} -m medseg_pl"

    def make(target: str) -> None:
        subprocess.run(["make", target, medseg, f"PYTHON={sys.executable}", settings], cwd=project, env=own, check=True)

    make("demo")
    (report,) = (project / "runs" / "demo" / "version_0").glob("report.html")
    assert report.stat().st_size > 10_000
    readme = project / "README.md"
    filled = readme.read_text()
    assert "Not trained yet." not in filled
    readme.write_text(filled.replace("*Why this one.*", "Since it is small."))
    make("report")
    assert readme.read_text() == filled.replace("*Why this one.*", "Since it is small.")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "tests"], cwd=project, check=True)
