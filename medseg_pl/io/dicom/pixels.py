"""The stored values of DICOM frames, whatever their compression.

pydicom decodes what is uncompressed or run-length encoded; the JPEG families go to imagecodecs, which knows all of
them, lossless JPEG included (pydicom's own plug-in for that one is under the GPL).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from jaxtyping import Integer
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels

from medseg_pl.core.errors import UnreadableFileError, count_noun
from medseg_pl.io.dicom.headers import explain_damage, get_text, require_element
from medseg_pl.io.size_limits import MAX_PIXELS, MAX_VOXELS, check_claim

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_DECODERS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    **dict.fromkeys(_JPEG, imagecodecs.jpeg_decode),
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, imagecodecs.jpegls_decode),
    **dict.fromkeys(uid.JPEG2000TransferSyntaxes, imagecodecs.jpeg2k_decode),
}
_PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)

_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7 is that of JPEG-LS
_START_OF_SCAN = 0xDA
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000, possibly behind the boxes of a JP2 file


class PixelLayout(NamedTuple):
    """Storage of a file's pixels.

    Attributes:
        frames: The number of images.
        size: Rows and columns.
        bits: The number of bits of a value that count.
        signed: Whether the highest of them is the sign.
        inverted: Whether small values are bright (MONOCHROME1).
    """

    frames: int
    size: tuple[int, int]
    bits: int
    signed: bool
    inverted: bool


def read_layout(dataset: Dataset, path: Path) -> PixelLayout:
    """Read how the pixels are stored from the header.

    Raises:
        UnreadableFileError: The header claims more than is decoded, or colors.
    """
    with explain_damage(path):
        frames = int(dataset.get("NumberOfFrames") or 1)
        rows, columns = (int(require_element(dataset, keyword, path)) for keyword in ("Rows", "Columns"))
        samples = int(dataset.get("SamplesPerPixel") or 1)
        bits = int(require_element(dataset, "BitsStored", path))
        signed = bool(dataset.get("PixelRepresentation"))
        inverted = get_text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    check_claim(path, rows * columns, MAX_PIXELS, "pixels")
    check_claim(path, rows * columns * frames, MAX_VOXELS, "voxels")
    if samples != 1 or min(rows, columns, frames) < 1 or not 1 <= bits <= 32:
        raise UnreadableFileError(
            f"{path} holds {count_noun(frames, 'image')} of {rows} x {columns} pixels with "
            f"{count_noun(samples, 'value')} of {bits} bits each; "
            "expected one value of 1 to 32 bits a pixel. Convert colors to gray, or export it again."
        )
    return PixelLayout(frames, (rows, columns), bits, signed, inverted)


def read_frames(
    dataset: Dataset, path: Path, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, Integer[np.ndarray, "h w"]]]:
    """Decode frames one after the other, neither rescaled nor inverted.

    Args:
        dataset: The file's content, read with its pixels.
        path: The file, for errors.
        wanted: The numbers of the frames, from 0; all by default.

    Yields:
        The number of a frame, and its values.

    Raises:
        UnreadableFileError: There are no pixels, they are cut off, or their compression is not known.
    """
    layout = read_layout(dataset, path)
    if "PixelData" not in dataset:
        raise UnreadableFileError(
            f"{path} has no pixel data: it is cut off, or was exported without. Replace it with a complete copy."
        )
    numbers = range(layout.frames) if wanted is None else wanted
    with explain_damage(path):
        syntax = uid.UID(get_text(dataset.file_meta, "TransferSyntaxUID"))
        single_bits = int(dataset.get("BitsAllocated") or 0) == 1
    if syntax in _DECODERS:
        return _iterate_compressed(dataset, path, layout, _DECODERS[syntax], set(numbers))
    if syntax not in _PLAIN:
        raise UnreadableFileError(
            f"{path} is stored as {syntax.name or 'unknown'}, for which there is no decoder. Convert it, for example "
            "with gdcmconv --raw."
        )
    if syntax != uid.RLELossless:
        _check_length(dataset, path, layout)
        if single_bits:
            return _unpack_bits(dataset, layout, numbers)
    return _iterate_plain(dataset, path, layout, numbers)


def _iterate_plain(
    dataset: Dataset, path: Path, layout: PixelLayout, numbers: Sequence[int]
) -> Iterator[tuple[int, Integer[np.ndarray, "h w"]]]:
    with explain_damage(path):
        for number, values in zip(numbers, iter_pixels(dataset, indices=numbers, raw=True), strict=True):
            yield number, _check_values(values, layout, path)


def _unpack_bits(
    dataset: Dataset, layout: PixelLayout, numbers: Sequence[int]
) -> Iterator[tuple[int, Integer[np.ndarray, "h w"]]]:
    """Unpack frames of single bits, which need not begin on a byte."""
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    length = math.prod(layout.size)
    for number in numbers:
        first, last = number * length, (number + 1) * length
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield number, bits[first % 8 : first % 8 + length].reshape(layout.size)


def _iterate_compressed(
    dataset: Dataset, path: Path, layout: PixelLayout, decode: Callable[[bytes], NDArray[Any]], wanted: set[int]
) -> Iterator[tuple[int, Integer[np.ndarray, "h w"]]]:
    with explain_damage(path):
        frames = generate_frames(
            dataset.PixelData, number_of_frames=layout.frames, extended_offsets=_get_offsets(dataset)
        )
        number = -1
        for number, frame in zip(range(layout.frames), frames, strict=False):
            if number in wanted:
                yield number, _apply_sign(_decode(frame, path, layout, decode), layout)
    if number + 1 < layout.frames:
        raise UnreadableFileError(
            f"{path} claims {count_noun(layout.frames, 'image')} and holds {number + 1}: it is cut off. Replace it "
            "with a complete copy."
        )


def _decode(frame: bytes, path: Path, layout: PixelLayout, decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    claimed = read_codestream_size(frame)
    if claimed is not None and claimed != layout.size:  # before memory is taken for it
        raise _describe_wrong_size(path, claimed, layout)
    try:
        values = decode(frame)
    except ImportError as error:
        raise UnreadableFileError(
            f"{path} is compressed, and this build of imagecodecs lacks the decoder ({error}). Install imagecodecs "
            "from PyPI, or convert the file, for example with gdcmconv --raw."
        ) from error
    return _check_values(values, layout, path)


def read_codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Read rows and columns from a JPEG, JPEG-LS or JPEG 2000 image.

    Returns:
        `None` where the image does not hold them.

    >>> read_codestream_size(bytes.fromhex("ffd8 ffc3 000b 10 0003 0005 01 0000 00"))
    (3, 5)
    """
    place = frame.find(_CODESTREAM, 0, 1024)
    if place >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, place + 8)
        return bottom - top, right - left
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF and frame[place + 1] != _START_OF_SCAN:
        if frame[place + 1] in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">2H", frame, place + 5)
            return rows, columns
        # The length of a marker segment counts its own two bytes, not those of the marker.
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _check_values(values: NDArray[Any], layout: PixelLayout, path: Path) -> NDArray[Any]:
    if values.shape != layout.size or values.dtype.kind not in "iu":
        raise _describe_wrong_size(path, values.shape, layout)
    return values


def _apply_sign(values: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Apply the header's sign, which most JPEG decoders do not know."""
    result = values.astype(np.int64) & ((1 << layout.bits) - 1)
    if layout.signed:
        result -= (result >> (layout.bits - 1)) << layout.bits
    return result


def _get_offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    table, lengths = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    return (table, lengths) if table and lengths else None


def _check_length(dataset: Dataset, path: Path, layout: PixelLayout) -> None:
    """Require as many bytes as the header promises."""
    with explain_damage(path):
        bits = int(require_element(dataset, "BitsAllocated", path))
        promised = -(-layout.frames * math.prod(layout.size) * bits // 8)
        got = len(dataset.PixelData)
    if got < promised:
        raise UnreadableFileError(
            f"{path} holds {got} bytes of pixel data; expected {promised} for {count_noun(layout.frames, 'image')} of "
            f"{layout.size[0]} x {layout.size[1]} pixels. It is cut off: replace it with a complete copy."
        )


def _describe_wrong_size(path: Path, got: tuple[int, ...], layout: PixelLayout) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} holds an image of the shape {got}, but its header says {layout.size} (rows, columns). Replace it with "
        "an intact copy."
    )
