"""Probabilities that come a few rows at a time, from top to bottom, so that no image is too large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from medseg_pl.data.transforms.resize import Resize


class RowBlock(NamedTuple):
    """Whole rows of an image.

    Attributes:
        rows: Which.
        probabilities: Of these rows, `(B, K, rows, W)`.
    """

    rows: slice
    probabilities: Float[Tensor, "b k r w"]


def concat_rows(bands: Iterator[RowBlock]) -> Float[Tensor, "b k h w"]:
    """All rows of an image at once."""
    parts = [band.probabilities for band in bands]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def resize_to_native(
    bands: Iterator[RowBlock], resize: Resize, native: tuple[int, int], most: int = 1 << 23
) -> Iterator[RowBlock]:
    """Bring bands from the fitted grid of an image to its own.

    Args:
        bands: On the fitted grid.
        resize: How the image was brought there.
        native: `(height, width)` of the image.
        most: Values in a band, where the bands have to be made anew.
    """
    if resize.fitted_size(native) == native:
        yield from bands
        return
    fitted = concat_rows(bands)  # scaled to what the network takes, it is small
    height, width = native
    step = max(1, most // (fitted.shape[0] * fitted.shape[1] * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield RowBlock(rows, resize.undo_rows(fitted, native, rows))


def average_members(members: Sequence[Iterator[RowBlock]], height: int) -> Iterator[RowBlock]:
    """The mean of several models, whose bands may end at different rows.

    Args:
        members: The bands of each, of one image.
        height: Of the image.
    """
    if len(members) == 1:
        yield from members[0]
        return
    held = [next(bands) for bands in members]
    done = 0
    while done < height:
        end = min(band.rows.stop for band in held)
        parts = [band.probabilities[..., done - band.rows.start : end - band.rows.start, :] for band in held]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        yield RowBlock(slice(done, end), total / len(parts))
        done = end
        if done < height:
            held = [next(bands) if band.rows.stop == done else band for band, bands in zip(held, members, strict=True)]
