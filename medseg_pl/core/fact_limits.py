"""Limits of the facts of images and masks: how far outside the training cases a fact may be.

An exported model ships this file: it imports numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_FALSE_ALARMS = 0.02
"""Of the validation cases, this share may lie outside the limits."""

_TOLERANCES = {
    "offset": 0.1,
    "flat": 0.1,
    "constant": 0.03,
    "repeated": 0.03,
    "step": 0.2,
    "filled": 0.1,
    "grain": 0.05,
    "continuity": 0.08,
    "span": 0.1,
    "shape": 0.05,
    "at_low": 0.5,
    "at_high": 0.5,
    "noise": 0.15,
    "sharpness": 0.06,
    "color": 0.2,
    "spacing": 0.04,
    "size": 0.2,
    "extent": 0.2,
    "pattern": 0.1,
    "turn": 0.05,
    "volume": 0.15,
    "share": 0.15,
    "center": 0.05,
    "label_extent": 0.08,
}
"""How far outside the training cases a fact may be at least, in its own unit."""

_OPEN_ABOVE = ("pattern", "turn")
"""More of these is always better."""

_FLAGS = ("present", "blank")
"""Either 0 or 1."""

_LABEL_FACTS = ("volume", "share", "present", "center", "extent", "dice")
_WIDEST, _WIDEST_IMAGE = 4.0, 2.0
"""Limits of a label, and of an image, are widened at most so many times: beyond, they would catch little."""
_FOUND, _HIT = 0.3, 0.1
"""Dice of most validation cases from which a label is judged, and of each of them from which it may not be absent."""

_SPREADS, _SPREADS_OF_FEW = 2.0, 8.0
_TOLERANCES_OF_FEW = 6.0
_OVERSHOOT = 1.5
_TAIL = 0.0025


class Limits(NamedTuple):
    """Limits of one fact.

    Attributes:
        low: The least value that raises no finding.
        high: The largest.
        least: The least value among the training cases.
        most: The largest.
    """

    low: float
    high: float
    least: float
    most: float

    def measure_excess(self, value: float) -> float:
        """Measure how far outside a value lies, in training ranges; 0 inside.

        >>> Limits(0.0, 2.0, 0.5, 1.5).measure_excess(3.0)
        1.0
        """
        outside = max(self.low - value, value - self.high, 0.0)
        return outside / max(self.most - self.least, 1e-9)

    def measure_reach(self, value: float) -> float:
        """Measure how far beyond the training cases a value lies.

        The result is 0 within their range and 1 at the limit.

        >>> Limits(0.0, 2.0, 0.5, 1.5).measure_reach(1.75)
        0.5
        """
        below = (self.least - value) / max(self.least - self.low, 1e-9)
        above = (value - self.most) / max(self.high - self.most, 1e-9)
        return max(below, above, 0.0)

    def scale(self, factor: float) -> Limits:
        """Move both limits away from the training cases.

        >>> Limits(0.0, 2.0, 0.5, 1.5).scale(2)
        Limits(low=-0.5, high=2.5, least=0.5, most=1.5)
        """
        low, high = self.least - factor * (self.least - self.low), self.most + factor * (self.high - self.most)
        return self._replace(low=low, high=high)


def make_limits(rows: Sequence[Mapping[str, float]], held_out: Sequence[Mapping[str, float]] = ()) -> dict[str, Limits]:
    """Make limits from training facts, widened for validation cases.

    At most 2 % of the validation cases stay outside, counting any of their facts. The fewer they are and the nearer to
    a limit, the wider are all limits, so that of further cases as few are expected outside.

    Args:
        rows: Facts of each training case, by name.
        held_out: Facts of each validation case.

    Returns:
        The limits of each fact, by name.
    """
    columns = {
        name: np.array([row[name] for row in rows if name in row])
        for name in sorted({name for row in rows for name in row})
    }
    slacks = {name: _measure_slack(name, values) for name, values in columns.items()}
    limits = {name: _limit_fact(name, values, slacks[name]) for name, values in columns.items()}
    typical = _select_typical(held_out, limits)
    reaches = [_find_furthest_reach(row, limits) for row in typical]
    # Few validation cases, or some near a limit, say that the next case may lie further out in any of its facts.
    factor = min(max(1.0, extrapolate_tail(reaches, MOST_FALSE_ALARMS)), _WIDEST_IMAGE) if reaches else 1.0
    return {
        name: _widen(
            _limit_fact(name, values, factor * slacks[name]),
            [row[name] for row in typical if name in row],
            slacks[name] / 2,
        )
        for name, values in columns.items()
    }


def calibrate_label(
    limits: Mapping[str, Limits], predictions: Sequence[Mapping[str, float]], share: float
) -> dict[str, Limits]:
    """Widen the limits of one label so that few predictions lie outside.

    Args:
        limits: From the references of training cases, by name.
        predictions: Facts of the label in the predictions of validation cases, and `dice` where references have it.
        share: Of further predictions, so many may lie outside.

    Returns:
        Nothing for a label that validation does not find, or whose predictions are too few or too unlike references to
        say what others may be like. Whether a label is there is judged where no prediction was near to missing it.
    """
    typical = _select_typical(predictions, limits)
    scores = [value for row in typical for name, value in row.items() if name.endswith(".dice")]
    # A mask in the wrong place may have a likely volume by chance, and the next one another.
    if not scores or np.median(scores) < _FOUND:
        return {}
    shapes = {name: each for name, each in limits.items() if not name.endswith(".present")}
    reaches = [_find_furthest_reach(row, shapes) for row in typical if any(name in row for name in shapes)]
    factor = max(1.0, extrapolate_tail(reaches, share))
    kept = {name: each.scale(factor) for name, each in shapes.items()} if factor <= _WIDEST else {}
    if min(scores) >= _HIT and all(_is_clearly_there(row, limits) for row in typical):
        kept |= {name: each for name, each in limits.items() if name.endswith(".present")}
    return kept


def extrapolate_tail(values: Sequence[float], share: float) -> float:
    """Estimate the value that a share of further values exceeds.

    This is the predictive quantile of an exponential distribution under a gamma prior that is worth one value of 1, so
    that a few values already reach far.

    Args:
        values: The values seen so far.
        share: The share of further values that may exceed the result.

    >>> round(extrapolate_tail([0.0] * 3, 0.02), 2), round(extrapolate_tail([0.0] * 20, 0.02), 2)
    (1.66, 0.2)
    """
    return float((1 + sum(values)) * (share ** (-1 / (len(values) + 1)) - 1))


def _measure_slack(name: str, values: NDArray[np.float64]) -> float:
    """Measure how far outside the training cases a fact may lie; the fewer they are, the less their range says."""
    kind, number = _find_kind(name), len(values)
    if kind in _FLAGS:
        return 0.0
    return (1 + _TOLERANCES_OF_FEW / number) * _TOLERANCES[kind] + (
        _SPREADS + _SPREADS_OF_FEW / number
    ) * _measure_spread(values)


def _limit_fact(name: str, values: NDArray[np.float64], slack: float) -> Limits:
    """Limit a fact by the range of the training cases, and by the slack outside it."""
    kind = _find_kind(name)
    if kind in _FLAGS:
        least, most = float(values.min()), float(values.max())
        # Absent in a single training case is enough: the label may be absent. So with a blank image.
        present, blank = Limits(0.5 if least > 0 else -1.0, 2.0, least, most), Limits(-1.0, 0.5 + most, least, most)
        return present if kind == "present" else blank
    least, most = (float(end) for end in np.quantile(values, (_TAIL, 1 - _TAIL)))
    high = 1e9 if kind in _OPEN_ABOVE else most + slack
    # Below 0 an image is more like the turned training images than like the others.
    low = min(0.0, least - slack) if kind == "turn" else least - slack
    return Limits(low, high, least, most)


def _find_furthest_reach(row: Mapping[str, float], limits: Mapping[str, Limits]) -> float:
    return max((limits[name].measure_reach(value) for name, value in row.items() if name in limits), default=0.0)


def _is_clearly_there(row: Mapping[str, float], limits: Mapping[str, Limits]) -> bool:
    """Tell whether a prediction holds a label in a plausible volume."""
    volumes = [name for name in limits if _find_kind(name) in ("volume", "share")]
    return all(name in row and row[name] >= limits[name].low for name in volumes)


def belongs_to(name: str, label: str) -> bool:
    """Tell whether a fact is of this very label.

    Another label's name may begin with this one.

    >>> belongs_to("liver.volume", "liver"), belongs_to("liver.left.volume", "liver")
    (True, False)
    """
    return name.startswith(f"{label}.") and name.removeprefix(f"{label}.").split(".")[0] in _LABEL_FACTS


def _measure_spread(values: NDArray[np.float64]) -> float:
    """Measure half the span of the middle two thirds.

    It is a standard deviation that outliers do not change.
    """
    # The middle two thirds are what one deviation to each side holds of a normal distribution.
    low, high = np.quantile(values, (1 / 6, 5 / 6))
    return float(high - low) / 2


def _select_typical(rows: Sequence[Mapping[str, float]], limits: Mapping[str, Limits]) -> list[Mapping[str, float]]:
    """Leave out the cases furthest outside, which may be false alarms."""
    excess = [
        max((limits[name].measure_excess(value) for name, value in row.items() if name in limits), default=0.0)
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda index: excess[index])
    return [rows[index] for index in sorted(order[: len(rows) - int(MOST_FALSE_ALARMS * len(rows))])]


def _widen(limits: Limits, values: Sequence[float], slack: float) -> Limits:
    """Widen limits so that validation cases keep them with something to spare."""
    # Half as far again as the furthest of them: the next case may lie beyond it.
    below = max(0.0, limits.least - min(values, default=limits.least))
    above = max(0.0, max(values, default=limits.most) - limits.most)
    return limits._replace(
        low=min(limits.low, limits.least - _OVERSHOOT * below - slack * (below > 0)),
        high=max(limits.high, limits.most + _OVERSHOOT * above + slack * (above > 0)),
    )


def _find_kind(name: str) -> str:
    """Find the kind of a fact in its name.

    >>> [_find_kind(name) for name in ("shape10[0]", "turn.flip_width", "label.left lung.extent.depth")]
    ['shape', 'turn', 'label_extent']
    """
    if name.startswith("label."):
        parts = name.removeprefix("label.").split(".")
        # A label's name may hold dots: the fact is the last word that is one.
        last = next(part for part in reversed(parts) if part in _LABEL_FACTS)
        return "label_extent" if last == "extent" else last
    return name.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0].rstrip("0123456789")
