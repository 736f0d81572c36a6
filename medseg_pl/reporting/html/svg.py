"""Matplotlib drawings as SVG that stands inside a page: its colors are the page's, in the light and in the dark.

With `figures` the only importer of matplotlib.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Draw: TypeAlias = Callable[[Axes], None]

WIDTH = 360
"""Of a drawing, in pixels: on a telephone it fills the width, elsewhere several stand side by side."""
INK, QUIET, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", PAPER: "--paper"}
_SERIES = 12
"""Colors that are told apart; more series begin anew."""
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be found and copied, and has the page's font
    "svg.hashsalt": "medseg",  # the same drawing has the same bytes
    "text.parse_math": False,  # a dollar sign in a label's name is no formula
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
}


def series_color(place: int) -> str:
    """The color of the label, or the run, at a place of its list; the page gives it a shade for light and for dark."""
    return f"#0a00{place % _SERIES:02x}"


def svg(draw: Draw, what: str, height: float, anchors: str) -> Markup:
    """Draw on axes of the page's width.

    Args:
        draw: Puts everything on the axes.
        what: What is to be seen, for those who do not see it.
        height: In pixels.
        anchors: Makes names within the drawing unlike those of the page's other drawings.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # which tells of its font cache
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The width of a letter that its own font lacks is estimated; the page's font has it, or the reader's system.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Markup(_inline(buffer.getvalue(), what, anchors))


def _inline(text: str, what: str, anchors: str) -> str:
    """The bare element, with the page's colors and font, and names that no other drawing has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style [^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    opened = re.search(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', text)
    assert opened, "matplotlib writes the element first"
    text = f'<svg viewBox="{opened[1]}" role="img" aria-label="{escape(what)}">{text[opened.end() :]}'
    text = text.replace("xlink:href", "href").replace(' target="_blank"', "")  # links stay on the page
    text = re.sub(r">\s+<", "><", text)
    for name in re.findall(r'\sid="([^"]*)"', text):
        uses = (f"url(#{name})", f'href="#{name}"')
        used = any(use in text for use in uses)
        text = text.replace(f' id="{name}"', f' id="{anchors}-{name}"' if used else "")
        for use in uses:
            text = text.replace(use, use.replace(name, f"{anchors}-{name}"))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    text = re.sub(r"#0a00([0-9a-f]{2})", lambda found: f"var(--series-{int(found[1], 16)})", text)
    text = re.sub(r" ?font-family: [^;\"]*;", "", text)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)  # as matplotlib before 3.11 writes it
