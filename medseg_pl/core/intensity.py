"""Statistics of an image's values, for normalization and padding.

An exported model ships this file: it imports numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, STD, LOW, HIGH = range(4)
"""The columns of the statistics."""

SAMPLE = 4_000_000
"""How many values of a channel its statistics are made of, at least half as many where there are more."""

PERCENTILES = (0.5, 99.5)
"""What stands for the lowest and the highest value."""


def compute_channel_statistics(
    image: NDArray[Any], percentiles: Sequence[float] = PERCENTILES, sample: int = SAMPLE
) -> NDArray[np.float32]:
    """Compute mean, standard deviation and the two percentiles of each channel.

    Mean and standard deviation are those of the values clipped to the percentiles, so that a few hot pixels, or metal,
    do not dominate them. Values that are not finite do not count. A channel of one value has a standard deviation of
    1: dividing by it changes nothing.

    Args:
        image: `(C, ...)` raw values.
        percentiles: Percentiles that stand for the lowest and the highest value.
        sample: The values examined in a channel; at least half as many where it has more.

    Returns:
        `(C, 4)` in the order of `MEAN`, `STD`, `LOW`, `HIGH`.

    >>> compute_channel_statistics(np.array([[0.0, 2.0]])).round(2)
    array([[1.  , 0.99, 0.01, 1.99]], dtype=float32)
    """
    return np.stack([_describe(channel.ravel(), percentiles, sample) for channel in image]).astype(np.float32)


def _describe(values: NDArray[Any], percentiles: Sequence[float], sample: int) -> NDArray[np.float64]:
    # Every k-th value of a large volume: percentiles sort, and four million values fix them to three digits.
    values = values[:: max(1, values.size // sample)].astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.array([0.0, 1.0, 0.0, 0.0])
    low, high = np.percentile(finite, percentiles)
    if low == high:  # less than one percent of the image is anything but ground
        low, high = finite.min(), finite.max()
    clipped = finite.clip(low, high)
    # Rounding gives equal values a standard deviation of 1e-17 instead of 0.
    spread = clipped.std() if low < high else 1.0
    return np.array([clipped.mean(), spread, low, high])


def replace_not_finite(image: NDArray[np.float32], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace NaN and infinities by the percentiles of their channel.

    NaN and minus infinity become the low percentile, infinity becomes the high one.

    Args:
        image: `(C, H, W)`.
        statistics: `(C, 4)` of its channels.
    """
    finite = np.isfinite(image)
    if finite.all():
        return image
    low, high = statistics[:, LOW, None, None], statistics[:, HIGH, None, None]
    replaced: NDArray[np.float32] = np.where(finite, image, np.where(image == np.inf, high, low))
    return replaced
