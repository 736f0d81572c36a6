"""Twelve architectures, eight encoders, three sizes and a batch of one, in one process and in two: no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timeouts import HANG_S


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_combination_trains_or_says_why_not(ranks: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.architectures", str(tmp_path), str(ranks)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(ranks)]
    try:
        assert [process.wait(timeout=3 * HANG_S) for process in running] == [0] * ranks
    finally:
        for process in running:
            process.kill()
    for rank in range(ranks):
        ends = json.loads((tmp_path / f"ends_{rank}.json").read_text())
        assert len(ends) == 12 * 8 * 4
        traces = {name: end for name, end in ends.items() if end not in ("trained", "sentence")}
        assert not traces
        assert sum(end == "trained" for end in ends.values()) > len(ends) / 3
