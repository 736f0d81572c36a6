"""kill -9 in the middle of a save: the state that was saved last is always there, and whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.training.checkpoints import kill_saves

pytestmark = pytest.mark.processes

OTHER = Path("/dev/shm")


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("temporary", ["same", "other"])
def test_no_kill_costs_a_state(temporary: str, kills: int, tmp_path: Path) -> None:
    """Each state that a save said to be on the disk is found there, whichever file system temporary files go to."""
    if temporary == "other" and (not OTHER.is_dir() or OTHER.stat().st_dev == tmp_path.stat().st_dev):
        pytest.skip("There is no second file system here for temporary files (/dev/shm).")
    with tempfile.TemporaryDirectory(dir=OTHER if temporary == "other" else tmp_path) as scratch:
        (tmp_path / "checkpoints").mkdir()
        arguments = [str(tmp_path / "checkpoints"), scratch, str(kills), "0"]
        done = subprocess.run(
            [sys.executable, kill_saves.__file__, *arguments],
            env={**os.environ, "TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=True,
        )
    counts = json.loads(done.stdout.splitlines()[-1])
    assert (counts["kills"], counts["lost"], counts["unreadable"]) == (kills, 0, 0)
    # How many there are of either depends on the disk: enough of both, or the test shows nothing.
    assert counts["in_mid_save"] > kills / 8, "the kills missed the saves"
    assert counts["steps"] > kills / 8, "next to nothing was saved"
