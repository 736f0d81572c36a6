"""The table of scores and its summary, as files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_pl.io.files import write_text

Row = Mapping[str, str | int | float]


def write_rows(path: Path, rows: Sequence[Row], *, replace: bool = False) -> None:
    """Write rows as CSV: one column for each name, numbers in full precision, NaN as an empty field."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(name, "")) for name in columns] for row in rows)
    write_text(path, buffer.getvalue(), replace=replace)


def write_summary(path: Path, summary: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write a summary as JSON that any parser reads: no NaN."""
    write_text(path, json.dumps(summary, indent=1, allow_nan=False) + "\n", replace=replace)


def numbered(directory: Path, *names: str) -> list[Path]:
    """Paths of files that belong together, `name_2`, `name_3` … where one of them is taken: nothing is overwritten.

    >>> [path.name for path in numbered(Path("nowhere"), "scores.csv", "summary.json")]
    ['scores.csv', 'summary.json']
    """
    paths, number = [directory / name for name in names], 1
    while any(path.exists() for path in paths):
        number += 1
        paths = [directory / f"{Path(name).stem}_{number}{Path(name).suffix}" for name in names]
    return paths


def _field(value: str | int | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))  # numpy's own repr names its type
    return str(value)
