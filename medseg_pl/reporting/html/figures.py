"""What is drawn of a run: distributions, learning curves, calibration, differences."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from medseg_pl.io.scores import LENGTHS
from medseg_pl.reporting.run import Run, read_number

_ROW = 34
_FRAME = 62
_MOST_POINTS = 400
_LONGEST_NAME = 18
_MOST_NAMES = 12
# A distance of so many times the median is an outlier, for which an axis becomes logarithmic.
_FAR = 10


def draw_distribution(runs: Sequence[Run], metric: str, what: str, places: Mapping[str, int]) -> Markup:
    """Draw each case as a point, the quartiles and the mean's interval.

    Args:
        runs: The runs with the scores.
        metric: Their column.
        what: The label of the axis.
        places: The position of each case on the page.
    """
    labels = _list_labels(runs)
    lines = [(label, index) for label in labels for index in range(len(runs)) if label in runs[index].labels]

    def draw(axes: Axes) -> None:
        for height, (label, index) in enumerate(lines):
            color = pick_series_color(labels.index(label) if len(runs) == 1 else index)
            _draw_points(axes, runs[index], label, metric, -height, color, places)
            _draw_bar_and_mean(axes, runs[index], label, metric, -height, color)
        axes.set_yticks([-height for height in range(len(lines))], [_name_line(runs, *line) for line in lines])
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(what)
        values = [value for label, index in lines for _, value in runs[index].values(label, metric)]
        if metric in LENGTHS and values and max(values) > _FAR * float(np.median(values)):
            _set_log_scale(axes, max(values))

    return draw_svg(draw, f"{what} of every case, by label", _FRAME + _ROW * len(lines), f"spread-{metric}")


def _set_log_scale(axes: Axes, most: float) -> None:
    """Make distances logarithmic from 1 on, so that one far outlier leaves the others apart."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)  # which has a 0
    axes.set_xlim(-0.1, 1.2 * most)
    axes.set_xticks([tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= 1.2 * most])
    axes.xaxis.set_major_formatter(lambda distance, _: f"{distance:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


class Curve(NamedTuple):
    """A column of a run's log, its name on the page, and the number of its color."""

    run: Run
    column: str
    name: str
    color: int


def draw_curves(curves: Sequence[Curve], what: str, name: str) -> Markup | None:
    """Draw logged values over training steps.

    Args:
        curves: What is drawn.
        what: The label of the axis.
        name: The name of the drawing, unlike others on the page.

    Returns:
        `None` without any value.
    """
    logged = [(curve, points) for curve in curves if (points := _select_logged(curve.run, curve.column))]
    if not logged:
        return None

    def draw(axes: Axes) -> None:
        for curve, points in logged:
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 40 else None
            color, label = pick_series_color(curve.color), _shorten(curve.name)
            axes.plot(steps, values, color=color, label=label, marker=marker, markersize=3.5)
        axes.set_xlabel("steps of the optimizer")
        axes.set_ylabel(what)
        _add_legend(axes)

    return draw_svg(draw, f"{what} over the steps of training", 230, f"curve-{name}")


def draw_size_and_score(run: Run, places: Mapping[str, int], name: str) -> Markup | None:
    """Draw Dice over the reference's volume, on a logarithmic axis.

    Returns:
        `None` where no volume is known.
    """
    sized = {label: _select_sized(run, label) for label in run.labels}
    sized = {label: rows for label, rows in sized.items() if rows}
    if not sized:
        return None

    def draw(axes: Axes) -> None:
        for label, rows in sized.items():
            volumes, scores, cases = zip(*rows, strict=True)
            points = axes.scatter(volumes, scores, s=16, alpha=0.7, color=pick_series_color(run.labels.index(label)))
            points.set_label(_shorten(label))
            points.set_urls([f"#case-{places[case]}" for case in cases])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_major_formatter(lambda volume, _: f"{volume:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("reference, ml")
        axes.set_ylabel("Dice")
        _add_legend(axes)

    return draw_svg(draw, "Dice of every case over the volume of its reference", 230, f"size-{name}")


def draw_recall_by_size(run: Run, name: str) -> Markup | None:
    """Draw the share of objects found over their size.

    Returns:
        `None` without objects.
    """
    objects = run.summary.get("objects") or {}
    bins = {label: [each for each in objects[label]["recall_by_size"] if each["n"]] for label in objects}
    bins = {label: each for label, each in bins.items() if each}
    if not bins:
        return None
    units = sorted({each["unit"] for several in bins.values() for each in several})

    def draw(axes: Axes) -> None:
        for label, several in bins.items():
            color = pick_series_color(run.labels.index(label))
            # The middle on a logarithmic axis; a bin of objects of one size is a point.
            middles = [math.sqrt(each["from"] * each["to"]) for each in several]
            axes.plot(middles, [each["mean"] for each in several], marker="o", color=color, label=_shorten(label))
            for middle, each in zip(middles, several, strict=True):
                axes.plot([each["from"], each["to"]], [each["mean"]] * 2, color=color, linewidth=0.8)
                if each["ci95"]:
                    axes.plot([middle] * 2, each["ci95"], color=color, linewidth=2.4, alpha=0.4)
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(f"size of an object of the reference, {' and '.join(units)}")
        axes.set_ylabel("share found")
        _add_legend(axes)

    return draw_svg(draw, "Share of objects found over their size", 230, f"recall-{name}")


def draw_reliability(
    bins: Mapping[str, Mapping[str, Sequence[float]]], labels: Sequence[str], name: str
) -> Markup | None:
    """Draw how often voxels of a given probability have the label.

    Returns:
        `None` where nothing was measured.
    """
    if not bins:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        for index, label in enumerate(labels):
            sums = {column: np.array(values) for column, values in bins.get(label, {}).items()}
            if sums and (filled := sums["voxels"] > 0).any():
                predicted, observed = (
                    sums[key][filled] / sums["voxels"][filled] for key in ("probability", "positives")
                )
                axes.plot(
                    predicted, observed, marker="o", markersize=4, color=pick_series_color(index), label=_shorten(label)
                )
        axes.set_xlabel("probability")
        axes.set_ylabel("share that has the label")
        _add_legend(axes)

    return draw_svg(draw, "Share of voxels with the label over their probability", 260, f"reliability-{name}")


def draw_differences(compared: Mapping[str, Any], what: str, name: str) -> Markup:
    """Draw the mean difference of two runs with its interval by label."""
    lines = list(compared["labels"].items())
    if len(lines) > 1:
        lines.append(("mean", compared["mean"]))

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=QUIET, linewidth=1)
        for height, (label, fields) in enumerate(lines):
            if fields["difference"] is None:
                continue
            color = INK if label == "mean" else pick_series_color(height)
            low, high = fields["interval"] or (fields["difference"],) * 2
            axes.plot([low, high], [-height, -height], color=color, linewidth=2.5, solid_capstyle="butt")
            axes.plot([fields["difference"]], [-height], marker="D", color=color, markersize=6)
        axes.set_yticks([-height for height in range(len(lines))], [_shorten(label) for label, _ in lines])
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"difference of {what}, with its 95 % interval")

    return draw_svg(draw, f"Difference of {what} by label", _FRAME + _ROW * len(lines), f"difference-{name}")


