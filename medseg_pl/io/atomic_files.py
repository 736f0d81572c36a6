"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import DISK, OutputExistsError, parse_file_error

_UNFINISHED = ".writing-"


@contextmanager
def write_atomically(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary path, and rename it to `path` after the block.

    A block that raises leaves `path` as it was.

    Args:
        path: Where the file should end up; its folder is made.
        replace: Whether an existing file may go.

    Raises:
        OutputExistsError: `path` exists and `replace` is not set.
    """
    if not replace:
        require_absent(path)
    with reserve_temporary(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made here rather than by `tempfile`, whose files are for their owner alone: the umask applies without being
        # read, which would mean to set it, for all threads.
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)


@contextmanager
def reserve_temporary(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and remove it after the block."""
    # The suffix stays last: writers choose the format, and whether to compress, by it.
    temporary = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}-{path.name[-60:]}"
    try:
        with name_errors(path, temporary):
            yield temporary
    finally:
        with suppress(OSError):  # a folder that is read-only: there is nothing to remove
            temporary.unlink(missing_ok=True)


@contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Give a new folder, and move it to `path` after the block.

    A block that raises leaves `path` as it was. An empty folder at `path` is filled rather than replaced: it may be a
    mount, or somebody's working directory.

    Raises:
        OutputExistsError: There is something in `path`.
    """
    require_empty(path)
    exists = path.is_dir()
    around = path if exists else path.parent
    temporary = around / f".unfinished-{secrets.token_hex(8)}-{path.name[-60:]}"
    try:
        with name_errors(path, temporary):
            around.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            if exists:
                # Index files last: what they list is then there.
                for entry in sorted(temporary.iterdir(), key=lambda entry: (entry.is_file(), entry.name)):
                    entry.rename(path / entry.name)
            else:
                temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def name_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Name the intended file in disk errors raised within the block.

    Args:
        path: What is written.
        temporary: Where it is written to first, whose name tells nobody anything.

    Raises:
        OSError: The disk's error, with `path` as its file.
    """
    try:
        yield
    except OSError as error:
        number, name = parse_file_error(error)
        meant = name.replace(str(temporary), str(path)) if name else str(path)
        if number not in DISK or meant == error.filename:
            raise
        raise OSError(number, error.strerror or os.strerror(number), meant) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote.

    Nobody else may be writing to the folder.
    """
    for left in folder.glob(f"{_UNFINISHED}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they write names at once.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a UTF-8 text whole, line ends as given, see `write_atomically`."""
    with write_atomically(path, replace=replace) as temporary:
        temporary.write_bytes(text.encode())


def describe_stat(stat: os.stat_result) -> str:
    """Describe a file's state without reading it.

    The text changes whenever the content may have changed. Size and time of modification alone do not tell: `cp -p`,
    `tar` and `rsync -a` set the time that they were given. The time of change is the system's own, and a file that was
    put in the place of another has another inode.
    """
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def hash_file(path: Path) -> str:
    """Hash a file's bytes to 40 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=20)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_absent(*paths: Path | None) -> None:
    """Check that none of the files to be written exists.

    Long work asks before it begins.

    Raises:
        OutputExistsError: One of them exists.
    """
    for path in paths:
        if path is not None and path.exists():
            raise OutputExistsError(
                f"{path} exists already and is not overwritten. Choose another name, such as {_number(path).name}, or "
                "move it away."
            )


def _number(path: Path) -> Path:
    """Return the first free name of a file with a number, such as `report_2.html`."""
    stem, dot, suffix = path.name.partition(".")
    numbered = (path.with_name(f"{stem}_{number}{dot}{suffix}") for number in count(2))
    return next(other for other in numbered if not other.exists())


def require_empty(directory: Path, but: str = "") -> None:
    """Check that a folder is absent or empty.

    Args:
        directory: The folder.
        but: A name that it may hold.

    Raises:
        OutputExistsError: It holds something else, or is a file.
    """
    if directory.exists() and (not directory.is_dir() or any(path.name != but for path in directory.iterdir())):
        raise OutputExistsError(f"{directory} exists and is not empty; nothing was written. Choose another folder.")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file, or raise the disk's error.

    `numpy.save` leaves out the error's number, and may lose the end of an array without a word: it does not look at
    what the last flush says.
    """
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    with name_errors(path, path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(contiguous))
        file.write(contiguous.tobytes() if not contiguous.size else contiguous.reshape(-1).view(np.uint8).data)
