"""TIFF pictures: one page, in the file's own depth and upright, with the meaning that its tags give its samples.

Pillow reads 16-bit color as 8-bit and leaves palettes and orientations to the caller; so tifffile decodes all but the
few kinds that only Pillow knows well.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl.core.errors import MaskValueError, MissingDataError, UnreadableFileError, count_noun
from medseg_pl.core.mask_values import read_palette_values
from medseg_pl.io import size_limits
from medseg_pl.io.paths import promised_format

# A pyramid halves its size from page to page, so that none is higher
_MOST_COPIES = 64
DAMAGE = (
    *(tifffile.TiffFileError, OSError, EOFError, ArithmeticError, AttributeError, LookupError, RuntimeError),
    *(AssertionError, TypeError, ValueError, struct.error, zlib.error),
)
"""What tifffile raises on tags and pixels that make no sense."""


def is_stack(tiff: tifffile.TiffFile) -> bool:
    """Tell whether an open TIFF is a stack of images.

    Small copies of the first page do not count; a description of more images does.
    """
    others: list[Any] = list(islice(tiff.pages, 1, _MOST_COPIES))
    described = int((tiff.imagej_metadata or {}).get("images", 1))  # ImageJ may put a stack into a single page
    return described > 1 or any(not (page.is_reduced or page.is_mask) for page in others)


def is_stack_file(path: Path) -> bool:
    """Tell whether a file is a TIFF stack.

    It is none where it cannot be opened, which its reader reports.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            return is_stack(tiff)
    except DAMAGE:
        return False


def is_tiff(path: Path) -> bool:
    """Check by the name whether a file is TIFF."""
    return promised_format(path) == "TIFF"


def read(path: Path, *, seen: bool) -> NDArray[Any] | None:
    """Read the only page as `(C, H, W)`.

    Channels that the file declares to be transparency are dropped, all others are kept.

    Args:
        path: The file.
        seen: Whether pixels are wanted as they are seen, through the file's palette, or as the labels it stands for.

    Returns:
        `None` where Pillow reads the file better.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or has several pages.
        MaskValueError: A mask may mean either of two.
    """
    with _open_page(path) as page:
        if is_left_to_pillow(page):
            check_depth_for_pillow(page, path)
            return None
        planes = _move_channels_first(page.asarray(), page.axes, path)
        return np.ascontiguousarray(apply_tags(planes, page, path, seen=seen))


def size(path: Path) -> tuple[int, int]:
    """Read the `(height, width)` of what `read` gives, without decoding."""
    with _open_page(path) as page:
        height, width = int(page.imagelength), int(page.imagewidth)
        # Codes 5 to 8 exchange rows and columns.
        return (width, height) if read_orientation(page) >= 5 else (height, width)


@contextmanager
def _open_page(path: Path) -> Iterator[Any]:
    """Open the only page, not yet decoded."""
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
        raise size_limits.make_decoding_error(path, error, "be decoded as an image") from error


def _check_claim(path: Path, page: Any) -> None:
    """Check that the page and its tiles do not fill the memory."""
    item_bytes = page.samplesperpixel * -(-page.bitspersample // 8)
    for width, length, depth in (
        (page.imagewidth, page.imagelength, page.imagedepth),
        (page.tilewidth, page.tilelength, page.tiledepth),
    ):
        size_limits.check_claim(path, width * length * depth, size_limits.MAX_PIXELS, "pixels", item_bytes)


def _move_channels_first(pixels: NDArray[Any], axes: str, path: Path) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3:
        return np.moveaxis(pixels, axes.index("S"), 0) if "S" in axes else pixels
    raise UnreadableFileError(f"{path} has the axes {axes}; expected one plane or one color image.")


_ORIENTATION = 0x0112
_PHOTOMETRIC = tifffile.PHOTOMETRIC
_READ = (_PHOTOMETRIC.MINISWHITE, _PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.RGB, _PHOTOMETRIC.PALETTE, _PHOTOMETRIC.YCBCR)
_COLORS = (_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR)
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG_LOSSY)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


def is_left_to_pillow(page: Any) -> bool:
    """Tell whether Pillow applies the page's tags better than tifffile.

    It does for fax codes of scanned masks, which not every tifffile knows; for print colors, whose black is no
    transparency; and for luminance with color differences, unless JPEG's decoder turns them into colors.
    """
    return bool(page.bitspersample == 1 or page.photometric == _PHOTOMETRIC.SEPARATED or _has_differences(page))


def check_depth_for_pillow(page: Any, path: Path) -> None:
    """Check that a page has at most the 8 bits Pillow keeps.

    Raises:
        UnreadableFileError: It has more.
    """
    if page.bitspersample > 8:
        raise UnreadableFileError(
            f"{path} stores {page.bitspersample} bits as {page.photometric.name}, of which 8 would be read. Save it as "
            "RGB or gray."
        )


