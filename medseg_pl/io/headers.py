"""What a file says of itself before anything is decoded: how its values are stored, and how large it claims to be."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_pl.core.errors import DataError, UnreadableFileError
from medseg_pl.io import jpeg2000, size_limits
from medseg_pl.io.file_type import content_of
from medseg_pl.io.itk_header import read_itk_header
from medseg_pl.io.nifti import is_unspaced
from medseg_pl.io.palettes import colors_by_value
from medseg_pl.io.raster import open_undecoded
from medseg_pl.io.suffixes import is_itk, is_nifti, is_picture, promised_format
from medseg_pl.io.tiff_stack import is_stack, makes_volume
from medseg_pl.io.tiff_tags import find_alpha, read_palette

_ORIENTATION = 0x0112
_TIMES = ("sec", "msec", "usec")
_DEFLATE_RATIO = 1032
"""Deflate packs no tighter: a file that claims more than this cannot hold it."""
_WITH_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_WITHOUT_COLOR = ("1", "L", "LA", "La", "P", "PA", "I", "I;16", "I;16B", "F")
_DAMAGE = (
    *(tifffile.TiffFileError, UnidentifiedImageError, ImageFileError, HeaderDataError, OSError, EOFError),
    *(ArithmeticError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(AssertionError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class FileHeader:
    """The header of an image file.

    Args:
        content: The format by the file's content, see `medseg_pl.io.file_type`.
        claimed_bytes: What it takes in memory once decoded, 0 where the header cannot be read.
        too_large: Whether it is not decoded for the size that it claims.
        cut_off: Whether the file ends before the data that its header speaks of.
        orientation: How EXIF, or TIFF, turns the pixels; 1 for not at all.
        size: `(height, width)` as stored, before anything is turned; `None` of volumes.
        stacked: Whether the file holds several images that make no volume.
        lossy: Whether its compression changes values.
        palette: Whether values are indices of a palette.
        colors: The color of each value, of a picture with a palette.
        colored: Whether a pixel has three channels.
        alpha: `none`, `opaque` or `varying`.
        scaled: Whether the header scales the values.
        times: How many points in time a volume has, by its header; 0 where it speaks of none.
        unspaced: Whether the header of a volume gives no spacing, so that it is taken for 1 mm.
    """

    content: str
    claimed_bytes: int = 0
    too_large: bool = False
    cut_off: bool = False
    orientation: int = 1
    size: tuple[int, int] | None = None
    stacked: bool = False
    lossy: bool = False
    palette: bool = False
    colors: tuple[tuple[int, int, int], ...] = ()
    colored: bool = False
    alpha: str = "none"
    scaled: bool = False
    times: int = 0
    unspaced: bool = False


def read_header(path: Path) -> FileHeader:
    """The header of a picture or volume; of a file that cannot be opened only what its first bytes tell."""
    content = content_of(path)
    try:
        if is_nifti(path):
            return _nifti(path, content)
        if is_itk(path):
            return _itk(path, content)
        return _tiff(path) if content == "TIFF" else _raster(path, content)
    except (DataError, *_DAMAGE):
        return FileHeader(content)


def _nifti(path: Path, content: str) -> FileHeader:
    image: Any = nibabel.load(path)
    voxels, item_bytes = math.prod(image.shape), int(image.get_data_dtype().itemsize)
    room = path.stat().st_size * (_DEFLATE_RATIO if content == "gzip" else 1)
    return FileHeader(
        content,
        claimed_bytes=voxels * item_bytes,
        too_large=_refused(path, voxels, size_limits.MAX_VOXELS, item_bytes)
        or (content == "gzip" and voxels * item_bytes > room),
        cut_off=content == "NIfTI" and image.dataobj.offset + voxels * item_bytes > room,
        scaled=(image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0),
        times=_count_times(image),
        unspaced=is_unspaced(path),
    )


def _count_times(image: Any) -> int:
    timed = len(image.shape) == 4 and image.header["pixdim"][4] > 0 and image.header.get_xyzt_units()[1] in _TIMES
    return int(image.shape[3]) if timed else 0


def _itk(path: Path, content: str) -> FileHeader:
    header = read_itk_header(path)
    return FileHeader(
        content,
        claimed_bytes=header.voxels * header.item_bytes,
        too_large=_refused(path, header.voxels, size_limits.MAX_VOXELS, header.item_bytes) or header.overblown,
        cut_off=header.cut_off,
        scaled=header.scaling != (1.0, 0.0),
    )


def is_lossy(path: Path) -> bool:
    """Tell whether a picture's compression changes values: by the name of a JPEG, by the header of others."""
    return is_picture(path) and (promised_format(path) == "JPEG" or read_header(path).lossy)


