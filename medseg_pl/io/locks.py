"""One process at a time works in a folder: a lock that goes when the process goes that has it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path

from medseg_pl.core.errors import FolderLockedError

log = logging.getLogger(__name__)

LOCK = ".lock"

_TAKEN = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderLocks:
    """The folders that this process has for itself, until the block ends or the process does.

    A lock is the kernel's (POSIX, on a file `.lock` in the folder): it is gone at once when its process is, by
    `kill -9` as well, while a process that was forked to load data and lives on for some seconds never has it. It is
    known to all machines that share the folder by NFS, and by Lustre and GPFS where they are mounted with locks;
    where there are none, a warning says so. The file says who has the lock while someone does. It stays: whoever
    removed it would let in a second process beside one that is about to lock it. Nothing else in the process that has
    the lock may open the file: POSIX gives a lock back as soon as the process closes the file, by any descriptor.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, FolderLocks() as locks:
    ...     locks.take(Path(folder))
    ...     (Path(folder) / ".lock").read_text().startswith("process ")
    True
    """

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}

    def take(self, folder: Path) -> None:
        """Have a folder from here on; one that this process has already is its own.

        Raises:
            FolderLockedError: Another process has it.
        """
        path = (folder / LOCK).resolve()
        if path in self._files:
            return
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 200).decode(errors="replace")
            os.close(file)
            if error.errno in _TAKEN:
                raise _in_use(folder, holder) from error
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("%s is on a file system without locks: nothing keeps a second process out of it.", folder)
            return
        self._files[path] = file
        _note(file, f"process {os.getpid()} on {platform.node()}")

    def give_back(self) -> None:
        """Let others have the folders."""
        for file in self._files.values():
            _note(file, "")
            os.close(file)
        self._files.clear()

    def __enter__(self) -> FolderLocks:
        return self

    def __exit__(self, *raised: object) -> None:
        self.give_back()


def _note(file: int, holder: str) -> None:
    """Say who has the lock; a disk that is full does without."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, holder.encode(), 0)


def _in_use(folder: Path, holder: str) -> FolderLockedError:
    return FolderLockedError(
        f"{folder} is in use: {holder or 'another process'} works in it, and two would spoil each other's files. Wait "
        "for its end, or end it, and repeat the command."
    )
