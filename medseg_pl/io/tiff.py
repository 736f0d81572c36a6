"""TIFF pictures: one page, in the file's own depth, upright.

Pillow reads 16-bit color as 8-bit and leaves palettes and orientations to the caller; so tifffile decodes all but the
few kinds that only Pillow knows well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io import size_limits
from medseg_pl.io.suffixes import promised_format
from medseg_pl.io.tiff_stack import DAMAGE, is_stack
from medseg_pl.io.tiff_tags import apply_tags, check_depth_for_pillow, is_left_to_pillow, read_orientation


def is_tiff(path: Path) -> bool:
    """Whether the name is that of a TIFF file."""
    return promised_format(path) == "TIFF"


def read(path: Path, *, seen: bool) -> NDArray[Any] | None:
    """Read the only page as `(C, H, W)`; `None` where Pillow reads it better.

    Channels that the file declares to be transparency are dropped, all others are kept.

    Args:
        path: The file.
        seen: Whether pixels are wanted as they are seen, through the file's palette, or as the labels it stands for.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or has several pages.
        MaskValueError: A mask may mean either of two.
    """
    with _page(path) as page:
        if is_left_to_pillow(page):
            check_depth_for_pillow(page, path)
            return None
        planes = _channels_first(page.asarray(), page.axes, path)
        return np.ascontiguousarray(apply_tags(planes, page, path, seen=seen))


def size(path: Path) -> tuple[int, int]:
    """`(height, width)` of what `read` gives, from the header, without decoding."""
    with _page(path) as page:
        height, width = int(page.imagelength), int(page.imagewidth)
        return (width, height) if read_orientation(page) >= 5 else (height, width)


@contextmanager
def _page(path: Path) -> Iterator[Any]:
    """The only page, not yet decoded."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            _check_claim(path, page)
            if is_stack(tiff):
                raise UnreadableFileError(
                    f"{path} holds several pages; expected one image. Save each page as a file of its own, or give the "
                    "stack as a volume."
                )
            yield page
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except DAMAGE as error:
        raise size_limits.unreadable(path, error, "be decoded as an image") from error


def _check_claim(path: Path, page: Any) -> None:
    """Raise `UnreadableFileError` where the page, or one of the tiles it is decoded in, would fill the memory."""
    item_bytes = page.samplesperpixel * -(-page.bitspersample // 8)
    for width, length, depth in (
        (page.imagewidth, page.imagelength, page.imagedepth),
        (page.tilewidth, page.tilelength, page.tiledepth),
    ):
        size_limits.check_claim(path, width * length * depth, size_limits.MAX_PIXELS, "pixels", item_bytes)


def _channels_first(pixels: NDArray[Any], axes: str, path: Path) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3:
        return np.moveaxis(pixels, axes.index("S"), 0) if "S" in axes else pixels
    raise UnreadableFileError(f"{path} has the axes {axes}; expected one plane or one color image.")
