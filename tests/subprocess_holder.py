"""Another process that works in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from medseg_pl.io.folders import FolderLocks

locks = FolderLocks()
locks.acquire(Path(sys.argv[1]))
print(flush=True)
time.sleep(600)
"""


@contextmanager
def working_in(folder: Path) -> Iterator[int]:
    """Have a process that has the lock of `folder` during the block, and is killed after it; gives its number."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()
