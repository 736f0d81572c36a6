"""Values and colors of mask files, turned into the indices of labels.

A mark is what stands for a label in a file: one value, or the three of a color. Distances between marks are those of
the channel in which they differ most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import MaskValueError, SettingError

Mark = tuple[int, ...]

# How far from its label a lossy format moves a value of 8 bits, at most: a hint is given up to here
_NOISE = 64

# How far from a whole number the scaling of a header leaves one: a slope is in single precision
_ROUNDING = 1e-4

# Nobody has so many labels without knowing: more unclaimed values than this are traces of something else
_MANY, _VERY_MANY = 16, 4096

_SAID = {
    1: (
        "value",
        "voxel",
        "Name the labels and their file values with labels.names and labels.values, or set labels.ignore_value.",
    ),
    3: ("color", "pixel", "Name the labels and their colors with labels.names and labels.colors."),
}


def translate(
    pixels: Shaped[np.ndarray, "c ..."], meaning: Mapping[Mark, int], tolerance: float, source: str
) -> UInt8[np.ndarray, "..."]:
    """Translate each voxel's mark into the index that it stands for.

    Args:
        pixels: What stands in the file, one channel for values and three for colors.
        meaning: The index of every mark.
        tolerance: How far from a mark a voxel may be and still count as it.
        source: What to call the file in an error.

    Raises:
        MaskValueError: Some voxels are at no mark.
        SettingError: The tolerance reaches from one mark to another of another index.

    >>> translate(np.array([[0, 255, 218]]), {(0,): 0, (255,): 1}, tolerance=40, source="axon.png")
    array([0, 1, 1], dtype=uint8)
    """
    _require_apart(meaning, tolerance)
    result = np.zeros(pixels.shape[1:], dtype=np.uint8)
    claimed = np.zeros(pixels.shape[1:], dtype=bool)
    for mark, index in meaning.items():
        found = _match_mark(pixels, mark, tolerance)
        result[found] = index
        claimed |= found
    if not claimed.all():
        raise _describe_unclaimed(pixels, ~claimed, meaning, source)
    return result


def paint(indices: Shaped[np.ndarray, "..."], marks: Sequence[Mark]) -> NDArray[Any]:
    """Paint the mark of each index in the smallest data type.

    Args:
        indices: `(...)`, which of the marks each voxel has.
        marks: A value, or a color of three numbers, for each index.

    Returns:
        Values `(...)` or colors `(3, ...)`.
    """
    table = np.array(marks)
    low, high = int(table.min()), int(table.max())
    table = table.astype(np.min_scalar_type(min(low, -high - 1) if low < 0 else high))
    channels = [column[indices.astype(np.uint8)] for column in table.T]
    painted: NDArray[Any] = channels[0] if len(channels) == 1 else np.stack(channels)
    return painted


def find_unique_marks(marks: Shaped[np.ndarray, "c n"]) -> Shaped[np.ndarray, "k c"]:
    """Return each mark once, in ascending order.

    Colors are sorted as one number, which is twenty times as fast as three.

    >>> find_unique_marks(np.array([[255, 0, 255], [0, 0, 0], [0, 0, 0]])).tolist()
    [[0, 0, 0], [255, 0, 0]]
    """
    if len(marks) == 1:
        return np.unique(marks[0])[:, None]
    red, green, blue = marks.astype(np.int64)
    packed = np.unique(red << 32 | green << 16 | blue)
    return np.stack([packed >> 32, packed >> 16 & 0xFFFF, packed & 0xFFFF], axis=1)


def round_near_whole(values: NDArray[Any]) -> NDArray[Any]:
    """Round values that a header's scaling moved off a whole number.

    >>> round_near_whole(np.array([0.0, 1.0000001, 0.5], np.float32))
    array([0. , 1. , 0.5], dtype=float32)
    """
    with np.errstate(invalid="ignore"):  # infinity has no distance from infinity
        rounded = np.rint(values)
        return np.where(np.abs(values - rounded) < _ROUNDING, rounded, values) if values.dtype.kind == "f" else values


def check_colors(colors: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    """Check that each label has a color of its own.

    Args:
        colors: Red, green and blue from 0 to 65535, by label, `background` or `ignore`.
        names: The labels.

    Raises:
        SettingError: A label lacks a color, shares one, or has an invalid one; or a name is unknown.
    """
    unknown = [name for name in colors if name not in (*names, "background", "ignore")]
    missing = [name for name in names if name not in colors]
    if unknown or missing:
        raise SettingError(
            f"labels.colors needs a color for each of labels.names ({', '.join(names)}), and may have one for "
            f"background and ignore; got {', '.join(colors)}."
        )
    if any(len(color) != 3 or not 0 <= min(color) <= max(color) <= 65535 for color in colors.values()):
        raise SettingError(
            "labels.colors must be red, green and blue from 0 to 255, such as [255, 0, 0]; got "
            f"{ {name: list(color) for name, color in colors.items()} }."
        )
    color_of = {"background": (0, 0, 0), **{name: tuple(color) for name, color in colors.items()}}
    for (first, color), (second, other) in combinations(color_of.items(), 2):
        if color == other:
            raise SettingError(
                f"labels.colors gives {first} and {second} the same color, {list(color)}. Give each its own; the "
                "background is black unless it is given a color too."
            )


def _match_mark(pixels: Shaped[np.ndarray, "c ..."], mark: Mark, tolerance: float) -> Bool[np.ndarray, "..."]:
    found = np.ones(pixels.shape[1:], dtype=bool)
    for plane, value in zip(pixels, mark, strict=True):
        if tolerance:
            found &= np.abs(np.subtract(plane, value, dtype=np.float64)) <= tolerance
        else:
            found &= plane == value
    return found


def _require_apart(meaning: Mapping[Mark, int], tolerance: float) -> None:
    for (first, index), (second, other) in combinations(meaning.items(), 2):
        if tolerance and index != other and _measure_distance(first, second) <= 2 * tolerance:
            raise SettingError(
                f"labels.tolerance {tolerance:g} cannot tell {_format_mark(first)} and {_format_mark(second)} apart: "
                f"it must be less than half their distance, {_measure_distance(first, second) / 2:g}."
            )


def _measure_distance(first: Mark, second: Mark) -> int:
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def _describe_unclaimed(
    pixels: Shaped[np.ndarray, "c ..."], where: Bool[np.ndarray, "..."], meaning: Mapping[Mark, int], source: str
) -> MaskValueError:
    strays, count = find_unique_marks(pixels[:, where]), int(where.sum())
    what, unit, remedy = _SAID[len(pixels)]
    message = (
        f"{source} holds the {what}{'s' if len(strays) > 1 else ''} {format_marks(strays)}, which no label claims, in "
        f"{count:,} {unit}{'s' if count > 1 else ''}; expected {format_marks(sorted(meaning), len(meaning))}. {remedy}"
        f"{_suggest_origin(strays.astype(np.float64), _list_rivals(pixels, meaning), what)}"
    )
    values = strays[:, 0].tolist()
    if len(pixels) > 1 or len(values) > _MANY or not all(float(value).is_integer() for value in values):
        return MaskValueError(message)
    claimed = [mark[0] for mark, index in meaning.items() if index and (pixels == mark[0]).any()]
    return MaskValueError(message, map(int, values), claimed)


def _list_rivals(pixels: Shaped[np.ndarray, "c ..."], meaning: Mapping[Mark, int]) -> list[list[Mark]]:
    """List each index's marks in use, or all where none is."""
    rivals = []
    for index in set(meaning.values()):
        marks = [mark for mark, meant in meaning.items() if meant == index]
        rivals.append([mark for mark in marks if _match_mark(pixels, mark, 0).any()] or marks)
    return rivals


