"""Run-length text as Kaggle writes it: `start length` pairs, counted from 1, row by row."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from medseg_pl.core.errors import MaskValueError


def encode(mask: NDArray[np.bool_]) -> str:
    """The runs of an `(H, W)` mask; an empty mask is an empty text.

    >>> encode(np.array([[True, True, False], [False, False, True]]))
    '1 2 6 1'
    """
    flat = np.concatenate([[False], mask.ravel().astype(bool), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = changes[::2], changes[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts.tolist(), ends.tolist(), strict=True))


def decode(text: str, shape: tuple[int, int], source: str = "run lengths") -> Bool[np.ndarray, "h w"]:
    """The `(H, W)` mask that the runs describe.

    Args:
        text: `start length` pairs; empty for an empty mask.
        shape: `(height, width)`.
        source: What to call the text in an error.

    Raises:
        MaskValueError: The text is no list of pairs, or a run leaves the image.

    >>> decode("1 2 6 1", (2, 3)).astype(int)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    try:
        numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise MaskValueError(f"{source}: expected 'start length' pairs of whole numbers, got {text[:60]!r}.") from None
    if len(numbers) % 2:
        raise MaskValueError(f"{source}: expected 'start length' pairs, got an odd count of {len(numbers)} numbers.")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    # Compared this way round, huge numbers do not overflow.
    if (starts < 0).any() or (lengths < 0).any() or (lengths > mask.size - starts).any():
        raise MaskValueError(
            f"{source}: a run leaves the image of {shape[0]} rows and {shape[1]} columns. "
            "Check that width and height are not exchanged."
        )
    # One index for each pixel of each run: its start repeated, plus its place within the run.
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    mask[np.repeat(starts, lengths) + within] = True
    return mask.reshape(shape)
