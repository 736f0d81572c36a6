"""What packages, containers and workflows name is there."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

import medseg_pl

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yml"))
PYPROJECT = Path("pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_of_the_makefile(workflow: Path) -> None:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    called = chain.from_iterable(re.findall(r"make ((?:[a-z-]+ ?)+)", step.get("run", "")) for step in steps)
    targets = re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE)
    assert [name for names in called for name in names.split() if name not in targets] == []


def test_the_image_copies_files_that_are_there_and_let_in() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", Path("Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"pyproject.toml", "medseg_pl", "configs"} <= set(names)
    let_in = Path(".dockerignore").read_text().split()
    assert [name for name in names if not Path(name).exists() or f"!{name}" not in let_in] == []


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = yaml.safe_load(Path("CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == medseg_pl.__version__
    assert f'license = "{citation["license"]}"' in PYPROJECT
    assert f"The first release, {citation['version']}" in Path("CHANGELOG.md").read_text()


def test_extras_that_are_named_exist() -> None:
    extras = set(re.findall(r"^([\w-]+) = \[", PYPROJECT.split("[project.optional-dependencies]")[1], re.MULTILINE))
    files = [Path("README.md"), *Path("docs").glob("*.md"), *Path("medseg_pl").rglob("*.py"), Path("Dockerfile")]
    named = [name for file in files for name in re.findall(r"(?:medseg|\"\.|'\.)\[([a-z,-]+)\]", file.read_text())]
    assert "export" in named
    assert [name for names in named for name in names.split(",") if name not in extras] == []


def test_other_files_of_the_repository_parse() -> None:
    for file in (*Path(".github").rglob("*.yml"), Path(".pre-commit-config.yaml")):
        assert yaml.safe_load(file.read_text())
    container = json.loads(Path(".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].startswith("make .venv")
