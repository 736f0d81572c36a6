"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg_pl.core.errors import MissingDataError, OutputExistsError

_UNFINISHED = ".writing-"


@contextmanager
def whole_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` once the block has ended well.

    Args:
        path: Where the file should end up; its folder is made.
        replace: Whether an existing file may go.

    Raises:
        OutputExistsError: `path` exists and `replace` is not set.
    """
    if not replace:
        require_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as temporary:
        # Made here rather than by `tempfile`, whose files are for their owner alone: the umask applies without being
        # read, which would mean to set it, for all threads.
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a path beside `path` for what is on its way there, and remove what is still there when the block ends."""
    # The suffix stays last: writers choose the format, and whether to compress, by it.
    temporary = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}-{path.name[-60:]}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`, and rename it to `path` once the block has ended well.

    Raises:
        OutputExistsError: There is something in `path`.
    """
    require_empty(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".unfinished-{secrets.token_hex(8)}-{path.name[-60:]}"
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rmdir()  # it is empty
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote; nobody else may be writing into the folder."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk and not only on their way."""
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
    """Write a whole text file, UTF-8 with the same line ends on every system."""
    with whole_file(path, replace=replace) as temporary:
        temporary.write_bytes(text.encode())


def digest_of(path: Path) -> str:
    """A hash of a file's bytes, 40 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=20)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_absent(*paths: Path | None) -> None:
    """Raise `OutputExistsError` where one of the files to be written is there: long work asks before it begins."""
    for path in paths:
        if path is not None and path.exists():
            raise OutputExistsError(
                f"{path} exists already and is not overwritten. Choose another output, or move it away."
            )


def files_below(directory: Path) -> Iterator[Path]:
    """Every file below a folder, in the order of paths, but for hidden ones and those in hidden folders.

    Notebooks keep copies of images in `.ipynb_checkpoints`, and a prediction what it has to remember in `.medseg`.
    Links to folders are not followed. A folder that is not there has no files.

    Raises:
        PermissionError: A folder may not be listed: what it holds must not be missing without a word.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a/c.png", "a/.hidden.png", ".ipynb_checkpoints/b-checkpoint.png"):
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Path(folder, name).touch()
    ...     [path.relative_to(folder).as_posix() for path in files_below(Path(folder))]
    ['a/c.png', 'b.png']
    """
    if not directory.is_dir():
        return
    with os.scandir(directory) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) or Path(entry.path).is_file():  # the second knows circles of links
            yield Path(entry.path)


def require_empty(directory: Path, but: str = "") -> None:
    """Raise `OutputExistsError` unless `directory` is absent or empty, `but` for one name."""
    if directory.exists() and (not directory.is_dir() or any(path.name != but for path in directory.iterdir())):
        raise OutputExistsError(f"{directory} exists and is not empty; nothing was written. Choose another folder.")


def require_folder(directory: Path, what: str, remedy: str) -> Path:
    """Return `directory`, or raise `MissingDataError` with the setting that names it."""
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise MissingDataError(f"Expected {what} in the folder {directory}, found {found} there. {remedy}")
    return directory
