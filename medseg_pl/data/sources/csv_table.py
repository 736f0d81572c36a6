"""Tables of cases in CSV files: their rows, and the columns by which scores are also reported."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.data.sources.base import abbreviate

STRATA = ("site", "scanner")
"""Columns that are strata without being named, where a table has them."""

_COLUMNS_OF_SCORES = (
    *("case_id", "group", "label", "status", "unit"),
    *("tp", "fp", "fn", "dice", "iou", "precision", "recall", "hd_mm", "hd95_mm", "assd_mm", "nsd"),
    *("volume_reference_ml", "volume_prediction_ml", "volume_difference_ml"),
)
"""What a stratum may not be called, since it becomes a column beside these."""


def read_text(path: Path, remedy: str) -> str:
    """Read a table, whether or not it is marked as UTF-8."""
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. {remedy}")
    try:
        # Excel begins UTF-8 with a byte order mark
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}. Save it as UTF-8 from your spreadsheet.") from None


def read_table(path: Path, needed: Collection[str], expected: str, remedy: str) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV with the lines they end on.

    Args:
        path: The table.
        needed: Columns that must be there.
        expected: All columns that could be, for an error.
        remedy: What to do where there is no such file.

    Raises:
        DataError: A column is missing.
        MissingDataError: There is no such file, or it has no rows.
    """
    text = read_text(path, remedy)
    try:
        reader = csv.DictReader(io.StringIO(text))
        columns = reader.fieldnames or ()
        # What a row has beyond the header's columns, the reader gives under no name.
        rows = [(reader.line_num, {name: field for name, field in row.items() if name is not None}) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}. Save it anew from your spreadsheet.") from None
    missing = set(needed) - set(columns)
    if missing:
        raise DataError(
            f"{path} lacks the column(s) {', '.join(sorted(missing))}; expected {expected}; got {', '.join(columns)}."
        )
    if not rows:
        raise MissingDataError(f"{path} has no rows.")
    return rows


def check_unique(names: Sequence[str], path: Path) -> None:
    """Raise `DataError` where a case stands in several rows of a table."""
    if len(set(names)) < len(names):
        repeated = [name for name, rows in Counter(names).items() if rows > 1]
        raise DataError(f"{path}: case_id stands in several rows: {abbreviate(sorted(repeated))}. Give each its own.")


def choose_strata_columns(columns: Collection[str], named: Sequence[str] | None, path: Path, setting: str) -> list[str]:
    """Choose the columns that are strata.

    Args:
        columns: All that the table has.
        named: What was asked for; `None` where nobody said.
        path: What the table is called in an error.
        setting: The setting that names them.

    Raises:
        DataError: A named column is not there.
        SettingError: A name is that of a column that every table of scores has.
    """
    if named is None:
        return [name for name in STRATA if name in columns]
    taken = [name for name in named if name in _COLUMNS_OF_SCORES]
    if taken:
        raise SettingError(
            f"{setting} names {abbreviate(taken)}, which is a column of every table of scores already. Leave it out."
        )
    missing = [name for name in named if name not in columns]
    if missing:
        raise DataError(
            f"{path} lacks the column(s) {', '.join(missing)} that {setting} names; got {', '.join(columns)}."
        )
    return list(dict.fromkeys(named))  # each once, in the order of the setting


def read_strata(row: Mapping[str, str | None], columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read the strata that a row fills in.

    >>> read_strata({"case_id": "a", "site": "north", "scanner": " "}, ["site", "scanner"])
    (('site', 'north'),)
    """
    values = ((name, (row[name] or "").strip()) for name in columns)
    return tuple((name, value) for name, value in values if value)


def require_field(row: Mapping[str, str | None], column: str, where: str) -> str:
    """Return the field of a row; raise `DataError` where it is empty."""
    value = (row[column] or "").strip()
    if not value:
        raise DataError(f"{where}: the column {column} is empty. Fill it in or remove the row.")
    return value
