"""What a file is by its first bytes, whatever its name, and whether its end is there."""

from __future__ import annotations

import codecs
import gzip
import struct
import zlib
from pathlib import Path

from medseg_pl.io.itk_header import read_itk_header

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
_MOST_UNPACKED = 1 << 36
"""No more is unpacked to look for the end of a compressed file; a bomb is made of less."""


def content_of(path: Path) -> str:
    """The format that the first bytes tell: `PNG`, `gzip`, `text` …; `nothing` of an empty file, else `unknown`."""
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
    """Whether the end that the format has is missing; false where the format has none that is known."""
    content = content_of(path)
    if content == "PNG":
        return not _png_ends(path)
    if content == "JPEG":
        return b"\xff\xd9" not in _tail(path)
    if content == "gzip":
        return not _gzip_ends(path)
    if content == "BMP":
        with path.open("rb") as file:
            return int.from_bytes(file.read(6)[2:], "little") > path.stat().st_size
    if content == "WebP":
        with path.open("rb") as file:
            return 8 + int.from_bytes(file.read(8)[4:], "little") > path.stat().st_size
    if content == "GIF":
        return not _tail(path).rstrip(b"\x00").endswith(b"\x3b")
    if content in ("MetaImage", "NRRD"):
        return read_itk_header(path).cut_off
    return False


def _is_text(head: bytes) -> bool:
    """Check whether the bytes are UTF-8 without control characters; the last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def _png_ends(path: Path) -> bool:
    """Follow the chunks to IEND."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 8
        while place + 12 <= size:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            place += 12 + int(length)
            if kind == b"IEND":
                return place <= size
    return False


def _gzip_ends(path: Path) -> bool:
    """Unpack to the checksum; damage in the middle is another fault than a missing end."""
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
