"""Locks on folders that one process works in at a time."""

from __future__ import annotations

import errno
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medseg_pl.core.errors import FolderLockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)

LOCK = ".lock"

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderLocks:
    """Locks on folders, held until the block ends or the process does.

    The kernel's lock (`flock` on a file `.lock` in the folder) is gone at once when its process is, by `kill -9` as
    well; processes that were forked to load data, and live on for some seconds, do not have it. The file names the
    holder. It stays: whoever removed it would let in a second process beside one that is about to lock it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, FolderLocks() as locks:
    ...     locks.acquire(Path(folder))
    ...     (Path(folder) / ".lock").read_text().startswith("process ")
    True
    """

    def __init__(self) -> None:
        self._locks: dict[Path, BaseFileLock] = {}

    def acquire(self, folder: Path) -> None:
        """Lock a folder; one that these locks hold already stays locked.

        Raises:
            FolderLockedError: Another process has it.
        """
        from filelock import FileLock, Timeout  # noqa: PLC0415  0.1 s, which commands that only read need not wait

        path = (folder / LOCK).resolve()
        if path in self._locks:
            return
        # NFS turns flock into a lock that all machines know (Linux 2.6.12 and newer); Lustre and GPFS do where they are
        # mounted with locks. No fallback: filelock's lock without the kernel outlives a killed process.
        lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            holder = path.read_text(encoding="utf-8", errors="replace")[:200]
            raise FolderLockedError(
                f"{folder} is in use: {holder or 'another process'} works in it, and two would spoil each other's "
                "files. Wait for its end, or end it, and repeat the command."
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning("%s is on a file system without locks: nothing keeps a second process out of it.", folder)
            return
        self._locks[path] = lock
        _write_holder(path, f"process {os.getpid()} on {platform.node()}")

    def release(self) -> None:
        """Release all folders."""
        for path, lock in self._locks.items():
            _write_holder(path, "")
            lock.release()
        self._locks.clear()

    def __enter__(self) -> FolderLocks:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()


def _write_holder(path: Path, holder: str) -> None:
    with suppress(OSError):  # a full disk keeps nobody from locking
        path.write_text(holder, encoding="utf-8")
