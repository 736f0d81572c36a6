"""Masks with a palette: whether the index of a color is the value of a label, or its opposite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import MaskValueError


def read_palette_values(indices: NDArray[Any], palette: UInt8[np.ndarray, "n 3"], path: Path) -> NDArray[Any]:
    """Return the label values that the indices of a palette stand for.

    Indices are label values, as annotation tools write them. A palette of white before black alone is one of a black
    and white picture, in which white is the label: its 0 and 1 are exchanged.

    Args:
        indices: One for each pixel.
        palette: The colors.
        path: The file, for an error.

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


def colors_by_value(palette: UInt8[np.ndarray, "n 3"]) -> tuple[tuple[int, int, int], ...]:
    """List the color of each label value that `read_palette_values` gives.

    >>> colors_by_value(np.array([[255] * 3, [0] * 3], np.uint8))
    ((0, 0, 0), (255, 255, 255))
    """
    colors = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    return tuple([colors[1], colors[0], *colors[2:]] if len(colors) > 1 and _is_white_before_black(palette) else colors)


def _is_white_before_black(table: NDArray[Any]) -> bool:
    """Tell whether a palette is white and then black alone."""
    return bool((table[0] == 255).all() and not table[1:].any())
