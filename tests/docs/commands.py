"""The commands that the documentation tells a reader to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

PAGES = (Path("README.md"), *sorted(Path("docs").glob("*.md")))
ELSEWHERE = (
    *("cd", "make", "mkdir", "pip", "python", "python3", "sbatch", "source", "torchrun", "wandb"),
    ".venv/bin/pip",
)
"""Programs of others that pages name; their lines are not run here."""


class Command(NamedTuple):
    """A line of a page, split as a shell does.

    Attributes:
        page: Where it stands.
        line: The number of its (first) line.
        words: The program and its arguments.
    """

    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def commands(page: Path) -> list[Command]:
    """Every command in the ```bash blocks of a page, in order: continued lines joined, comments dropped."""
    found = []
    for start, block in blocks(page, "bash"):
        joined = re.sub(r"\\\n", lambda _: "\0", block)
        line = start
        for text in joined.splitlines():
            optional = re.sub(r"\[(--[^\]]*)\]", r"\1", text)  # what a page calls optional is tried, too
            for words in _split(optional.replace("\0", " ")):
                found.append(Command(page, line, tuple(words)))
            line += 1 + text.count("\0")
    return found


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    matches = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in matches]


def _split(text: str) -> list[list[str]]:
    """The commands of one line, with `&&` between them; where a shell puts the output is no part of them."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(re.sub(r" > \S+", "", text), comments=True):
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]
