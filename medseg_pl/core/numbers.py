"""Numbers as people read them, in tables, pages and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "–"
"""What stands where there is no number."""


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number; a dash where there is none.

    >>> format_number(0.12345), format_number(None), format_number(float("nan"))
    ('0.123', '–', '–')
    """
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def format_interval(ends: Sequence[float] | None, digits: int = 3, joint: str = " to ") -> str:
    """Format both ends of an interval; a dash where there is none.

    >>> format_interval([0.5, 0.75], 2)
    '0.50 to 0.75'
    """
    return NOTHING if ends is None else joint.join(f"{end:.{digits}f}" for end in ends)


def format_p(value: float | None) -> str:
    """Format a p-value; a dash where there is none.

    >>> format_p(0.0001), format_p(0.04)
    ('<0.001', '0.040')
    """
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"
