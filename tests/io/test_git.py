"""The state of a repository, and of what is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from medseg_pl.io.git import read_git_state


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=n@example.invalid"]
    command = ["git", *who, "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit of one file."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message=one")
    return tmp_path


def test_the_commit_and_whether_files_differ_from_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "results").mkdir()
    (repository / "results" / "new.txt").write_text("of no matter to the code that runs\n")
    assert read_git_state(repository / "results") == {"commit": commit, "dirty": False}
    (repository / "code.py").write_text("2\n")
    assert read_git_state(repository) == {"commit": commit, "dirty": True}


def test_there_is_none(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    assert read_git_state(tmp_path / "empty") is None, "before the first commit"
    monkeypatch.setenv("PATH", "")
    assert read_git_state(repository) is None, "without git"


def test_no_program_is_run_that_a_repository_names(repository: Path) -> None:
    git(repository, "config", "core.fsmonitor", f"touch {repository / 'canary'}")
    assert read_git_state(repository) is not None
    assert not (repository / "canary").exists()
