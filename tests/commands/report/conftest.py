"""Pages that several tests only look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from tests.commands.report.run_folders import CONFIG, some_scores, write_run


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same 24 cases, of which the second is a little better."""
    runs = tmp_path_factory.mktemp("runs")
    other = {**CONFIG, "experiment": "other", "model": {**CONFIG["model"], "context": 2}}
    return [
        write_run(runs / "demo" / "version_0", some_scores(24, seed=1)),
        write_run(runs / "other" / "version_3", some_scores(24, seed=2, better=0.02), config=other),
    ]


@pytest.fixture(scope="session")
def page(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the first run, with the names of its cases."""
    file = tmp_path_factory.mktemp("pages") / "one.html"
    assert main(["report", str(two_runs[0]), "-o", str(file), "--names", "true"]) == 0
    return file


@pytest.fixture(scope="session")
def page_of_two(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both runs, with hashed names."""
    file = tmp_path_factory.mktemp("pages") / "two.html"
    assert main(["report", *map(str, two_runs), "-o", str(file)]) == 0
    return file
