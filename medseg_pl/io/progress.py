"""A progress bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def can_redraw(console: Console) -> bool:
    """Check whether a console can redraw a line: no file, no TERM=dumb."""
    return console.is_interactive and console.file.isatty()


@contextmanager
def show_progress(doing: str, total: int, *, things: str = "cases", show: bool = True) -> Iterator[Callable[[], None]]:
    """Show how much is done, how fast, and how long the rest will take.

    Args:
        doing: What goes on, such as `Reading cases`.
        total: How many there are.
        things: Of what.
        show: Whether anybody is to see it; on a terminal only, in any case.

    Yields:
        To be called after each of them.
    """
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(things), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and can_redraw(console))) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
