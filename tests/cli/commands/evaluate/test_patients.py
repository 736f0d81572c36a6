"""Whose cases are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.cli.commands.evaluate.patients import known_by_name, known_by_table
from medseg_pl.core.errors import DataError, MissingDataError, SettingError


def table(root: Path, *lines: str) -> Path:
    (root / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "cases.csv"


def test_without_a_pattern_each_case_is_its_own_patient() -> None:
    assert known_by_name(["a", "b"], None, "--group") == ({"a": "a", "b": "b"}, {})


def test_a_pattern_has_to_match_every_name() -> None:
    with pytest.raises(DataError) as error:
        known_by_name(["p1_a", "x", "y"], "^(p[0-9])_", "--group")
    assert str(error.value) == (
        "--group '^(p[0-9])_' does not match 2 of 3 cases: x, y. Their patients are unknown; correct the pattern so "
        "that it matches every name."
    )


def test_a_table_knows_patients_and_strata(tmp_path: Path) -> None:
    path = table(tmp_path, "scanner,case_id,group,age", "X, a ,p1,40", ",b,p1,", "Y,other,,", "Y,c,p2,50")
    known = known_by_table(["a", "b", "c"], path, None)
    assert known.groups == {"a": "p1", "b": "p1", "c": "p2"}
    assert known.strata == {"a": {"scanner": "X"}, "b": {}, "c": {"scanner": "Y"}}
    assert known_by_table(["a", "b"], path, ["age"]).strata == {"a": {"age": "40"}, "b": {}}


def test_what_a_table_may_lack(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.csv does not exist\. Set --cases to your CSV file\."):
        known_by_table(["a"], tmp_path / "none.csv", None)
    with pytest.raises(DataError, match=r"lacks the column\(s\) group; expected case_id, group and optionally site, "):
        known_by_table(["a"], table(tmp_path, "case_id,patient", "a,p1"), None)
    with pytest.raises(DataError, match=r"lacks the column\(s\) vendor that --strata names; got case_id, group, site"):
        known_by_table(["a"], table(tmp_path, "case_id,group,site", "a,p1,"), ["site", "vendor"])
    with pytest.raises(SettingError, match="--strata names group, which is a column of every table of scores already"):
        known_by_table(["a"], table(tmp_path, "case_id,group", "a,p1"), ["group"])
    with pytest.raises(DataError, match=r"cases\.csv: case_id stands in several rows: a\. Give each its own\."):
        known_by_table(["a"], table(tmp_path, "case_id,group", "a,p1", "a,p2"), None)
    with pytest.raises(DataError, match=r"cases\.csv, line 3: the column group is empty\."):
        known_by_table(["a"], table(tmp_path, "case_id,group", "b,p1", "a, "), None)
    with pytest.raises(DataError) as error:
        known_by_table(["a", "b", "c"], table(tmp_path, "case_id,group", "b,p1"), None)
    assert str(error.value) == (
        f"2 of 3 cases have no row in {tmp_path / 'cases.csv'}: a, c. Add them; case_id is the file's name without "
        "suffix and with sub-folders."
    )
