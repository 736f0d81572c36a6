"""What the operating system says about files, as a sentence with the file and the remedy."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from medseg_pl.core.errors import MedsegError, MissingDataError, UnwritableFileError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
"""A file cannot be written, whatever its name is."""

_ELSEWHERE = {
    "fit": " or choose another folder with --runs",
    "predict": " or choose another folder with --output",
    **dict.fromkeys(
        ("evaluate", "export", "plan", "postprocess", "report", "review"), " or choose another place with -o"
    ),
    **dict.fromkeys(("new", "phantom"), " or choose another folder"),
}
"""Where else the files of a command may go; scores belong beside their checkpoint."""

_SHORT_WRITE = re.compile(r"\d+ requested and -?\d+ written|error -?\d+ when writing")
"""How numpy and Pillow say that a disk is full: without its number."""

_WITHIN_TEXT = re.compile(r"\[Errno (\d+)\] .+?: '([^']+)'")
"""How the text of an `OSError` looks; of one from a loading process torch keeps nothing else."""


@contextmanager
def files_in_words(command: str) -> Iterator[None]:
    """Turn what the operating system says about files within the block into a `MedsegError`.

    Args:
        command: What was asked for, since the remedies depend on it.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if (told := explain_file_error(error, command)) is None:
            raise
        raise told from error


def explain_file_error(error: OSError, command: str) -> MedsegError | None:
    """Say what is wrong with which file and what to do; `None` where no file is."""
    number, name = number_and_file(error)
    again = "go on with --ckpt_path last" if command == "fit" else "repeat the command"
    if number in DISK:
        remedy = "Make it writable" if number == errno.EROFS else "Free some space"
        return UnwritableFileError(
            f"{name or 'A file'} could not be written: {os.strerror(number)}. What was there before is still there. "
            f"{remedy}{_ELSEWHERE.get(command, '')}, then {again}."
        )
    if not number or not name:
        return None
    if number == errno.ENOENT:
        return MissingDataError(f"{name} is not there, or no more. Put it back, and {again}.")
    return UnwritableFileError(f"{os.strerror(number)}: {name}. Check the path, and what is there already.")


def number_and_file(error: OSError) -> tuple[int, str]:
    """Return the number of an error and the file that it names; 0 and an empty name where they are not known."""
    told = _WITHIN_TEXT.search(str(error))
    if error.errno is None and told is not None:
        return int(told.group(1)), told.group(2)
    if error.errno is None and _SHORT_WRITE.search(str(error)):
        return errno.ENOSPC, str(error.filename or "")
    return error.errno or 0, str(error.filename or "")
