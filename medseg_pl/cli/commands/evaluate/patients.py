"""Which patient each case is of, and what else is known of it: by a pattern in its name, or by a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from medseg_pl.core.errors import DataError
from medseg_pl.data.sources.base import abbreviate, find_group
from medseg_pl.data.sources.manifest import check_unique, choose_strata_columns, read_strata, read_table, require_field

_EXPECTED = "case_id, group and optionally site, scanner or others"


class Known(NamedTuple):
    """What is known of cases, by their ids.

    Attributes:
        groups: The patient of each case.
        strata: Such as `{"site": "north"}`, for each case.
    """

    groups: dict[str, str]
    strata: dict[str, dict[str, str]]


def known_by_name(names: Sequence[str], pattern: str | None, setting: str) -> Known:
    """Match the patient in each case's name; without a pattern each is its own.

    Raises:
        DataError: The pattern does not match every name.

    >>> known_by_name(["p1_a", "p1_b"], "^(p[0-9])", "--group").groups
    {'p1_a': 'p1', 'p1_b': 'p1'}
    """
    strangers = [name for name in names if pattern is not None and re.search(pattern, name) is None]
    if strangers:
        raise DataError(
            f"{setting} {pattern!r} does not match {len(strangers)} of {len(names)} cases: {abbreviate(strangers)}. "
            "Their patients are unknown; correct the pattern so that it matches every name."
        )
    return Known({name: find_group(name, pattern) for name in names}, {})


def known_by_table(names: Sequence[str], path: Path, strata: Sequence[str] | None) -> Known:
    """Patient and strata as a CSV gives them; rows of other cases are left alone.

    Args:
        names: The cases.
        path: The table.
        strata: The columns that are strata; `site` and `scanner` where they are there, by default.

    Raises:
        DataError: A column or a case is missing, stands twice, or has no group.
    """
    rows = read_table(path, ("case_id", "group"), _EXPECTED, "Set --cases to your CSV file.")
    columns = choose_strata_columns(rows[0][1], strata, path, "--strata")
    where = [f"{path}, line {number}" for number, _ in rows]
    ids = [normalize("NFC", require_field(row, "case_id", place)) for place, (_, row) in zip(where, rows, strict=True)]
    check_unique(ids, path)
    known = {name: (place, row) for name, place, (_, row) in zip(ids, where, rows, strict=True)}
    absent = [name for name in names if name not in known]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(names)} cases have no row in {path}: {abbreviate(absent)}. Add them; case_id is "
            "the file's name without suffix and with sub-folders."
        )
    groups = {name: require_field(known[name][1], "group", known[name][0]) for name in names}
    return Known(groups, {name: dict(read_strata(known[name][1], columns)) for name in names})
