"""What is drawn of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg_pl.reporting.html import figures
from medseg_pl.reporting.run import read_run
from tests.reporting.run_folders import score, write_run


def test_every_case_is_a_point_that_leads_to_it(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", 0.5 + i / 20) for i in range(7)]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    drawn = figures.distribution([run], "dice", "Dice", {f"c{i}": 10 + i for i in range(7)})
    assert sorted(re.findall(r'<a href="#case-(\d+)">', drawn)) == [str(10 + i) for i in range(7)]


def test_of_very_many_cases_the_extremes_are_among_the_points(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", (i + 1) / 1000) for i in range(900)]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    drawn = figures.distribution([run], "dice", "Dice", {f"c{i}": i for i in range(900)})
    shown = {int(place) for place in re.findall(r"#case-(\d+)", drawn)}
    assert {0, 899} <= shown and len(shown) == 400


@pytest.mark.parametrize(("last", "points"), [(25, 2), (35, 3)])
def test_the_validation_of_the_best_weights_is_no_point_of_the_curve(tmp_path: Path, last: int, points: int) -> None:
    run_folder = write_run(tmp_path, [score("a", "p", "liver", 0.5)], ["liver"])
    (run_folder / "metrics.csv").write_text(f"step,val/dice\n11,0.5\n24,0.6\n{last},0.7\n")
    run = read_run(run_folder, None)
    assert len(figures._logged(run, "val/dice")) == points


def test_what_was_not_logged_is_not_drawn(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [score("a", "p", "liver", 0.5)], ["liver"]), None)
    assert figures.curves(run, {"val/nothing": ("nothing", 0)}, "nothing", "x") is None
    assert figures.reliability({}, ["liver"], "x") is None


def test_many_labels_have_no_legend_that_hides_the_drawing(tmp_path: Path) -> None:
    labels = [f"structure_{i}" for i in range(20)]
    run = read_run(write_run(tmp_path, [score("a", "p", label, 0.5) for label in labels], labels), None)
    drawn = figures.size_and_score(run, {"a": 0}, "x")
    assert drawn and "structure_3" not in drawn
