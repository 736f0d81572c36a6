"""Volumes over time, whose points in time are read as channels."""

from __future__ import annotations

from collections.abc import Sequence

from medseg_pl.core.types import Case
from medseg_pl.io.file_header import read_header
from medseg_pl.io.paths import is_nifti


def find_time_axes(cases: Sequence[Case]) -> list[str]:
    """Say it where the first volume of a data set has points in time: `medseg check` looks at all.

    Args:
        cases: Those of one data set.
    """
    first = next((path for case in cases for path in case.images[:1] if is_nifti(path)), None)
    times = 0 if first is None else read_header(first).times
    if not times:
        return []
    return [
        f"{first} has {times} points in time, which are read as channels. Write each to a file of its own unless they "
        "are to be seen together."
    ]
