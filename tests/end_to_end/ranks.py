"""A program in several processes of this machine that train or score together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.timeouts import HANG_S


def on_ranks(program: Sequence[str | Path], ranks: int) -> list[int]:
    """Run `python PROGRAM` on so many ranks; their exit codes, which have to be 0 or that of a kill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "NODE_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, *program],
            env={**os.environ, **meeting, "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=HANG_S)[1].decode() for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, -signal.SIGKILL}, "\n".join(errors)
    return codes
