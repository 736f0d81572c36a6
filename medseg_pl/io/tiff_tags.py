"""Tags of a TIFF that say what its pixels mean: what white is, which channels are colors, which is transparency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl.core.errors import MaskValueError, UnreadableFileError
from medseg_pl.io.palettes import read_palette_values

_ORIENTATION = 0x0112
_PHOTOMETRIC = tifffile.PHOTOMETRIC
_READ = (_PHOTOMETRIC.MINISWHITE, _PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.RGB, _PHOTOMETRIC.PALETTE, _PHOTOMETRIC.YCBCR)
_COLORS = (_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR)
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG_LOSSY)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


def is_left_to_pillow(page: Any) -> bool:
    """Tell whether Pillow applies the page's tags better than tifffile.

    Fax codes of scanned masks, which not every tifffile knows; print colors, whose black is no transparency; and
    luminance with color differences, unless JPEG's decoder turns them into colors.
    """
    return bool(page.bitspersample == 1 or page.photometric == _PHOTOMETRIC.SEPARATED or _has_differences(page))


def check_depth_for_pillow(page: Any, path: Path) -> None:
    """Raise `UnreadableFileError` where Pillow would keep 8 bits of more."""
    if page.bitspersample > 8:
        raise UnreadableFileError(
            f"{path} stores {page.bitspersample} bits as {page.photometric.name}, of which 8 would be read. Save it as "
            "RGB or gray."
        )


def apply_tags(planes: NDArray[Any], page: Any, path: Path, *, seen: bool) -> NDArray[Any]:
    """Give stored samples the meaning that the page's tags say they have.

    Args:
        planes: `(C, ..., H, W)` as decoded; of several channels with several samples each, samples are inside.
        page: The page, whose tags count.
        path: The file, for an error.
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
                f"{path} has a palette and {len(planes)} channels, which is not read. Save them as gray."
            )
        table = read_palette(page.colormap)
        planes = _look_up(planes[0], table) if seen else read_palette_values(planes[0], table.T, path)[None]
    return turn(planes, read_orientation(page))


def read_orientation(page: Any) -> int:
    """Return how the page lies, in the codes of EXIF."""
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def turn(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `(..., H, W)` as an orientation code says that it is seen.

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
    """Tell whether samples are luminance and color differences, which only a JPEG's decoder turns into colors."""
    return bool(page.photometric == _PHOTOMETRIC.YCBCR and page.compression not in _JPEG)


def _drop_alpha(planes: NDArray[Any], page: Any, path: Path) -> NDArray[Any]:
    """Keep the channels of data, those that the file declares to be of no special kind included."""
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
    """Return a palette `(3, n)` of 8 bits; some writers ignore that TIFF has 16."""
    return (colormap if colormap.max() < 256 else colormap >> 8).astype(np.uint8)


def _look_up(indices: NDArray[Any], table: NDArray[np.uint8]) -> NDArray[Any]:
    """`(C, ..., H, W)` colors of 8 bits; one channel if the palette has only grays."""
    colors: NDArray[Any] = table[: 1 if (table == table[0]).all() else 3, indices]
    return colors
