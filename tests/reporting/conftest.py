"""Runs that several tests only look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.run_folders import write_two_runs


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same 24 cases, of which the second is a little better."""
    return write_two_runs(tmp_path_factory.mktemp("two_runs"))
