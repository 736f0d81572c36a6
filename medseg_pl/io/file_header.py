"""What a file is by its first bytes, and what its header says before anything is decoded."""

from __future__ import annotations

import codecs
import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_pl.core.errors import DataError, UnreadableFileError
from medseg_pl.core.mask_values import list_colors
from medseg_pl.io import size_limits
from medseg_pl.io.itk import read_itk_header
from medseg_pl.io.nifti import is_unspaced, list_damage
from medseg_pl.io.paths import is_itk, is_nifti, is_picture, promised_format
from medseg_pl.io.raster import open_undecoded, read_codestream
from medseg_pl.io.tiff import find_alpha, is_stack, read_palette
from medseg_pl.io.volumes import makes_volume

_ORIENTATION = 0x0112
_TIMES = ("sec", "msec", "usec")
# Deflate packs no tighter: a file that claims more than this cannot hold it
_DEFLATE_RATIO = 1032
_WITH_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_WITHOUT_COLOR = ("1", "L", "LA", "La", "P", "PA", "I", "I;16", "I;16B", "F")
_DAMAGE = (
    *(tifffile.TiffFileError, UnidentifiedImageError, OSError, EOFError),
    *(ArithmeticError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(AssertionError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class FileHeader:
    """The header of an image file.

    Args:
        content: The format by the file's content, see `medseg_pl.io.file_header`.
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
    """Read the header of a picture or volume.

    A file that cannot be opened has only its format.
    """
    content = detect_format(path)
    try:
        if is_nifti(path):
            return _read_nifti_header(path, content)
        if is_itk(path):
            return _read_itk_header(path, content)
        return _read_tiff_header(path) if content == "TIFF" else _read_raster_header(path, content)
    except _list_damage():
        return FileHeader(content)


def _list_damage() -> tuple[type[Exception], ...]:
    return (DataError, *_DAMAGE, *list_damage())


def _read_nifti_header(path: Path, content: str) -> FileHeader:
    import nibabel  # noqa: PLC0415  see `medseg_pl.io.nifti`

    image: Any = nibabel.load(path)
    voxels, item_bytes = math.prod(image.shape), int(image.get_data_dtype().itemsize)
    room = path.stat().st_size * (_DEFLATE_RATIO if content == "gzip" else 1)
    return FileHeader(
        content,
        claimed_bytes=voxels * item_bytes,
        too_large=_is_too_large(path, voxels, size_limits.MAX_VOXELS, item_bytes)
        or (content == "gzip" and voxels * item_bytes > room),
        cut_off=content == "NIfTI" and image.dataobj.offset + voxels * item_bytes > room,
        scaled=(image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0),
        times=_count_times(image),
        unspaced=is_unspaced(path),
    )


def _count_times(image: Any) -> int:
    timed = len(image.shape) == 4 and image.header["pixdim"][4] > 0 and image.header.get_xyzt_units()[1] in _TIMES
    return int(image.shape[3]) if timed else 0


def _read_itk_header(path: Path, content: str) -> FileHeader:
    header = read_itk_header(path)
    return FileHeader(
        content,
        claimed_bytes=header.voxels * header.item_bytes,
        too_large=_is_too_large(path, header.voxels, size_limits.MAX_VOXELS, header.item_bytes) or header.overblown,
        cut_off=header.cut_off,
        scaled=header.scaling != (1.0, 0.0),
    )


def is_lossy(path: Path) -> bool:
    """Tell whether a picture's compression changes values.

    The name of a JPEG tells, and the header of other files.
    """
    return is_picture(path) and (promised_format(path) == "JPEG" or read_header(path).lossy)


def _read_raster_header(path: Path, content: str) -> FileHeader:
    with open_undecoded(path) as image:
        pixels, item_bytes = image.width * image.height, len(image.getbands())
        if _is_too_large(path, pixels, size_limits.MAX_PIXELS, item_bytes):
            return FileHeader(content, claimed_bytes=pixels * item_bytes, too_large=True)  # looked at no further
        return FileHeader(
            content,
            claimed_bytes=pixels * item_bytes,
            orientation=int(image.getexif().get(_ORIENTATION, 1)),
            size=(image.height, image.width),
            lossy=_is_lossy(path, content),
            palette=image.mode == "P",
            colors=_list_palette_colors(np.array(image.getpalette("RGB"))) if image.mode == "P" else (),
            colored=image.mode not in _WITHOUT_COLOR,
            alpha=_classify_alpha(image) if image.mode in _WITH_ALPHA else "none",
        )


def _list_palette_colors(palette: NDArray[Any]) -> tuple[tuple[int, int, int], ...]:
    """List the colors of a palette's first 256 values."""
    table = palette.reshape(-1, 3) if palette.shape[0] != 3 or palette.ndim == 1 else palette.T
    return list_colors(table[:256].astype(np.uint8))


def _is_lossy(path: Path, content: str) -> bool:
    if content == "JPEG 2000":
        return read_codestream(path).lossy
    return content == "JPEG" or (content == "WebP" and b"VP8 " in _iterate_webp_chunks(path))


def _iterate_webp_chunks(path: Path) -> Iterator[bytes]:
    """Yield the names of a WebP file's chunks."""
    with path.open("rb") as file:
        place, size = 12, path.stat().st_size
        while place + 8 <= size:
            file.seek(place)
            name, length = struct.unpack("<4sI", file.read(8))
            yield name
            place += 8 + length + length % 2  # RIFF pads chunks to an even length


def _classify_alpha(image: Image.Image) -> str:
    try:
        low, high = image.getchannel("A").getextrema()
    except _DAMAGE:  # of the pixels, which is for the reader to say
        return "none"
    return "opaque" if low == high else "varying"


def _read_tiff_header(path: Path) -> FileHeader:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        samples = int(page.samplesperpixel)
        pixels, item_bytes = int(page.imagewidth * page.imagelength), samples * -(-page.bitspersample // 8)
        too_large = _is_too_large(path, pixels, size_limits.MAX_PIXELS, item_bytes)
        orientation = page.tags.get(_ORIENTATION)
        return FileHeader(
            "TIFF",
            claimed_bytes=pixels * item_bytes,
            too_large=too_large,
            cut_off=_find_last_byte(page) > path.stat().st_size,
            orientation=1 if orientation is None else int(orientation.value),
            size=(int(page.imagelength), int(page.imagewidth)),
            stacked=is_stack(tiff) and not makes_volume(tiff),
            lossy=page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG),
            palette=page.photometric == tifffile.PHOTOMETRIC.PALETTE,
            colors=_list_palette_colors(read_palette(page.colormap))
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE
            else (),
            colored=samples >= 3,
            alpha=_classify_tiff_alpha(page, find_alpha(page)),
        )


def _find_last_byte(page: Any) -> int:
    """Find where the last strip or tile ends."""
    return max((start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)


def _classify_tiff_alpha(page: Any, channels: list[int]) -> str:
    """Classify the channels of transparency."""
    if not channels:
        return "none"
    try:
        pixels = page.asarray()
    except _DAMAGE:
        return "none"
    alpha = np.take(pixels, channels, axis=page.axes.index("S"))
    return "opaque" if alpha.min() == alpha.max() else "varying"


def _is_too_large(path: Path, count: int, most: int, item_bytes: int) -> bool:
    try:
        size_limits.check_claim(path, count, most, "items", item_bytes)
    except UnreadableFileError:
        return True
    return False


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"\x1f\x8b", "gzip"),
    (b"GIF8", "GIF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x89HDF", "HDF5"),
    (b"%PDF", "PDF"),
    (b"\x93NUMPY", "NumPy"),
    (b"NRRD", "NRRD"),
    (b"ObjectType", "MetaImage"),
    (b"NDims", "MetaImage"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_NIFTI_SIZES = (struct.pack("<i", 348), struct.pack(">i", 348), struct.pack("<i", 540), struct.pack(">i", 540))
_HEAD = 512
_TAIL = 65536
_BLOCK = 1 << 20
# No more is unpacked to look for the end of a compressed file; a bomb is made of less
_MOST_UNPACKED = 1 << 36


def detect_format(path: Path) -> str:
    """Detect a format, such as `PNG` or `gzip`, by the first bytes."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "nothing"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] in _NIFTI_SIZES:
        return "NIfTI"
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return "text" if _is_text(head) else "unknown"


def is_cut_off(path: Path) -> bool:
    """Check whether the end that the format has is missing."""
    content = detect_format(path)
    if content == "PNG":
        return not _has_png_end(path)
    if content == "JPEG":
        return b"\xff\xd9" not in _read_tail(path)
    if content == "gzip":
        return not _has_gzip_end(path)
    if content == "BMP":
        with path.open("rb") as file:
            return int.from_bytes(file.read(6)[2:], "little") > path.stat().st_size
    if content == "WebP":
        with path.open("rb") as file:
            return 8 + int.from_bytes(file.read(8)[4:], "little") > path.stat().st_size
    if content == "GIF":
        return not _read_tail(path).rstrip(b"\x00").endswith(b"\x3b")
    if content in ("MetaImage", "NRRD"):
        return read_itk_header(path).cut_off
    return False


def _is_text(head: bytes) -> bool:
    """Tell whether bytes are UTF-8 without control characters.

    The last character may be cut off.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def _read_tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def _has_png_end(path: Path) -> bool:
    """Follow the chunks to IEND."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 8
        # A chunk is length, type, data and checksum (PNG specification, 5.3): 12 bytes around its data.
        while place + 12 <= size:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            place += 12 + int(length)
            if kind == b"IEND":
                return place <= size
    return False


def _has_gzip_end(path: Path) -> bool:
    """Tell whether a gzip file unpacks to its checksum.

    Damage in the middle is another fault than a missing end.
    """
    unpacked = 0
    try:
        with gzip.open(path) as file:
            while unpacked < _MOST_UNPACKED and (block := file.read(_BLOCK)):
                unpacked += len(block)
    except EOFError:
        return False
    except (OSError, zlib.error):
        return True
    return True
