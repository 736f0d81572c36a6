"""TIFF: one page, in the file's own depth, upright.

Pillow reads 16-bit colour as 8-bit and leaves palettes and orientations to the caller; so tifffile decodes all but the
few kinds that only Pillow knows well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io import limits

_ORIENTATION = 0x0112
_MOST_COPIES = 64
"""A pyramid halves its size from page to page, so that none is higher."""


def is_tiff(path: Path) -> bool:
    """Whether the name is that of a TIFF file."""
    return path.suffix.lower() in (".tif", ".tiff")


def read(path: Path, *, seen: bool) -> NDArray[Any] | None:
    """Read the only page as `(C, H, W)`; `None` where Pillow reads it better.

    Args:
        path: The file.
        seen: Whether pixels are wanted as they are seen, through the file's palette, or as they are stored.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or has several pages.
    """
    with _page(path) as page:
        # Fax codes of scanned masks, which not every tifffile knows; and print colours, whose black is no transparency.
        if page.bitspersample == 1 or page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            return None
        planes = _channels_first(page.asarray(), page.axes, path)
        if seen and page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            planes = _through_palette(planes[0], page.colormap)
        return np.ascontiguousarray(_turned(planes, _orientation_of(page)))


def size(path: Path) -> tuple[int, int]:
    """`(height, width)` of what `read` gives, from the header, without decoding."""
    with _page(path) as page:
        height, width = int(page.imagelength), int(page.imagewidth)
        return (width, height) if _orientation_of(page) >= 5 else (height, width)


@contextmanager
def _page(path: Path) -> Iterator[Any]:
    """The only page, not yet decoded."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            _check_claim(path, page)
            _check_alone(path, tiff)
            yield page
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise limits.unreadable(path, error, "be decoded as an image") from error


def _check_claim(path: Path, page: Any) -> None:
    """Raise `UnreadableFileError` where the page, or one of the tiles it is decoded in, would fill the memory."""
    item_bytes = page.samplesperpixel * -(-page.bitspersample // 8)
    for width, length, depth in (
        (page.imagewidth, page.imagelength, page.imagedepth),
        (page.tilewidth, page.tilelength, page.tiledepth),
    ):
        limits.check_claim(path, width * length * depth, limits.MAX_PIXELS, "pixels", item_bytes)


def _check_alone(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raise `UnreadableFileError` where there are pages beside the first that are no small copies of it."""
    stacked = int((tiff.imagej_metadata or {}).get("images", 1))  # ImageJ may describe a stack in a single page
    others: list[Any] = list(islice(tiff.pages, 1, _MOST_COPIES))
    if stacked > 1 or any(not (page.is_reduced or page.is_mask) for page in others):
        raise UnreadableFileError(
            f"{path} holds several pages; expected one image. Save each page as a file of its own, or the stack as a "
            "NIfTI volume."
        )


def _orientation_of(page: Any) -> int:
    """What the page notes of how it lies, in the codes of EXIF."""
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def _turned(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`(C, H, W)` as an orientation code says that it is seen.

    >>> _turned(np.array([[[1, 2, 3]]]), 6).tolist()
    [[[1], [2], [3]]]
    """
    upright = planes.swapaxes(-1, -2) if orientation in (5, 6, 7, 8) else planes
    upright = upright[..., ::-1] if orientation in (2, 3, 6, 7) else upright
    return upright[..., ::-1, :] if orientation in (3, 4, 7, 8) else upright


def _through_palette(indices: NDArray[Any], palette: NDArray[Any]) -> NDArray[Any]:
    """`(C, H, W)` colours of 8 bits, of a palette `(3, n)` in the 16 bits of TIFF; one channel if it has only grays."""
    table = (palette if palette.max() < 256 else palette >> 8).astype(np.uint8)  # some writers ignore the 16 bits
    colours: NDArray[Any] = table[: 1 if (table == table[0]).all() else 3, indices]
    return colours


def _channels_first(pixels: NDArray[Any], axes: str, path: Path) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3:
        return np.moveaxis(pixels, axes.index("S"), 0) if "S" in axes else pixels
    raise UnreadableFileError(f"{path} has the axes {axes}; expected one plane or one colour image.")
