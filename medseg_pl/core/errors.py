"""Errors that a user can cause, words and safe text for their messages, and the operating system's errors in words."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count, islice
from typing import Any


class MedsegError(Exception):
    """Something outside medseg is wrong: the data, a file, or a setting.

    The message says what was expected, what came instead, in which case and file, and what to do now. The
    command line prints it as one paragraph and exits with `exit_code`.
    """

    exit_code = 1


class SettingError(MedsegError):
    """A setting cannot work, whatever the data: wrong use of the command."""

    exit_code = 2


class DivergedError(MedsegError):
    """The network's numbers are no longer finite; the run yields no model."""

    REMEDY = "Lower model.optimizer's lr, set trainer.gradient_clip_val, or check the data with medseg check."


class OutOfMemoryError(MedsegError):
    """The settings ask for more memory than there is."""


class TooShortError(MedsegError):
    """A training is set to end before the state that it resumes."""


class WorkerDiedError(MedsegError):
    """A process that the run depends on has died."""


class LoggerError(MedsegError):
    """A logger's server cannot be reached, or does not let us in."""


class DataError(MedsegError):
    """The data cannot be used as it is."""


class MissingDataError(DataError):
    """A folder, a file or half of an image-mask pair is missing."""


class UnreadableFileError(DataError):
    """A file cannot be decoded, or is larger than allowed."""


