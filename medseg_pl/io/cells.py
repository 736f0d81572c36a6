"""Text in the fields of a CSV: nothing that a spreadsheet computes, or that a terminal obeys."""

from __future__ import annotations

from medseg_pl.core.text import replace_controls

_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001  spreadsheets take wide ones as well
_MARK = "'"
"""In front of a field, it tells a spreadsheet that text follows."""


def write_cell(text: str) -> str:
    r"""Return text as a field: printable, and with a mark in front where a spreadsheet would see a formula.

    >>> [write_cell(text) for text in ("=1+1", "a\x1b[2J", "-0.5", "'=1", "stomach")]
    ["'=1+1", 'a�[2J', '-0.5', "''=1", 'stomach']
    """
    shown = replace_controls(text)
    return f"{_MARK}{shown}" if _is_formula(shown.lstrip(_MARK)) else shown


def read_cell(field: str) -> str:
    """Undo `write_cell`, but for what could not be printed.

    >>> [read_cell(field) for field in ("'=1+1", "-0.5", "''=1", "'quoted'")]
    ['=1+1', '-0.5', "'=1", "'quoted'"]
    """
    marked = field.startswith(_MARK) and _is_formula(field.lstrip(_MARK))
    return field.removeprefix(_MARK) if marked else field


def _is_formula(text: str) -> bool:
    if not text.startswith(_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
