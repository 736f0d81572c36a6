"""Arithmetic of sizes, padding and windows, and the scaling of slices.

An exported model ships this file: it imports NumPy and OpenCV alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIGMA = 0.125
"""Of the weights of a window, as a share of its side."""


class Padding(NamedTuple):
    """How many rows and columns were added on each side."""

    top: int
    bottom: int
    left: int
    right: int

    def undo(self, image: Any) -> Any:
        """Cut the padding off `(..., H, W)` without a copy."""
        height, width = image.shape[-2:]
        return image[..., self.top : height - self.bottom, self.left : width - self.right]


def center_padding(size: tuple[int, int], padded: tuple[int, int]) -> Padding:
    """Compute the padding from `size` to `padded`, half on each side.

    Args:
        size: `(height, width)` of the image.
        padded: `(height, width)` to reach; an odd row or column comes at the end.

    >>> center_padding((5, 8), (8, 8))
    Padding(top=1, bottom=2, left=0, right=0)
    """
    rows, columns = (max(0, goal - length) for length, goal in zip(size, padded, strict=True))
    return Padding(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


def compute_padded_size(size: tuple[int, int], multiple: int, at_least: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Compute the smallest size divisible by `multiple` that holds an image.

    Args:
        size: `(height, width)` of the image.
        multiple: The divisor of both sides.
        at_least: The smallest `(height, width)`.

    >>> compute_padded_size((40, 59), multiple=16, at_least=(64, 32))
    (64, 64)
    """
    height, width = (
        -(-max(length, least) // multiple) * multiple for length, least in zip(size, at_least, strict=True)
    )
    return height, width


def list_window_starts(length: int, window: int, overlap: float) -> list[int]:
    """List where windows begin along one axis, the last one flush.

    The step is `window * (1 - overlap)`, as in MONAI's sliding window.

    Args:
        length: Pixels along the axis.
        window: Those of a window.
        overlap: The share of a window that the next one covers, below 1.

    >>> list_window_starts(length=10, window=4, overlap=0.5)
    [0, 2, 4, 6]
    """
    if window >= length:
        return [0]
    # Truncated as in MONAI, so that windows are the same ones.
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(index * step, length - window) for index in range(count)]


def scale_size(native: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """Compute the size of a slice scaled along each axis.

    Args:
        native: `(height, width)`.
        scale: The factor of each.

    >>> scale_size((10, 7), (0.5, 2.0))
    (5, 14)
    """
    height, width = (max(1, round(length * grow)) for length, grow in zip(native, scale, strict=True))
    return height, width


def fit_size(native: tuple[int, int], goal: tuple[int, int]) -> tuple[int, int]:
    """Compute a slice's largest size that fits, with its proportions.

    Args:
        native: `(height, width)` of the slice.
        goal: `(height, width)` to fit into.

    >>> fit_size((400, 200), (100, 100))
    (100, 50)
    """
    # One scale for both sides keeps proportions.
    scale = min(side / length for side, length in zip(goal, native, strict=True))
    height, width = (min(side, max(1, round(length * scale))) for side, length in zip(goal, native, strict=True))
    return height, width


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale an image; by area when shrinking, against aliasing.

    Args:
        image: `(C, H, W)`.
        size: `(height, width)` afterwards.
    """
    height, width = size
    if image.shape[1:] == size:
        return image
    method = cv2.INTER_AREA if image.shape[1] * image.shape[2] > height * width else cv2.INTER_LINEAR
    # Channel by channel: OpenCV takes four at most for some types.
    return np.stack([cv2.resize(channel, (width, height), interpolation=method) for channel in image])


def resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale a mask; each value is the nearest pixel's.

    Args:
        mask: `(M, H, W)`.
        size: `(height, width)` afterwards.

    >>> resize_mask(np.array([[[1, 2]]], np.uint8), (1, 4)).tolist()
    [[[1, 1, 2, 2]]]
    """
    height, width = size
    if mask.shape[1:] == size:
        return mask
    # Plain INTER_NEAREST takes the corner of each cell: it shifts a mask against its image by half a cell.
    nearest = cv2.INTER_NEAREST_EXACT
    return np.stack([cv2.resize(plane, (width, height), interpolation=nearest) for plane in mask])


def stack_context(image: NDArray[Any], depth: int, context: int) -> NDArray[Any]:
    """Stack a slice with its neighbors as channels.

    Beyond an end of the volume, its outermost slice is repeated.

    Args:
        image: `(C, D, H, W)`.
        depth: The number of the slice.
        context: Neighbors on each side.

    Returns:
        `(C * (2 * context + 1), H, W)`; the neighbor is the outer index, the channel the inner one.
    """
    if not context:
        return image[:, depth]
    places = np.clip(np.arange(depth - context, depth + context + 1), 0, image.shape[1] - 1)
    return image[:, places].swapaxes(0, 1).reshape(-1, *image.shape[2:])


def pad_constant(image: NDArray[Any], padding: Padding, fill: NDArray[Any]) -> NDArray[Any]:
    """Pad an image with a constant for each channel.

    Args:
        image: `(C, H, W)`.
        padding: Rows and columns to add on each side.
        fill: `(C,)` values of the border.
    """
    if not any(padding):
        return image
    channels, height, width = image.shape
    frame = np.empty(
        (channels, height + padding.top + padding.bottom, width + padding.left + padding.right), image.dtype
    )
    frame[...] = fill[:, None, None].astype(image.dtype)
    frame[:, padding.top : padding.top + height, padding.left : padding.left + width] = image
    return frame