def _add_legend(axes: Axes) -> None:
    """Add a legend, in two columns for many names.

    There is none where it would hide the drawing.
    """
    names = len(axes.get_legend_handles_labels()[1])
    if names <= _MOST_NAMES:
        axes.legend(loc="best", ncols=1 + (names > 5))


def _draw_points(
    axes: Axes, run: Run, label: str, metric: str, height: float, color: str, places: Mapping[str, int]
) -> None:
    rows = sorted(((value, str(row["case_id"])) for row, value in run.values(label, metric)), key=lambda row: row[0])
    shown = [
        rows[index] for index in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_POINTS)).astype(int))
    ]
    if not shown:
        return
    # Neighbors in value are put at different heights, always the same ones.
    shifts = 0.28 * np.sin(2.4 * np.arange(len(shown)))
    drawn = axes.scatter([value for value, _ in shown], height + shifts, s=18, alpha=0.55, color=color, linewidths=0)
    drawn.set_urls([f"#case-{places[case]}" for _, case in shown])


def _draw_bar_and_mean(axes: Axes, run: Run, label: str, metric: str, height: float, color: str) -> None:
    values = [value for _, value in run.values(label, metric)]
    described = run.summary["labels"][label].get(metric) or {}
    if len(values) > 3:
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.barh(height, high - low, left=low, height=0.62, color=color, alpha=0.16, zorder=1)
        axes.plot([middle, middle], [height - 0.31, height + 0.31], color=color, linewidth=1.2, zorder=1)
    if described.get("mean") is None:
        return
    if described.get("ci95"):
        axes.plot(described["ci95"], [height, height], color=INK, linewidth=1.6, zorder=3)
    axes.plot([described["mean"]], [height], marker="D", color=INK, markeredgecolor=PAPER, markersize=6, zorder=4)


def _select_logged(run: Run, column: str) -> list[tuple[int, float]]:
    """Select the logged values of a column with their steps.

    The last validation of a run is that of its best weights, a step after the last of training: no point of a curve.
    """
    points = [(int(row["step"]) + 1, float(row[column])) for row in run.log if column in row and "step" in row]
    again = column.startswith("val/") and len(points) > 1 and points[-1][0] == points[-2][0] + 1
    return points[:-1] if again else points


def _select_sized(run: Run, label: str) -> list[tuple[float, float, str]]:
    rows = [
        (read_number(row, "volume_reference_ml"), dice, str(row["case_id"])) for row, dice in run.values(label, "dice")
    ]
    return [row for row in rows if row[0] > 0][:_MOST_POINTS]


def _list_labels(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(label for run in runs for label in run.labels))


def _name_line(runs: Sequence[Run], label: str, index: int) -> str:
    return _shorten(label) if len(runs) == 1 else f"{_shorten(label)} · {chr(ord('A') + index)}"


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


Draw: TypeAlias = Callable[[Axes], None]

# Of a drawing, in pixels: on a telephone it fills the width, elsewhere several stand side by side.
WIDTH = 360
INK, QUIET, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", PAPER: "--paper"}
# Colors that are told apart; more series begin anew.
_SERIES = 12
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


def pick_series_color(index: int) -> str:
    """Pick the placeholder color of a label or run.

    The page shades it.
    """
    return f"#0a00{index % _SERIES:02x}"


def draw_svg(draw: Draw, what: str, height: float, anchors: str) -> Markup:
    """Draw on axes of the page's width.

    Args:
        draw: Puts everything on the axes.
        what: A description for those who do not see it.
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
    return Markup(_embed_svg(buffer.getvalue(), what, anchors))


def _embed_svg(text: str, what: str, anchors: str) -> str:
    """Reduce an SVG file to an element with the page's own colors."""
    # Ids within it become unique on the page.
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
