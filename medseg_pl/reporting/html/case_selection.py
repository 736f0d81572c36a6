"""Which cases get pictures, and what the page holds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_pl.metrics.functional.calibration import CalibrationSums
from medseg_pl.reporting.html.cases import CaseEntry

_IN_GALLERY = 6


@dataclass
class Pictures:
    """What was gathered.

    Args:
        cases: What the viewer shows, by the place of the case; with `differs` where its masks are not those that were
            scored, such as after a test with other settings.
        thumbnails: The pictures of the galleries, by the place of the case.
        calibration: For each run the sums of each label over the cases that were predicted.
        overlapping: Whether labels may overlap, and so have a mask each.
        notes: What is missing and why, for the terminal: they name files.
    """

    cases: dict[int, dict[str, Any]] = field(default_factory=dict)
    thumbnails: dict[int, str] = field(default_factory=dict)
    calibration: list[dict[str, CalibrationSums]] = field(default_factory=list)
    overlapping: bool = False
    notes: list[str] = field(default_factory=list)


def chosen_cases(entries: Sequence[CaseEntry], most: int) -> list[CaseEntry]:
    """The cases that get pictures: all, or else the worst, and some of the best to compare them with."""
    if len(entries) <= most:
        return list(entries)
    scored = [entry for entry in entries if entry.means[0] is not None]
    fine = min(_IN_GALLERY, most // 4)
    return [*scored[: most - fine], *scored[max(most - fine, len(scored) - fine) :]]


def galleries(entries: Sequence[CaseEntry]) -> list[CaseEntry]:
    """The worst, then the best, and no case in both."""
    scored = [entry for entry in entries if entry.means[0] is not None]
    each = min(_IN_GALLERY, (len(scored) + 1) // 2)
    return [*scored[:each], *scored[max(each, len(scored) - each) :][::-1]]
