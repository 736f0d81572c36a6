"""Where scores differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.reporting.run import read_run
from medseg_pl.reporting.subgroups import find_weakest, list_size_thirds, list_strata
from medseg_pl.reporting.summary import find_weaknesses
from tests.reporting.run_folders import score, write_run


def test_thirds_by_size_are_means_of_the_cases_in_them(tmp_path: Path) -> None:
    dice = [0.2, 0.4, 0.6, 0.6, 0.9, 0.8]
    table = [score(f"c{i}", f"p{i}", "liver", each, size=100 * (i + 1)) for i, each in enumerate(dice)]
    sizes = list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None))
    assert [(each.cases, each.mean) for each in sizes] == [(2, pytest.approx(m)) for m in (0.3, 0.6, 0.85)]
    assert sizes[0].value == "smallest third, 1 to 2 ml"
    assert find_weakest(sizes) == sizes[0]


def test_few_cases_are_not_told_apart_by_size(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", 0.5) for i in range(5)]
    assert list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None)) == []


def test_strata_are_those_of_the_summary(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", dice) for i, dice in enumerate([0.9, 0.5, 0.8, 0.4])]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    found = {each.value: (each.kind, each.cases, each.mean) for each in list_strata(run)}
    assert found == {"north": ("site", 2, pytest.approx(0.85)), "south": ("site", 2, pytest.approx(0.45))}
    assert "Weakest by site: south (2 cases, Dice 0.450)." in find_weaknesses(run).sentences
