"""Windows over an image, the weights that blend them, and padding that can be undone."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SIGMA = 0.125
"""Of the weights of a window, as a share of its side."""


class Padding(NamedTuple):
    """How many rows and columns were added on each side."""

    top: int
    bottom: int
    left: int
    right: int

    def undo(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        """Cut away what was added."""
        height, width = image.shape[-2:]
        return image[..., self.top : height - self.bottom, self.left : width - self.right]


def center_padding(size: tuple[int, int], padded: tuple[int, int]) -> Padding:
    """Compute the padding from `size` to `padded`, half on each side.

    The odd row or column comes at the end.

    >>> center_padding((5, 8), (8, 8))
    Padding(top=1, bottom=2, left=0, right=0)
    """
    rows, columns = (max(0, goal - length) for length, goal in zip(size, padded, strict=True))
    return Padding(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


def compute_padded_size(size: tuple[int, int], multiple: int, at_least: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Compute the smallest size divisible by `multiple` that holds both.

    >>> compute_padded_size((40, 59), multiple=16, at_least=(64, 32))
    (64, 64)
    """
    height, width = (
        -(-max(length, least) // multiple) * multiple for length, least in zip(size, at_least, strict=True)
    )
    return height, width


def pad(image: Float[Tensor, "b c h w"], padding: Padding, fill: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c H W"]:
    """Add a border that holds the fill of each image and channel."""
    if not any(padding):
        return image
    height, width = image.shape[-2:]
    size = (height + padding.top + padding.bottom, width + padding.left + padding.right)
    frame = fill.expand(*image.shape[:2], *size).clone(memory_format=torch.contiguous_format)
    frame[..., padding.top : padding.top + height, padding.left : padding.left + width] = image
    return frame


def list_window_starts(length: int, window: int, overlap: float) -> list[int]:
    """List where windows begin along one axis, the last one flush.

    The step is `window * (1 - overlap)`, as in MONAI's sliding window.

    >>> list_window_starts(length=10, window=4, overlap=0.5)
    [0, 2, 4, 6]
    """
    if window >= length:
        return [0]
    # Truncated as in MONAI, so that windows are the same ones.
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(index * step, length - window) for index in range(count)]


def list_windows(size: tuple[int, int], window: tuple[int, int], overlap: float) -> list[tuple[slice, slice]]:
    """List all windows over an image, row by row."""
    rows, columns = (list_window_starts(length, side, overlap) for length, side in zip(size, window, strict=True))
    return [(slice(y, y + window[0]), slice(x, x + window[1])) for y, x in product(rows, columns)]


@lru_cache(maxsize=8)
def gaussian_weights(window: tuple[int, int], sigma_scale: float = SIGMA) -> Float[Tensor, "h w"]:
    """Compute weights that trust the middle of a window most.

    They are never zero, so that every pixel has a value.

    References:
        Isensee et al., "nnU-Net", Nature Methods 18, 2021: sigma is one eighth of the window.
    """
    axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in window]
    y, x = (torch.exp(-0.5 * (axis / (side * sigma_scale)) ** 2) for axis, side in zip(axes, window, strict=True))
    weights = y[:, None] * x[None, :]
    return weights.clamp(min=float(weights[weights > 0].min()), max=None).clamp(min=1e-3)