class MaskValueError(DataError):
    """A mask holds a value that no label claims.

    Args:
        message: The text of the error.
        unclaimed: The whole values that labels should have; nothing where they are no labels.
        claimed: The values beside them that labels have.
    """

    def __init__(self, message: str, unclaimed: Iterable[int] = (), claimed: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.unclaimed = tuple(unclaimed)
        self.claimed = tuple(claimed)


class LabelOverlapError(MaskValueError):
    """A voxel carries several labels that exclude each other."""


class ForeignImageError(DataError):
    """An image is unlike what a model was trained on."""


class GeometryError(DataError):
    """An image's mask or channels lie on another grid."""


class ExportError(MedsegError):
    """A model cannot be exported, or does not compute the same afterwards."""


class UnwritableFileError(MedsegError):
    """A file cannot be written: the disk is full, read-only or broken."""


class FolderLockedError(MedsegError):
    """Another process holds a folder that only one may use."""


class PreemptedError(MedsegError):
    """The training stopped as asked and saved its state, to be resumed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class InterruptedRunError(MedsegError):
    """Somebody stopped the training, which saved its state.

    Args:
        message: The text of the error.
        exit_code: 128 plus the number of the signal, as a shell reports it: 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputExistsError(MedsegError):
    """Writing would replace something that is already there."""


_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"

# Control characters, line separators, turns of the text's direction, and halves of characters that UTF-8 cannot hold.
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def make_printable(text: str) -> str:
    r"""Replace what a terminal would obey and what UTF-8 cannot hold.

    >>> make_printable("a\x1b[2J\udcff.png")
    'a�[2J�.png'
    """
    return "".join(character if character.isprintable() else _NO_CHARACTER for character in text)


def replace_controls(text: str) -> str:
    r"""Replace control characters, which no text file should hold; keep all spaces.

    >>> replace_controls("a\x1b[2J\u00a0b")
    'a�[2J\xa0b'
    """
    return _CONTROLS.sub(_NO_CHARACTER, text)


def shorten(text: str, most: int = 80) -> str:
    """Quote a stranger's text for an error, printable and short.

    >>> shorten("a" * 9, most=5)
    "'aaaaa…'"
    """
    return f"'{make_printable(text[:most])}{'…' if len(text) > most else ''}'"


_SETTING = re.compile(r"(?:--)?(?:data\.source(?:\.init_args)?|(?:model\.)?labels)\.(\w+)")
_OTHER_OPTIONS = {"root": "data_root", "names": "labels", "values": "labels"}


def name_options(text: str, arguments: Mapping[str, Any], error: MedsegError | None = None) -> str:
    """Name settings in a message as options of the command that shows it.

    Args:
        text: The message.
        arguments: Those of the command. With `config` the settings are that file's, and keep their names.
        error: What the message is of; it may know the values that labels should have.

    >>> name_options("Correct data.source.group, or set data.source.raters.", {"group": None})
    'Correct --group, or set data.source.raters.'
    """
    if arguments.get("config"):
        return text

    def replace(match: re.Match[str]) -> str:
        option = _OTHER_OPTIONS.get(match[1], match[1])
        return f"--{option}" if option in arguments else match[0]

    if "labels" in arguments:
        known = error if isinstance(error, MaskValueError) and error.unclaimed else None
        given = arguments["labels"] or {}
        example = suggest_labels(given, known.unclaimed, known.claimed) if known else "VALUE=NAME"
        text = text.replace("with labels.names and labels.values", f"as in --labels {example}")
        text = text.replace("labels.names and labels.values", "--labels VALUE=NAME")
    return _SETTING.sub(replace, text)


def suggest_labels(labels: Mapping[str, int | None], unclaimed: Iterable[int], claimed: Iterable[int] = ()) -> str:
    """Write labels as an option that names every value of the masks.

    Args:
        labels: The named labels with their values; `None` for 1, 2, 3 …, or for 1 or 255 where there is one label.
        unclaimed: The values in the masks that none of them has.
        claimed: The values in the masks that one of them has.

    >>> suggest_labels({"liver": None}, [2], [1]), suggest_labels({"nuclei": None}, [233])
    ('1=liver,2=other', '233=nuclei')
    """
    names = _name_values(labels, unclaimed, claimed)
    rest = sorted({*claimed, *unclaimed} - names.keys())
    single = ("other" if names or claimed else "lesion",) if len(rest) == 1 else ()
    for value in rest:
        # A label may be called label_7 and have another value.
        candidates = chain(single, (f"label_{value}",), (f"label_{value}_{number}" for number in count(2)))
        names[value] = next(name for name in candidates if name not in {*labels, *names.values()})
    return ",".join(f"{value}={names[value]}" for value in sorted(names))


def _name_values(labels: Mapping[str, int | None], unclaimed: Iterable[int], claimed: Iterable[int]) -> dict[int, str]:
    """Assign named labels to values, as far as they have them or can have them."""
    names = {value: name for name, value in labels.items() if value is not None}
    without = [name for name, value in labels.items() if value is None]
    claimed, unclaimed = sorted({*claimed} - names.keys()), sorted({*unclaimed} - names.keys())
    values: Iterator[int] = (value for value in count(1) if value not in names)
    if not claimed and len(unclaimed) >= len(without):
        values = iter(unclaimed)  # masks that hold nothing of what was expected hold the same labels by other values
    elif claimed and len(without) == 1:
        values = iter(claimed)
    return names | dict(zip(list(islice(values, len(without))), without, strict=True))


def strip_remedy(message: str) -> str:
    """Drop the advice at the end of an error's message.

    >>> strip_remedy("No mask. Add one.")
    'No mask.'
    """
    # A point within a number or a file's name has no space behind it.
    sentences = message.split(". ")
    return ". ".join(sentences[:-1]) + "." if len(sentences) > 1 else message


def count_noun(amount: int, one: str, several: str | None = None) -> str:
    """Write an amount with its noun and the verb that follows.

    >>> count_noun(1, "case"), count_noun(3, "case"), count_noun(1, "case is", "cases are")
    ('1 case', '3 cases', '1 case is')
    """
    return f"{amount} {one if amount == 1 else several or f'{one}s'}"


def count_part(part: int, whole: int, noun: str, verb: str, verbs: str) -> str:
    """Write how many of how many, with the verb that follows.

    >>> count_part(1, 12, "case", "has", "have"), count_part(2, 12, "case", "has", "have")
    ('1 of 12 cases has', '2 of 12 cases have')
    """
    return f"{part} of {count_noun(whole, noun)} {verb if part == 1 else verbs}"


def get_first_line(error: BaseException) -> str:
    r"""Return the first line of an error's text, or its name.

    >>> get_first_line(ValueError("wrong size.\nMore on it."))
    'wrong size'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")[:300]


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
"""A file cannot be written, whatever its name is."""

# Where else the files of a command may go; scores belong beside their checkpoint
_ELSEWHERE = {
    **dict.fromkeys(("crossval", "fit"), " or choose another folder with --runs"),
    "predict": " or choose another folder with --output",
    **dict.fromkeys(
        ("evaluate", "export", "plan", "postprocess", "report", "review"), " or choose another place with -o"
    ),
    **dict.fromkeys(("new", "phantom"), " or choose another folder"),
}

# How numpy and Pillow say that a disk is full: without its number
_SHORT_WRITE = re.compile(r"\d+ requested and -?\d+ written|error -?\d+ when writing")

# How the text of an `OSError` looks; of one from a loading process torch keeps nothing else
_WITHIN_TEXT = re.compile(r"\[Errno (\d+)\] .+?: '([^']+)'")


@contextmanager
def convert_file_errors(command: str) -> Iterator[None]:
    """Convert errors of the file system within the block to a `MedsegError`.

    Args:
        command: The command that is running; the remedies depend on it.

    Raises:
        MedsegError: The operating system reported an error about a file.
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
    """Explain what is wrong with which file, and what to do.

    Args:
        error: What the operating system reported.
        command: The command that is running; the remedies depend on it.

    Returns:
        The error to raise instead; `None` where the report names no file.
    """
    number, name = parse_file_error(error)
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


def parse_file_error(error: OSError) -> tuple[int, str]:
    """Return an error's number and the file that it names.

    Returns:
        0 and an empty name where they are unknown.
    """
    told = _WITHIN_TEXT.search(str(error))
    if error.errno is None and told is not None:
        return int(told.group(1)), told.group(2)
    if error.errno is None and _SHORT_WRITE.search(str(error)):
        return errno.ENOSPC, str(error.filename or "")
    return error.errno or 0, str(error.filename or "")
