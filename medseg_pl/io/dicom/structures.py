"""What the structures of a reference are called, whether segments of a SEG or regions of an RTSTRUCT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

Key = int | str
"""A structure by its number in the file or by its name."""


class Structure(NamedTuple):
    """A segment or a region of interest.

    Attributes:
        number: What the rest of the file refers to it by.
        name: What the person who drew it called it.
    """

    number: int
    name: str


def matching(structures: Sequence[Structure], keys: Sequence[Key]) -> list[int]:
    """The numbers of the structures that any of the keys means.

    Names are equal in any case, and whether words are joined by spaces or underscores.

    >>> matching([Structure(1, "Left Kidney"), Structure(2, "liver")], ["left_kidney", 2])
    [1, 2]
    """
    names = {_plain(key) for key in keys if isinstance(key, str)}
    numbers = {key for key in keys if isinstance(key, int)}
    return [number for number, name in structures if number in numbers or _plain(name) in names]


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).strip().casefold()
