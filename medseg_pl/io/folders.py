"""Folders that one process works in at a time, and folders of results that may be interrupted and taken up again.

```
folder/…                        results, each moved here when all files of its case are whole
       .medseg/.lock            says which process works here
       .medseg/record.json      what they are results of
       .medseg/finished/…       one file for each finished case
       .medseg/notes/…          what a later step has to know of a case
       .medseg/stage-…/         a case that is being written
```
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_pl.core.errors import FolderLockedError, OutputExistsError
from medseg_pl.io.atomic_files import describe_stat, hash_file, name_errors, require_empty, write_text
from medseg_pl.io.itk import find_data_files

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)

LOCK = ".lock"
_OWN = ".medseg"

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
        """Lock a folder, or keep the lock that these locks hold already.

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


def check_kept_input(directory: Path, images: Path | None = None) -> None:
    """Check that an output folder is free, or holds results of these images.

    It takes no model, whose loading takes longer. `OutputFolder.check` compares the rest.

    Args:
        directory: The folder.
        images: What `record["input"]` of the results would be; any results will do without it.

    Raises:
        OutputExistsError: It holds anything else.
    """
    _check_kept(directory, lambda kept: images is None or _read_input(kept) == str(images.resolve()))


def _read_input(kept: str) -> Any:
    try:
        record = json.loads(kept)
    except ValueError:  # a damaged record is nobody's
        return None
    return record.get("input") if isinstance(record, dict) else None


def _check_kept(directory: Path, is_same: Callable[[str], bool]) -> None:
    record = directory / _OWN / "record.json"
    if not record.is_file():
        require_empty(directory, but=_OWN)  # of a run that was interrupted before its record
    elif not is_same(record.read_text(encoding="utf-8")):
        raise OutputExistsError(
            f"{directory} holds results of other inputs, checkpoints or settings; nothing was written. Choose another "
            "folder, or repeat the command that began it."
        )


class OutputFolder:
    """A folder of results by case that an interrupted command can finish.

    Args:
        directory: The folder.
        record: What the results depend on; plain values.
        locks: Locks the folder for this process.
    """

    def __init__(self, directory: Path, record: Mapping[str, Any], locks: FolderLocks) -> None:
        self.directory = directory
        self.record = json.dumps(record, indent=1, sort_keys=True) + "\n"
        self.locks = locks
        self._own = directory / _OWN

    def check(self) -> None:
        """Check that the folder is free, or holds the same record's results.

        Raises:
            OutputExistsError: It holds anything else.
        """
        _check_kept(self.directory, lambda kept: kept == self.record)

    def begin(self) -> None:
        """Make the folder, and remove half-written files of an interrupted run.

        Only one rank may call this.

        Raises:
            FolderLockedError: Another run writes to it.
            OutputExistsError: See `check`.
        """
        self.check()  # before anything is made
        self._own.mkdir(parents=True, exist_ok=True)
        self.locks.acquire(self._own)
        self.check()  # what may have come before the lock
        write_text(self._own / "record.json", self.record, replace=True)
        for stage in self._own.glob("stage-*"):
            shutil.rmtree(stage)
        for leftover in self.directory.rglob(".writing-*"):
            leftover.unlink(missing_ok=True)

    def is_finished(self, name: str, inputs: Sequence[Path]) -> bool:
        """Tell whether a case was finished from these files as they are.

        Files that were copied since, as to the local disk of a node, count as the same where their bytes are. A result
        that is gone or empty is made again; one that was edited is somebody's work.
        """
        marker = self._locate_marker(name)
        if not marker.is_file():
            return False
        first, *results = marker.read_text(encoding="utf-8").split("\0")
        if any(not _is_whole(self.directory / result) for result in results):
            return False
        state, _, content = first.partition(" ")
        return state == _describe_state(inputs) or content == _hash_content(inputs)

    @contextmanager
    def case(self, name: str, inputs: Sequence[Path]) -> Iterator[Path]:
        """Give a folder for a case's files; move them after the block.

        A block that raises moves nothing.

        Args:
            name: The case.
            inputs: The files that its results follow from, see `is_finished`.

        Yields:
            The folder; its files move to the same places below the output folder.
        """
        stage = Path(tempfile.mkdtemp(prefix="stage-", dir=self._own))
        try:
            stage.chmod(0o755)
            with name_errors(self.directory, stage):
                yield stage
                results = sorted(path.relative_to(stage) for path in stage.rglob("*") if path.is_file())
                for result in results:
                    file, place = stage / result, self.directory / result
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
            # Last: a case without its marker is made again.
            first = f"{_describe_state(inputs)} {_hash_content(inputs)}"
            write_text(self._locate_marker(name), "\0".join([first, *map(Path.as_posix, results)]), replace=True)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def note(self, name: str, suffix: str) -> Path:
        """Return the path of a case's note, which is not a result.

        It lies below the folder, and below that of `case`.
        """
        return Path(self._own.name, "notes", f"{_hash_name(name)}{suffix}")

    def _locate_marker(self, name: str) -> Path:
        return self._own / "finished" / _hash_name(name)


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _hash_name(name: str) -> str:
    """Hash a case's name to a file name."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _describe_state(inputs: Sequence[Path]) -> str:
    """Describe files without reading them; see `describe_stat`."""
    files = (*inputs, *find_data_files(inputs))
    return _hash_name("\0".join(f"{path.name} {describe_stat(path.stat())}" for path in files))


def _hash_content(inputs: Sequence[Path]) -> str:
    files = (*inputs, *find_data_files(inputs))
    return _hash_name("\0".join(f"{path.name} {hash_file(path)}" for path in files))
