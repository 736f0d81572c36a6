"""JPEG 2000 beyond 8 bits, of which Pillow keeps only those 8, and what its codestream says of itself."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io import size_limits

_START = b"\xff\x4f\xff\x51"
_CODING_STYLE = b"\xff\x52"
_REVERSIBLE = 1
_MOST_HEADER_BYTES = 1 << 20


class Codestream(NamedTuple):
    """The main header of a JPEG 2000 codestream.

    Attributes:
        width: In pixels.
        height: In pixels.
        deep: Whether a channel has other values than 0 to 255.
        lossy: Whether its wavelets change values.
    """

    width: int
    height: int
    deep: bool
    lossy: bool


def read_codestream(path: Path) -> Codestream:
    """Read the main header.

    Raises:
        UnreadableFileError: There is none, or it claims too much.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES)
    start = head.find(_START)
    try:
        _, right, lower, left, upper = struct.unpack_from(">HIIII", head, start + 6)
        (channels,) = struct.unpack_from(">H", head, start + 40)
        depths = [head[start + 42 + 3 * channel] for channel in range(channels)]
        style = head.index(_CODING_STYLE, start + 42 + 3 * channels)
        transform = head[style + 13]
        if start < 0:
            raise ValueError("it has no codestream")
    except (struct.error, IndexError, ValueError) as error:
        raise size_limits.unreadable(path, error, "be decoded as JPEG 2000") from error
    width, height = right - left, lower - upper
    size_limits.check_claim(path, width * height, size_limits.MAX_PIXELS, "pixels", 2 * channels)
    return Codestream(width, height, any(depth > 7 for depth in depths), transform != _REVERSIBLE)


def read_deep_jpeg2000(path: Path) -> NDArray[Any]:
    """Read all channels as `(C, H, W)`, in their own depth.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    try:
        pixels: NDArray[Any] = imagecodecs.jpeg2k_decode(path.read_bytes())
    except (imagecodecs.Jpeg2kError, ValueError, RuntimeError) as error:
        raise size_limits.unreadable(path, error, "be decoded as JPEG 2000") from error
    if not 2 <= pixels.ndim <= 3:
        raise UnreadableFileError(f"{path} has {pixels.ndim} axes; expected one image. Save it as PNG or TIFF.")
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
