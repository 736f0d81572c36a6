"""The table of scores and its summary, as bytes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import OutputExistsError
from medseg_pl.io.scores import numbered, write_rows, write_summary


def test_a_table_as_bytes(tmp_path: Path) -> None:
    rows = [
        {"case_id": "a, b", "dice": 0.1 + 0.2, "tp": 12},
        {"case_id": 'say "c"', "dice": math.nan, "tp": 0},
    ]
    write_rows(tmp_path / "scores.csv", rows)
    assert (tmp_path / "scores.csv").read_bytes() == (
        b'case_id,dice,tp\n"a, b",0.30000000000000004,12\n"say ""c""",,0\n'
    )


def test_floats_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    values = [*np.random.default_rng(0).random(50), 1e-300, 2.0**60, math.inf]
    write_rows(tmp_path / "scores.csv", [{"value": value} for value in values])
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == values


def test_rows_with_different_columns_leave_fields_empty(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.csv", [{"a": 1}, {"b": "x", "a": 2}, {"c": 0.5}])
    assert (tmp_path / "scores.csv").read_text() == "a,b,c\n1,,\n2,x,\n,,0.5\n"


def test_a_table_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    write_rows(target, [{"a": 1}])
    with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
        write_rows(target, [{"a": 2}])
    assert target.read_text() == "a\n1\n"
    write_rows(target, [{"a": 2}], replace=True)
    assert target.read_text() == "a\n2\n"


def test_a_summary_is_plain_json(tmp_path: Path) -> None:
    summary = {"foreground_mean": {"dice": 0.75}, "labels": {"spleen": {"std": None, "ci95": [0.5, 1.0]}}}
    write_summary(tmp_path / "summary.json", summary)
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == summary
    assert text.endswith("}\n")


def test_a_summary_with_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_summary(tmp_path / "summary.json", {"dice": math.nan})
    assert not list(tmp_path.iterdir())


def test_taken_names_are_counted_on(tmp_path: Path) -> None:
    taken = []
    for _ in range(3):
        (path,) = numbered(tmp_path, "scores_test.csv")
        path.touch()
        taken.append(path.name)
    assert taken == ["scores_test.csv", "scores_test_2.csv", "scores_test_3.csv"]


@pytest.mark.parametrize("taken", ["scores_val.csv", "summary_val.json"])
def test_files_that_belong_together_share_a_number(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).touch()
    paths = numbered(tmp_path, "scores_val.csv", "summary_val.json")
    assert paths == [tmp_path / "scores_val_2.csv", tmp_path / "summary_val_2.json"]


def test_a_number_must_be_free_for_all_of_them(tmp_path: Path) -> None:
    for name in ("scores.csv", "summary_2.json"):
        (tmp_path / name).touch()
    names = [path.name for path in numbered(tmp_path, "scores.csv", "summary.json")]
    assert names == ["scores_3.csv", "summary_3.json"]
