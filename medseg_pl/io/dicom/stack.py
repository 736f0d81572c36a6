"""Whether images make one volume, in which order, and on which grid. Nothing counts but where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from medseg_pl.core.errors import count_noun
from medseg_pl.core.geometry import Geometry, to_affine
from medseg_pl.io.dicom.planes import Plane

EVEN_VOXELS = 0.2
"""How far a slice may lie from an even grid, in voxels: scanners round positions to 0.1 mm, a lost slice is 0.5 off."""

MOST_SLICES = 10
"""How many times as many slices resampling may make: more come of two slices that lie almost in one place."""

# The share of distances that may be gaps; with more, the series was scanned unevenly
_MOST_GAPS = 0.2

_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-4
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_RESAMPLE = "set data.source.uneven_slices to resample"

Code = Literal["unreadable", "mixed", "unlike", "duplicate", "gap", "uneven"]


class Problem(NamedTuple):
    """A reason why files are no volume.

    Attributes:
        code: What kind of problem it is.
        message: What was expected, what came, in which files, and what to do.
    """

    code: Code
    message: str


def find_problems(planes: Sequence[Plane], *, resample: bool = False) -> Iterator[Problem]:
    """Find what is wrong with the slices of a volume.

    Later checks need earlier ones to pass.

    Args:
        planes: The slices, in any order.
        resample: Whether to allow uneven distances, since slices are to be resampled along their normal.
    """
    placement = (_find_wandering, _find_excess) if resample else (_find_gaps, _find_uneven)
    for check in (_find_mixed, _find_unlike, _find_duplicates, *placement) if planes else ():
        if found := list(check(planes)):
            yield from found
            return


def find_unevenness(planes: Sequence[Plane]) -> tuple[Problem, ...]:
    """Find why slices are not evenly spaced: gaps, else uneven distances."""
    return tuple(_find_gaps(planes)) or tuple(_find_uneven(planes))


def describe_mixed_series(files: Sequence[tuple[str, Path]]) -> str | None:
    """Describe files of several series by counts, without a patient's name.

    Args:
        files: The series of each file (or image), and the file.

    Returns:
        `None` where all are of one series.
    """
    counts = Counter(series for series, _ in files)
    if len(counts) < 2:
        return None
    names = dict(reversed(files))
    parts = (f"{count_noun(count, 'image')} such as {names[series].name}" for series, count in counts.items())
    return (
        f"{files[0][1].parent} holds {len(counts)} series: {', '.join(parts)}. A volume is one series: move each into "
        "a folder of its own."
    )


def sort_planes(planes: Sequence[Plane]) -> list[Plane]:
    """Sort slices along their normal; equal positions keep their order."""
    heights = compute_heights_mm(planes)
    return [planes[place] for place in np.argsort(heights, kind="stable")]


def compute_grid(planes: Sequence[Plane], count: int | None = None) -> Geometry:
    """Compute the grid of evenly spaced slices.

    Neighboring slices are as far apart as they are along the normal, also where the gantry was tilted and the stack is
    sheared. A single slice has no such distance, and takes its thickness instead.

    Args:
        planes: The slices in their order.
        count: How many slices the grid has from the first to the last; as many as there are by default.
    """
    count = count or len(planes)
    first, last = planes[0], planes[-1]
    normal, down_column, along_row = first.axes
    rows_mm, columns_mm = first.spacing_mm
    if len(planes) > 1:
        step = (np.array(last.position_mm) - first.position_mm) / (count - 1)
        slices_mm: float | None = float(step @ normal)
    else:
        slices_mm = first.thickness_mm  # otherwise no distance: slices may overlap or leave gaps
        step = normal * (slices_mm or 1.0)
    affine = np.eye(4)
    affine[:3] = np.stack([step, down_column * rows_mm, along_row * columns_mm, first.position_mm], axis=1)
    spacing_mm = None if slices_mm is None else (slices_mm, rows_mm, columns_mm)
    return Geometry((count, *first.size), spacing_mm, to_affine(_LPS_TO_RAS @ affine))


def _find_mixed(planes: Sequence[Plane]) -> Iterator[Problem]:
    if message := describe_mixed_series([(plane.series, plane.path) for plane in planes]):
        yield Problem("mixed", message)


def _find_unlike(planes: Sequence[Plane]) -> Iterator[Problem]:
    first = planes[0]
    for plane in planes:
        same = (
            plane.size == first.size
            and np.allclose(plane.spacing_mm, first.spacing_mm, rtol=_SAME_DIRECTION, atol=0)
            and np.allclose(plane.orientation, first.orientation, rtol=0, atol=_SAME_DIRECTION)
        )
        if not same:
            yield Problem(
                "unlike",
                f"{_name(plane)} is {_describe(plane)}, but {_name(first)} is {_describe(first)}. Slices of one "
                "volume share size, spacing and orientation: move what does not belong here away, such as a localizer.",
            )
            return


def _find_duplicates(planes: Sequence[Plane]) -> Iterator[Problem]:
    ordered = sort_planes(planes)
    heights = compute_heights_mm(ordered)
    groups = np.cumsum(np.diff(heights, prepend=heights[0]) > _SAME_PLACE_MM)
    repeated = [list(group) for _, group in groupby(range(len(ordered)), key=lambda place: groups[place])]
    if len(repeated) < len(ordered):
        first, second, *_ = next(group for group in repeated if len(group) > 1)
        yield Problem(
            "duplicate",
            f"{_name(ordered[first])} and {_name(ordered[second])} lie in the same place: "
            f"{count_noun(len(ordered), 'slice')} are "
            f"in {len(repeated)} places. Expected one slice in each: remove copies, and give every time point, echo "
            "or direction a folder of its own.",
        )


def _find_gaps(planes: Sequence[Plane]) -> Iterator[Problem]:
    """Find missing slices, with their neighbors."""
    ordered = sort_planes(planes)
    steps_mm = np.diff(compute_heights_mm(ordered))
    usual_mm = float(np.sort(steps_mm)[(len(steps_mm) - 1) // 2]) if len(steps_mm) else 0.0  # of 2, the smaller
    wide = np.flatnonzero(steps_mm > 1.5 * usual_mm)
    narrow = np.flatnonzero(steps_mm * 1.5 < usual_mm)
    if len(other := max(wide, narrow, key=len)) > 2 and len(other) > _MOST_GAPS * len(steps_mm):
        distances = Counter(f"{step:.2f}" for step in steps_mm).most_common(4)
        listed = ", ".join(f"{count} of {step} mm" for step, count in sorted(distances))
        yield Problem(
            "uneven",
            f"{ordered[0].path.parent}: slices are {steps_mm.min():.2f} to {steps_mm.max():.2f} mm apart ({listed}); "
            f"a volume has even distances. S{_RESAMPLE[1:]}, or split the series where the distance changes.",
        )
        return
    for before in wide:
        missing = round(float(steps_mm[before]) / usual_mm) - 1
        yield Problem(
            "gap",
            f"{_name(ordered[before])} and {_name(ordered[before + 1])} are {steps_mm[before]:.2f} mm apart, other "
            f"slices of this series {usual_mm:.2f} mm: "
            f"{count_noun(missing, 'slice between them seems', 'slices between them seem')} to be missing. Restore "
            f"them, move the series away, or {_RESAMPLE}, which interpolates them.",
        )


def _find_uneven(planes: Sequence[Plane]) -> Iterator[Problem]:
    """Find slices that one affine cannot place."""
    ordered = sort_planes(planes)
    places = np.array([plane.position_mm for plane in ordered])
    steps_mm = np.diff(compute_heights_mm(ordered))
    if len(steps_mm) < 2:
        return
    even = np.linspace(places[0], places[-1], len(places))
    away = np.abs((places - even) @ ordered[0].axes.T) / (steps_mm.mean(), *ordered[0].spacing_mm)
    if away.max() > EVEN_VOXELS:
        remedy = "split the series" if list(_find_wandering(planes)) else _RESAMPLE
        yield Problem(
            "uneven",
            f"{_name(ordered[int(away.max(axis=1).argmax())])} lies {away.max():.2f} voxels from where even spacing "
            f"would put it, more than {EVEN_VOXELS} (slices are {steps_mm.min():.2f} to {steps_mm.max():.2f} mm "
            f"apart). Restore missing slices, or {remedy}.",
        )


def _find_wandering(planes: Sequence[Plane]) -> Iterator[Problem]:
    """Find slices off the line from first to last, which defeat resampling."""
    ordered = sort_planes(planes)
    places, heights = np.array([plane.position_mm for plane in ordered]), compute_heights_mm(ordered)
    if len(ordered) < 3:
        return
    shares = (heights - heights[0]) / (heights[-1] - heights[0])
    line = places[0] + shares[:, None] * (places[-1] - places[0])
    aside = np.abs((places - line) @ ordered[0].axes[1:].T) / ordered[0].spacing_mm
    if aside.max() > EVEN_VOXELS:
        yield Problem(
            "uneven",
            f"{_name(ordered[int(aside.max(axis=1).argmax())])} lies {aside.max():.2f} pixels beside the line from "
            f"the first slice to the last, more than {EVEN_VOXELS}, and slices are resampled along that line only. "
            "Split the series, or move the slice away.",
        )


def _find_excess(planes: Sequence[Plane]) -> Iterator[Problem]:
    """Find slices so close that an even grid would multiply their number."""
    ordered = sort_planes(planes)
    steps_mm = np.diff(compute_heights_mm(ordered))
    if not find_unevenness(planes) or steps_mm.sum() <= MOST_SLICES * len(ordered) * steps_mm.min():
        return
    closest = int(steps_mm.argmin())
    yield Problem(
        "uneven",
        f"{_name(ordered[closest])} and {_name(ordered[closest + 1])} are {steps_mm[closest]:.3f} mm apart; even "
        f"distances of that size make {steps_mm.sum() / steps_mm.min():.0f} slices of {len(ordered)}, more than "
        f"{MOST_SLICES} times as many. Move one of the two slices away.",
    )


def compute_heights_mm(planes: Sequence[Plane]) -> Float64[np.ndarray, "n"]:
    """Compute heights of slices along the normal of the first."""
    heights: Float64[np.ndarray, "n"] = np.array([plane.position_mm for plane in planes]) @ planes[0].axes[0]
    return heights


def _name(plane: Plane) -> str:
    return f"{plane.path}, image {plane.frame + 1}," if plane.frame else str(plane.path)


def _describe(plane: Plane) -> str:
    rows, columns = plane.size
    between_rows, between_columns = plane.spacing_mm
    directions = ", ".join(f"{value:.4g}" for value in plane.orientation)
    return f"{rows} x {columns} pixels of {between_rows:.4g} x {between_columns:.4g} mm along ({directions})"