def _find_smallest_gap(marks: Iterable[Mark]) -> int:
    return min(_measure_distance(first, second) for first, second in combinations(marks, 2))


def _suggest_origin(strays: Float64[np.ndarray, "n c"], rivals: Sequence[Sequence[Mark]], what: str) -> str:
    """Suggest where marks come from, unless they may be unnamed labels."""
    if (strays[np.isfinite(strays)] % 1).any():
        return (
            " Values between whole numbers are what interpolation leaves: resample masks with nearest neighbor, or "
            "round them with labels.tolerance."
        )
    marks = [mark for alike in rivals for mark in alike]
    few = strays[:_VERY_MANY]
    farthest = np.abs(few[:, None] - np.array(marks)).max(axis=2).min(axis=1).max()
    if len(strays) <= _VERY_MANY and _find_smallest_gap(marks) > max(_NOISE, 2 * farthest) and farthest <= _NOISE:
        return (
            f" None is farther than {farthest:g} from an expected one, as where a lossy format or an annotation tool "
            f"was not exact: if they are no labels of their own, set labels.tolerance to {farthest:g}."
        )
    if len(strays) > _MANY and _find_smallest_gap(alike[-1] for alike in rivals) > _NOISE:
        return (
            f" So many {what}s are what smoothed edges (anti-aliasing) or JPEG leave: export the masks as PNG, without "
            "smoothing."
        )
    return ""


