"""Splits as data sets and files declare them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.checks.split_checks import declared_sides, sides_in_file
from medseg_pl.core.types import Case
from tests.checks.facts_of import case_of, codes


def cases(**declared: Any) -> list[Case]:
    return [
        replace(
            case_of(name), split=value if isinstance(value, str) else None, fold=value if value in range(9) else None
        )
        for name, value in declared.items()
    ]


def test_nothing_is_declared() -> None:
    assert declared_sides(cases(a=None, b=None)) == ([], [])


def test_a_split() -> None:
    assert declared_sides(cases(a="train", b="val", c="test")) == ([{"train": ["a"], "val": ["b"], "test": ["c"]}], [])


def test_folds() -> None:
    splits, found = declared_sides(cases(a=0, b=1, c=1, d="test"))
    assert found == []
    assert splits == [
        {"train": ["b", "c"], "val": ["a"], "test": ["d"]},
        {"train": ["a"], "val": ["b", "c"], "test": ["d"]},
    ]


def test_some_cases_declare_nothing() -> None:
    _, found = declared_sides(cases(a="train", b="val", c=None))
    assert codes(found) == ["split-invalid"]
    assert "1 of 3 cases declare neither split nor fold: c." in found[0].message


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    known = cases(a=None, b=None)
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "origin": "x"}))
    assert sides_in_file(path, known) == ([{"train": ["a"], "val": ["b"], "test": []}], [])
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    assert len(sides_in_file(path, known)[0]) == 2
    path.write_text(json.dumps({"train": ["a"], "val": ["x"]}))
    splits, found = sides_in_file(path, known)
    assert (len(splits), codes(found)) == (1, ["split-invalid"])
    assert found[0].message == "The split names 1 cases that are not there: x."


@pytest.mark.parametrize("content", ["", "{", "3", "[3]", '{"train": 3}', '"text"'])
def test_files_that_are_no_split(tmp_path: Path, content: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content)
    splits, found = sides_in_file(path, [])
    assert (splits, codes(found)) == ([], ["split-invalid"])
    assert codes(sides_in_file(tmp_path / "nowhere.json", [])[1]) == ["split-invalid"]
