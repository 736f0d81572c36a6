"""Every command of the README, typed outside the repository with an installed wheel.

Without more, the wheel is built here, unpacked, and run beside the libraries of this environment. `make test-wheel`
names an environment of its own in MEDSEG_TEST_PROGRAM, into which the wheel alone was installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import commands
from tests.docs.test_followed import typed
from tests.sample_wheel import unpack_wheel

README = Path("README.md").resolve()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """How the installed wheel is called, and in which environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MEDSEG", "PYTHON", "PYTEST"))}
    if installed := os.environ.get("MEDSEG_TEST_PROGRAM"):
        return [installed], clean
    site = unpack_wheel(tmp_path_factory.mktemp("wheel"))
    return [sys.executable, "-m", "medseg_pl"], {**clean, "PYTHONPATH": str(site)}


@pytest.mark.slow
def test_the_readme_is_followed_with_a_wheel(
    program: tuple[list[str], dict[str, str]], empty_desk: Path, tmp_path: Path
) -> None:
    medseg, environment = program
    desk = tmp_path / "an empty folder"
    for data in ("mydata", "data/decathlon"):  # what a reader brings
        shutil.copytree(empty_desk / data, desk / data)
    environment = {**environment, "MEDSEG_CACHE": str(tmp_path / "cache")}
    for command in commands(README):
        name, *words = command.words
        if name == "medseg":
            called = [*medseg, *typed(words)]
            done = subprocess.run(called, cwd=desk, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (desk / "runs/demo/version_0/scores_test.csv").is_file()
    assert (desk / "exported/model.onnx").is_file()
