"""Drawings that stand inside a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from matplotlib.axes import Axes

from medseg_pl.reporting.html.svg import INK, series_color, svg


def draw(axes: Axes) -> None:
    points = axes.scatter([1, 2], [1, 2], color=series_color(2), label="a $x^2$ <b>")
    points.set_urls(["#case-0", "#case-1"])
    axes.plot([1, 2], [2, 1], color=INK)
    axes.legend()


def test_colors_are_those_of_the_page_and_text_is_text() -> None:
    drawn = svg(draw, "two points", 200, "first")
    assert "var(--series-2)" in drawn and "var(--ink)" in drawn
    assert not re.search(r"#0[01]0[0-9a-f]{3}", drawn)
    assert "a $x^2$ &lt;b&gt;" in drawn and "<b>" not in drawn
    assert '<a href="#case-1">' in drawn
    assert "DejaVu" not in drawn and "font-size: 10px" in drawn
    whole = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    assert ET.fromstring(whole).get("aria-label") == "two points"


def test_two_drawings_share_no_names_and_one_is_always_the_same() -> None:
    first, second = (svg(draw, "two points", 200, anchors) for anchors in ("first", "second"))
    names = [set(re.findall(r' id="([^"]*)"', drawn)) for drawn in (first, second)]
    assert names[0] and not names[0] & names[1]
    assert first == svg(draw, "two points", 200, "first")
