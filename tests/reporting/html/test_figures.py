"""What is drawn of a run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from medseg_pl.reporting.html import figures
from medseg_pl.reporting.html.figures import INK, Curve, draw_svg, pick_series_color
from medseg_pl.reporting.run import read_run
from tests.reporting.run_folders import score, write_run


def test_every_case_is_a_point_that_leads_to_it(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", 0.5 + i / 20) for i in range(7)]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    drawn = figures.draw_distribution([run], "dice", "Dice", {f"c{i}": 10 + i for i in range(7)})
    assert sorted(re.findall(r'<a href="#case-(\d+)">', drawn)) == [str(10 + i) for i in range(7)]


@pytest.mark.parametrize(("worst", "ticks"), [(0.9, False), (0.0, True)])
def test_one_far_outlier_makes_distances_logarithmic(tmp_path: Path, worst: float, ticks: bool) -> None:
    # HD95 is 40 mm times what Dice lacks to 1: 2 mm, and 4 or 40 mm.
    table = [score(f"c{i}", f"p{i}", "liver", dice) for i, dice in enumerate([0.95] * 8 + [worst])]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    drawn = figures.draw_distribution([run], "hd95", "HD95", {f"c{i}": i for i in range(9)})
    assert all(f">{tick}</text>" in drawn for tick in (1, 10, 20)) == ticks


def test_of_very_many_cases_the_extremes_are_among_the_points(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", (i + 1) / 1000) for i in range(900)]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    drawn = figures.draw_distribution([run], "dice", "Dice", {f"c{i}": i for i in range(900)})
    shown = {int(place) for place in re.findall(r"#case-(\d+)", drawn)}
    assert {0, 899} <= shown and len(shown) == 400


@pytest.mark.parametrize(("last", "points"), [(25, 2), (35, 3)])
def test_the_validation_of_the_best_weights_is_no_point_of_the_curve(tmp_path: Path, last: int, points: int) -> None:
    run_folder = write_run(tmp_path, [score("a", "p", "liver", 0.5)], ["liver"])
    (run_folder / "metrics.csv").write_text(f"step,val/dice\n11,0.5\n24,0.6\n{last},0.7\n")
    run = read_run(run_folder, None)
    assert len(figures._select_logged(run, "val/dice")) == points


def test_what_was_not_logged_is_not_drawn(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [score("a", "p", "liver", 0.5)], ["liver"]), None)
    assert figures.draw_curves([Curve(run, "val/nothing", "nothing", 0)], "nothing", "x") is None
    assert figures.draw_reliability({}, ["liver"], "x") is None


def test_many_labels_have_no_legend_that_hides_the_drawing(tmp_path: Path) -> None:
    labels = [f"structure_{i}" for i in range(20)]
    run = read_run(write_run(tmp_path, [score("a", "p", label, 0.5) for label in labels], labels), None)
    drawn = figures.draw_size_and_score(run, {"a": 0}, "x")
    assert drawn and "structure_3" not in drawn


def draw(axes: Axes) -> None:
    points = axes.scatter([1, 2], [1, 2], color=pick_series_color(2), label="a $x^2$ <b>")
    points.set_urls(["#case-0", "#case-1"])
    axes.plot([1, 2], [2, 1], color=INK)
    axes.legend()


def test_colors_are_those_of_the_page_and_text_is_text() -> None:
    drawn = draw_svg(draw, "two points", 200, "first")
    assert "var(--series-2)" in drawn and "var(--ink)" in drawn
    assert not re.search(r"#0[01]0[0-9a-f]{3}", drawn)
    assert "a $x^2$ &lt;b&gt;" in drawn and "<b>" not in drawn
    assert '<a href="#case-1">' in drawn
    assert "DejaVu" not in drawn and "font-size: 10px" in drawn
    whole = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    assert ET.fromstring(whole).get("aria-label") == "two points"


def test_two_drawings_share_no_names_and_one_is_always_the_same() -> None:
    first, second = (draw_svg(draw, "two points", 200, anchors) for anchors in ("first", "second"))
    names = [set(re.findall(r' id="([^"]*)"', drawn)) for drawn in (first, second)]
    assert names[0] and not names[0] & names[1]
    assert first == draw_svg(draw, "two points", 200, "first")
