"""Work on many cases: a pool of threads that ends with it, and a progress bar on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from medseg_pl.core.errors import make_printable


@contextmanager
def open_thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that starts no task after an error.

    A `ThreadPoolExecutor` by itself finishes all that was submitted first, of a large data set for hours, even after
    Ctrl-C.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def can_redraw(console: Console) -> bool:
    """Check whether a console can redraw a line: no file, no TERM=dumb."""
    return console.is_interactive and console.file.isatty()


def announce(doing: str) -> None:
    """Print what takes a while on standard error, terminal or not.

    Args:
        doing: Such as `Reading 12 cases`.
    """
    sys.stderr.write(f"{make_printable(doing)} …\n")
    sys.stderr.flush()


def announce_choice(path: Path) -> None:
    """Print on standard error which file a word or folder stands for.

    Of several processes on a machine, the first one does.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        sys.stderr.write(f"Using {make_printable(str(path))}\n")
        sys.stderr.flush()


@contextmanager
def show_progress(doing: str, total: int, *, things: str = "cases", show: bool = True) -> Iterator[Callable[[], None]]:
    """Show progress with its rate and the time left.

    Args:
        doing: What goes on, such as `Reading cases`.
        total: The number of things.
        things: What they are.
        show: Whether to show anything; only a terminal ever does.

    Yields:
        To be called after each of them.
    """
    # Standard output is for results, which may be piped to another program.
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(things), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and can_redraw(console))) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
