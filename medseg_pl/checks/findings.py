"""Findings of `medseg check`, and the codes that name their kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""An error makes training fail or scores wrong, a warning is probably a fault, a note is worth knowing."""


class Code(NamedTuple):
    """One kind of finding; its name stays the same from release to release.

    Attributes:
        level: How bad it is.
        meaning: What is wrong, in a line.
        remedy: What to do, as a sentence.
    """

    level: Level
    meaning: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Args:
        code: The name of its kind.
        level: How bad it is.
        case_id: The case, or nothing where it is about the whole data set.
        file: The file that is at fault, or `None`.
        message: What was expected, and what came.
        remedy: What to do now.
    """

    code: str
    level: Level
    case_id: str
    file: Path | None
    message: str
    remedy: str


class Codes(dict[str, Code]):
    """The codes of one subject by name, declared beside the rules that find them."""

    def find(self, code: str, message: str, case_id: str = "", file: Path | None = None) -> Finding:
        """Make a finding of a declared kind."""
        level, _, remedy = self[code]
        return Finding(code, level, case_id, file, message, remedy)


def error(meaning: str, remedy: str) -> Code:
    """Declare a code that makes training fail or scores wrong."""
    return Code("error", meaning, remedy)


def warning(meaning: str, remedy: str) -> Code:
    """Declare a code that is probably a fault."""
    return Code("warning", meaning, remedy)


def note(meaning: str, remedy: str = "Nothing must be done.") -> Code:
    """Declare a code that is worth knowing."""
    return Code("note", meaning, remedy)
