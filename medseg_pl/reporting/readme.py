"""The blocks of a README that a run fills."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.reporting import Run
from medseg_pl.reporting.markdown import write_blocks


def fill_readme(path: Path, run: Run) -> tuple[bool, list[str]]:
    """Write what the run says between the marks of a README, and nothing elsewhere.

    Returns:
        Whether the file changed, and the blocks that it has no marks for.

    Raises:
        MissingDataError: There is no such file.
        SettingError: It is no UTF-8, or its marks are missing or damaged.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no {path}. Name a README with marks, such as that of medseg new.")
    try:
        before = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not in UTF-8: {error}. Save it as UTF-8.") from None
    blocks = write_blocks(run)
    after = fill_markers(before, blocks, str(path))
    if after != before:
        target = path.resolve()  # a link stays a link
        with write_atomically(target, replace=True) as temporary:
            temporary.write_bytes(after.encode())
            temporary.chmod(target.stat().st_mode)
    return after != before, find_missing_markers(before, blocks)


_MARK = re.compile(r"<!-- (/?)medseg:(\w+) -->")


def fill_markers(text: str, blocks: Mapping[str, str], what: str) -> str:
    r"""Put each block between its marks; all else stays as it is, to the last byte.

    Args:
        text: With at least one pair of marks.
        blocks: What goes between the marks of each name. Those without marks are left out.
        what: What to call the text in an error.

    Raises:
        SettingError: There are no marks, or they do not come in pairs, or have a name that no block has.

    >>> fill_markers("My words.\n<!-- medseg:model -->old<!-- /medseg:model -->\n", {"model": "new"}, "README.md")
    'My words.\n<!-- medseg:model -->\nnew\n<!-- /medseg:model -->\n'
    """
    marks = list(_MARK.finditer(text))
    _check_marks([(not mark[1], mark[2]) for mark in marks], blocks, what)
    line_end = "\r\n" if "\r\n" in text else "\n"
    for begin, end in reversed(list(zip(marks[::2], marks[1::2], strict=True))):
        block = line_end.join(["", *_strip_marks(blocks[begin[2]]).strip("\n").split("\n"), ""])
        text = f"{text[: begin.end()]}{block}{text[end.start() :]}"
    return text


def find_missing_markers(text: str, blocks: Mapping[str, str]) -> list[str]:
    """Find the blocks for which the text has no markers."""
    marked = {mark[2] for mark in _MARK.finditer(text)}
    return [name for name in blocks if name not in marked]


def _check_marks(marks: list[tuple[bool, str]], blocks: Mapping[str, str], what: str) -> None:
    example = "<!-- medseg:{0} --> and <!-- /medseg:{0} -->"
    if not marks:
        raise SettingError(
            f"{what} has no place for what the run says. Put lines such as {example.format('evaluate')} where it is to "
            f"stand; there can be a pair for each of {', '.join(blocks)}."
        )
    for _, name in marks:
        if name not in blocks:
            near = difflib.get_close_matches(name, blocks, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(blocks)}."
            raise SettingError(f"{what} has marks for {name!r}, of which a run says nothing. {hint}")
    names = [name for begins, name in marks if begins]
    for name in dict.fromkeys(name for _, name in marks):
        order = [begins for begins, other in marks if other == name]
        if order != [True, False]:
            raise SettingError(
                f"{what} needs {example.format(name)} once each, in this order; found {order.count(True)} of the first "
                f"and {order.count(False)} of the second. Correct the marks; nothing was written."
            )
    if [name for _, name in marks] != [name for name in names for _ in range(2)]:
        raise SettingError(
            f"The marks of {what} are inside each other. Close each before the next; nothing was written."
        )


def _strip_marks(block: str) -> str:
    """Strip what would be taken for a marker when the file is read again."""
    return block.replace("<!--", "<! --").replace("-->", "-- >")