def apply_tags(planes: NDArray[Any], page: Any, path: Path, *, seen: bool) -> NDArray[Any]:
    """Interpret stored samples by the page's tags.

    Args:
        planes: `(C, ..., H, W)` as decoded; of several channels with several samples each, samples are inside.
        page: The page with the tags.
        path: The file, for errors.
        seen: Whether colors are wanted through a palette, or the labels that it stands for.

    Raises:
        UnreadableFileError: The tags ask for what is not read.
        MaskValueError: A palette, or an inverted table of ImageJ's, may mean either of two masks.
    """
    if page.photometric not in _READ or _has_differences(page):
        name = getattr(page.photometric, "name", page.photometric)
        raise UnreadableFileError(f"{path} stores its colors as {name}, which is not read. Save it as RGB or gray.")
    if planes.dtype.kind not in "iufb":
        raise UnreadableFileError(
            f"{path} holds values of the type {planes.dtype}; expected one real number per sample."
        )
    planes = _drop_alpha(planes, page, path)
    if page.photometric == _PHOTOMETRIC.MINISWHITE:
        planes = _count_from_black(planes, page, path, seen=seen)
    if page.photometric == _PHOTOMETRIC.PALETTE:
        if len(planes) != 1:
            raise UnreadableFileError(
                f"{path} has a palette and {count_noun(len(planes), 'channel')}, which is not read. Save them as gray."
            )
        table = read_palette(page.colormap)
        planes = _look_up(planes[0], table) if seen else read_palette_values(planes[0], table.T, path)[None]
    return turn(planes, read_orientation(page))


def read_orientation(page: Any) -> int:
    """Return how the page lies, in the codes of EXIF."""
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def turn(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels to the way they are seen.

    Args:
        planes: `(..., H, W)`.
        orientation: The code of TIFF and EXIF, from 1 to 8.

    >>> turn(np.array([[[1, 2, 3]]]), 6).tolist()
    [[[1], [2], [3]]]
    """
    upright = planes.swapaxes(-1, -2) if orientation in (5, 6, 7, 8) else planes
    upright = upright[..., ::-1] if orientation in (2, 3, 6, 7) else upright
    return upright[..., ::-1, :] if orientation in (3, 4, 7, 8) else upright


def find_alpha(page: Any) -> list[int]:
    """List the samples of a page that it declares to be transparency."""
    first = int(page.samplesperpixel) - len(page.extrasamples)
    return [first + place for place, kind in enumerate(page.extrasamples) if kind in _ALPHA]


def _has_differences(page: Any) -> bool:
    """Tell whether samples are luminance and color differences."""
    # Only a JPEG's decoder turns these into colors.
    return bool(page.photometric == _PHOTOMETRIC.YCBCR and page.compression not in _JPEG)


def _drop_alpha(planes: NDArray[Any], page: Any, path: Path) -> NDArray[Any]:
    """Keep the channels of data, unspecified ones included."""
    if page.photometric in _COLORS and int(page.samplesperpixel) == 4 and not page.extrasamples:
        raise UnreadableFileError(
            f"{path} has four channels and does not say whether the last is transparency. Set its ExtraSamples tag "
            "(tiffset -s 338 1 0 for data, 2 for transparency)."
        )
    alpha, samples = set(find_alpha(page)), int(page.samplesperpixel)
    # A stack may have several channels, each with all samples of a page, which are the inner axis.
    return planes[[plane for plane in range(len(planes)) if plane % samples not in alpha]] if alpha else planes


def _count_from_black(planes: NDArray[Any], page: Any, path: Path, *, seen: bool) -> NDArray[Any]:
    """Exchange bright and dark of samples in which white is zero."""
    if not seen and page.is_imagej:
        raise MaskValueError(
            f"{path} was saved by ImageJ with an inverted table, so black or white may be the label. Say with "
            "labels.colors which label each color is, and which is the background."
        )
    if planes.dtype.kind != "u":
        raise UnreadableFileError(
            f"{path} says that zero is white, which means nothing for values of the type {planes.dtype}. Save it again "
            "with zero as black (PhotometricInterpretation 1)."
        )
    exchanged: NDArray[Any] = planes.dtype.type(2 ** int(page.bitspersample) - 1) - planes
    return exchanged


def read_palette(colormap: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a palette `(3, n)` to 8 bits.

    Some writers ignore that TIFF has 16.
    """
    return (colormap if colormap.max() < 256 else colormap >> 8).astype(np.uint8)


def _look_up(indices: NDArray[Any], table: NDArray[np.uint8]) -> NDArray[Any]:
    """Look up 8-bit colors, in one channel for a gray palette."""
    colors: NDArray[Any] = table[: 1 if (table == table[0]).all() else 3, indices]
    return colors