def _raster(path: Path, content: str) -> FileHeader:
    with open_undecoded(path) as image:
        pixels, item_bytes = image.width * image.height, len(image.getbands())
        if _refused(path, pixels, size_limits.MAX_PIXELS, item_bytes):
            return FileHeader(content, claimed_bytes=pixels * item_bytes, too_large=True)  # looked at no further
        return FileHeader(
            content,
            claimed_bytes=pixels * item_bytes,
            orientation=int(image.getexif().get(_ORIENTATION, 1)),
            size=(image.height, image.width),
            lossy=_is_lossy(path, content),
            palette=image.mode == "P",
            colors=_colors(np.array(image.getpalette("RGB"))) if image.mode == "P" else (),
            colored=image.mode not in _WITHOUT_COLOR,
            alpha=_alpha(image) if image.mode in _WITH_ALPHA else "none",
        )


def _colors(palette: NDArray[Any]) -> tuple[tuple[int, int, int], ...]:
    """The colors of a palette's values, as far as bytes reach."""
    table = palette.reshape(-1, 3) if palette.shape[0] != 3 or palette.ndim == 1 else palette.T
    return colors_by_value(table[:256].astype(np.uint8))


def _is_lossy(path: Path, content: str) -> bool:
    if content == "JPEG 2000":
        return jpeg2000.read_codestream(path).lossy
    return content == "JPEG" or (content == "WebP" and b"VP8 " in _webp_chunks(path))


def _webp_chunks(path: Path) -> Iterator[bytes]:
    """The names of a WebP file's chunks."""
    with path.open("rb") as file:
        place, size = 12, path.stat().st_size
        while place + 8 <= size:
            file.seek(place)
            name, length = struct.unpack("<4sI", file.read(8))
            yield name
            place += 8 + length + length % 2


def _alpha(image: Image.Image) -> str:
    try:
        low, high = image.getchannel("A").getextrema()
    except _DAMAGE:  # of the pixels, which is for the reader to say
        return "none"
    return "opaque" if low == high else "varying"


def _tiff(path: Path) -> FileHeader:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        samples = int(page.samplesperpixel)
        pixels, item_bytes = int(page.imagewidth * page.imagelength), samples * -(-page.bitspersample // 8)
        too_large = _refused(path, pixels, size_limits.MAX_PIXELS, item_bytes)
        orientation = page.tags.get(_ORIENTATION)
        return FileHeader(
            "TIFF",
            claimed_bytes=pixels * item_bytes,
            too_large=too_large,
            cut_off=_last_byte(page) > path.stat().st_size,
            orientation=1 if orientation is None else int(orientation.value),
            size=(int(page.imagelength), int(page.imagewidth)),
            stacked=is_stack(tiff) and not makes_volume(tiff),
            lossy=page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG),
            palette=page.photometric == tifffile.PHOTOMETRIC.PALETTE,
            colors=_colors(read_palette(page.colormap)) if page.photometric == tifffile.PHOTOMETRIC.PALETTE else (),
            colored=samples >= 3,
            alpha=_tiff_alpha(page, find_alpha(page)),
        )


def _last_byte(page: Any) -> int:
    """Where the last strip or tile ends."""
    return max((start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)


def _tiff_alpha(page: Any, channels: list[int]) -> str:
    """What the channels of transparency hide."""
    if not channels:
        return "none"
    try:
        pixels = page.asarray()
    except _DAMAGE:
        return "none"
    alpha = np.take(pixels, channels, axis=page.axes.index("S"))
    return "opaque" if alpha.min() == alpha.max() else "varying"


def _refused(path: Path, count: int, most: int, item_bytes: int) -> bool:
    try:
        size_limits.check_claim(path, count, most, "items", item_bytes)
    except UnreadableFileError:
        return True
    return False