def format_marks(marks: Iterable[Any], most: int = 8) -> str:
    """Format marks for an error message.

    >>> format_marks([(1,), (2,), (3,)], most=2)
    '1, 2 …'
    >>> format_marks([(255, 0, 0)])
    '(255, 0, 0)'
    """
    marks = list(marks)
    return ", ".join(_format_mark(mark) for mark in marks[:most]) + (" …" if len(marks) > most else "")


def _format_mark(mark: Iterable[Any]) -> str:
    values = [f"{value:.0f}" if float(value).is_integer() else f"{value:g}" for value in mark]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def read_palette_values(indices: NDArray[Any], palette: UInt8[np.ndarray, "n 3"], path: Path) -> NDArray[Any]:
    """Return the label values that the indices of a palette stand for.

    Indices are label values, as annotation tools write them. A palette of only white and then black is that of a black
    and white picture, in which white is the label: its 0 and 1 are exchanged.

    Args:
        indices: One for each pixel.
        palette: The colors.
        path: The file, for errors.

    Raises:
        MaskValueError: The order of the colors contradicts the indices, so that either may be meant.

    >>> read_palette_values(np.array([0, 1, 1]), np.array([[255] * 3, [0] * 3], np.uint8), Path("mask.png"))
    array([1, 0, 0])
    """
    used = np.unique(indices)
    table = np.zeros((max(len(palette), int(used[-1]) + 1), 3), np.int64)
    table[: len(palette)] = palette
    if _is_white_before_black(table) and used[-1] <= 1:
        return 1 - indices
    colors = table[used]
    hidden_black = bool(table[0].any()) and used[~colors.any(axis=1)].size > 0
    grays = colors[:, 0] if (colors == colors[:, :1]).all() else np.zeros(0)
    if hidden_black or (np.diff(grays) < 0).any():
        shown = ", ".join(
            f"{index} is {tuple(color)}" for index, color in zip(used[:3].tolist(), colors[:3].tolist(), strict=True)
        )
        raise MaskValueError(
            f"{path} has a palette that runs against its indices ({shown}), so either may be meant. Say with "
            "labels.colors which label each color is, and which is the background."
        )
    return indices


def list_colors(palette: UInt8[np.ndarray, "n 3"]) -> tuple[tuple[int, int, int], ...]:
    """List the color of each label value that `read_palette_values` gives.

    >>> list_colors(np.array([[255] * 3, [0] * 3], np.uint8))
    ((0, 0, 0), (255, 255, 255))
    """
    colors = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    return tuple([colors[1], colors[0], *colors[2:]] if len(colors) > 1 and _is_white_before_black(palette) else colors)


def _is_white_before_black(table: NDArray[Any]) -> bool:
    """Tell whether a palette is white and then black alone."""
    return bool((table[0] == 255).all() and not table[1:].any())
