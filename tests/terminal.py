"""A terminal, 80 columns wide, for what is printed in this process."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from threading import Thread

from rich.cells import cell_len

WIDTH = 80
_ESCAPE = r"\x1b\[([0-9;?]*)([A-Za-z])"
_COLOR = re.compile(r"[349][0-7]|10[0-7]|[34]8")


@dataclass
class Screen:
    """What a terminal received.

    Attributes:
        chunks: As it came.
    """

    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode().replace("\r\n", "\n")  # every terminal makes this of a line's end

    @property
    def escapes(self) -> list[str]:
        """The final letters of all escape sequences: `m` is a color or a weight, the others move the cursor."""
        return [match[2] for match in re.finditer(_ESCAPE, self.text)]

    @property
    def colors(self) -> list[str]:
        """The codes that choose a color, and no weight."""
        codes = [match[1].split(";") for match in re.finditer(_ESCAPE, self.text) if match[2] == "m"]
        return [code for several in codes for code in several if _COLOR.fullmatch(code)]

    @property
    def lines(self) -> list[str]:
        """As they could be read, one above the other, those of a bar as often as they were drawn."""
        return re.split(r"[\r\n]", re.sub(_ESCAPE, "", self.text))


@contextmanager
def terminal() -> Iterator[Screen]:
    """Let standard output and standard error be a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    screen = Screen()
    reader = Thread(target=_read, args=(ours, screen.chunks))
    reader.start()
    before = os.dup(1), os.dup(2)
    for number in (1, 2):
        os.dup2(theirs, number)
    try:
        with (
            open(1, "w", closefd=False, encoding="utf-8") as out,
            open(2, "w", closefd=False, encoding="utf-8") as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            yield screen
    finally:
        for number, file in zip((1, 2), before, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.close(theirs)
        reader.join()
        os.close(ours)


def too_wide(lines: list[str]) -> list[str]:
    """The lines of tables and bars that a terminal would break; sentences and paths may be broken."""
    laid_out = re.compile(r"\S {2,}\S|[─━│]")
    return [line for line in lines if cell_len(line) > WIDTH and laid_out.search(line)]


def _read(file: int, chunks: list[bytes]) -> None:
    while True:
        try:
            chunk = os.read(file, 65536)
        except OSError:  # how Linux says that the other side is closed
            return
        if not chunk:
            return
        chunks.append(chunk)
