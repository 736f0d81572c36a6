"""What a data set has to answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.recorded import Recorded
from medseg_pl.core.types import Case, Volume
from medseg_pl.io.atomic_files import LeftOut


class Source(Recorded, ABC):
    """A data set: which cases there are, and how one is read and written.

    A source of your own is one file with a subclass; it enters by its `class_path` in the configuration. Nothing is
    decoded in `cases`, and `read` is called once for each case: what it returns is kept in the store.
    """

    @abstractmethod
    def cases(self) -> list[Case]:
        """All cases, sorted by `case_id`, with their files but without their pixels.

        Raises:
            MissingDataError: A folder, a file or one half of a pair is not there.
        """

    @abstractmethod
    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case; its mask is `None` if the case has none.

        Raises:
            DataError: A file cannot be used as it is.
        """

    @abstractmethod
    def unlabeled(self, directory: Path) -> Source:
        """A source over images of the same kind without masks: the input of `predict`, a folder or a single file.

        What is no case there is for `left_out` to name: it keeps `cases` from no other.
        """

    @abstractmethod
    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """Write a predicted mask in the format and on the grid of the case's own files."""

    def left_out(self) -> list[LeftOut]:
        """List the inputs that are in no case, and why, so that none is left out without a word."""
        return []

    def finish(self, directory: Path) -> None:
        """Called once all cases are written, for formats that join them in one file.

        Called again where a prediction was interrupted, so it replaces what it wrote before.
        """

    def reading_settings(self) -> tuple[object, ...]:
        """Settings that change what `read` returns for the same files; a change makes the store read again.

        All attributes unless a source knows better: a root, for example, may change without the pixels changing.
        """
        return tuple(sorted((name, repr(value)) for name, value in vars(self).items() if name[0] != "_"))

    def writing_settings(self) -> tuple[object, ...]:
        """Settings that change what `write` makes of the same mask: results of others are not added to a folder."""
        return ()


def group_of(case_id: str, pattern: str | None) -> str:
    """The patient in a case's name: what the parentheses of the pattern match; without a pattern the case itself.

    >>> group_of("Image_01L", "Image_([0-9]+)")
    '01'
    """
    if pattern is None:
        return case_id
    match = re.search(pattern, case_id)
    if match is None:
        raise DataError(
            f"The group pattern {pattern!r} does not match the case {case_id!r}, so its patient is unknown and a split "
            "could leak. Correct data.source.group so that it matches every name."
        )
    return "_".join(part for part in match.groups() if part is not None) or match.group(0)


def check_pattern(pattern: str | None) -> None:
    """Raise `SettingError` where a group pattern is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise SettingError(f"data.source.group {pattern!r} is not a regular expression: {error}.") from None


def shown(names: list[str], most: int = 3) -> str:
    """A list for an error message that stays readable with a thousand entries.

    >>> shown(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
