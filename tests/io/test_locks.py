"""A folder is one process's, for as long as that process lives and no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_pl.core.errors import FolderLockedError
from medseg_pl.io.locks import LOCK, FolderLocks

HOLD = """
import os, sys, time
from pathlib import Path
from medseg_pl.io.locks import FolderLocks

locks = FolderLocks()
locks.acquire(Path(sys.argv[1]))
child = os.fork()  # as those that load data are
if child:
    print(child, flush=True)
time.sleep(600)
"""


def taken_by_another(folder: Path) -> str:
    """What another process says that tries to have the lock."""
    take = f"import fcntl; fcntl.flock(open({str(folder / LOCK)!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", take], capture_output=True, text=True, check=False).stderr


def test_a_second_process_is_refused_until_the_first_one_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    with FolderLocks() as locks:
        with pytest.raises(FolderLockedError, match=rf"^{tmp_path} is in use: process {holder.pid} on .+ works in it"):
            locks.acquire(tmp_path)
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # still alive
        locks.acquire(tmp_path)
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        locks.acquire(tmp_path)  # ours already
    os.kill(child, signal.SIGKILL)
    holder.stdout.close()
    assert (tmp_path / LOCK).read_text() == "", "whoever has left is not named"


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    FolderLocks().acquire(tmp_path)
    assert f"{tmp_path} is on a file system without locks" in caplog.text


def test_a_full_disk_does_not_keep_a_lock_from_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", refuse)
    with FolderLocks() as locks:
        locks.acquire(tmp_path)
        assert "BlockingIOError" in taken_by_another(tmp_path)
    assert taken_by_another(tmp_path) == ""
