"""No field of a table is computed by a spreadsheet, and each is read as it was written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.text import replace_controls
from medseg_pl.io.cells import read_cell, write_cell
from medseg_pl.io.scores import read_rows, write_rows

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", '=HYPERLINK("http://h","a")', "＝1+1", "'=1"]  # noqa: RUF001


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert write_cell(text)[0] == "'"
    assert read_cell(write_cell(text)) == text


@given(st.text(alphabet=st.sampled_from("'=+-@a1. \t\x1b＝")))  # noqa: RUF001
def test_every_text_comes_back(text: str) -> None:
    assert read_cell(write_cell(text)) == replace_controls(text)


def test_a_table_of_scores_holds_no_formula_and_no_escape_code(tmp_path: Path) -> None:
    row = {"case_id": "=1+1", "group": "@g", "label": "a", "status": "ok", "dice": -0.5, "=site": "no\x1b[2Jrth"}
    write_rows(tmp_path / "scores.csv", [row])
    text = (tmp_path / "scores.csv").read_text()
    assert "\x1b" not in text
    with (tmp_path / "scores.csv").open(newline="") as file:
        fields = [field for line in csv.reader(file) for field in line]
    assert [field for field in fields if field[0] in "=+@"] == []
    (again,) = read_rows(tmp_path / "scores.csv")
    assert again == {**row, "=site": "no�[2Jrth"}
    assert "-0.5" in fields  # numbers stay numbers
