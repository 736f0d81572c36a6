"""PNG, TIFF, JPEG, JPEG 2000, WebP, GIF and BMP: pixels as they stand in the file, no value changed on the way.

OpenCV returns filler rows for a truncated JPEG and expands palettes, Pillow clips 16-bit gray on conversion and reads
16-bit color as 8-bit; so Pillow checks and decodes 8-bit files, and OpenCV, tifffile or imagecodecs decodes deep ones.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_pl.core.errors import MaskValueError, MissingDataError, UnreadableFileError, count_noun
from medseg_pl.core.mask_values import find_unique_marks, format_marks, read_palette_values
from medseg_pl.io import size_limits, tiff
from medseg_pl.io.atomic_files import write_atomically

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000")
_ANIMATED = ("PNG", "GIF", "WEBP")
_ORIENTATION = 0x0112
_DECODED = "be decoded as an image"
_PNG_GRAY, _PNG_GRAY_ALPHA = 0, 4
# Pillow has its limit in a variable of all threads
_ONE_AT_A_TIME = Lock()
# What Pillow raises on bytes that make no sense
_DAMAGE = (OSError, EOFError, LookupError, SyntaxError, TypeError, ValueError, struct.error)
_VALUES = ("L", "I;16", "I;16B", "I", "F")


def read_image_size(path: Path) -> tuple[int, int]:
    """Read the `(height, width)` of what `read_image` gives, without decoding.

    Raises:
        UnreadableFileError: The file is damaged, or claims too much.
    """
    if tiff.is_tiff(path):
        return tiff.size(path)
    with _open(path) as image:
        if image.format == "TIFF":  # under another name
            return tiff.size(path)
        try:
            # Codes 5 to 8 exchange rows and columns.
            sideways = image.getexif().get(_ORIENTATION, 1) >= 5
        except _DAMAGE as error:
            raise size_limits.make_decoding_error(path, error, _DECODED) from error
        return (image.width, image.height) if sideways else (image.height, image.width)


def read_image(path: Path) -> NDArray[Any]:
    """Read an image as `(C, H, W)`.

    It has one channel for gray, three for color, and all that a TIFF declares to be data. Transparency is dropped.

    The data type is the file's (`uint8`, `uint16`, `float32` …). A rotation noted in EXIF or by TIFF is applied: it is
    how the image was meant to be seen, and how annotation tools show it.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or of a kind that is not read.
    """
    if (deep := _read_deep(path, seen=True)) is not None:
        return deep
    return _to_planes(_read_seen(path))  # by then Pillow has let go of its own copy


def read_mask(path: Path) -> NDArray[Any]:
    """Read a mask as `(H, W)` values.

    They are the labels of a palette, 0 and 1 of a 1-bit file, or gray values as they stand.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged or too large.
        MaskValueError: The file holds colors instead of values, or a palette that may mean either.
    """
    if (deep := _read_deep(path, seen=False)) is not None:
        return _require_one_plane(deep, path)
    with _open(path) as opened:
        image = _turn_upright(opened, path)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return np.ascontiguousarray(read_palette_values(np.asarray(image), palette, path))
        if image.mode not in _VALUES:
            image = image.convert("L" if image.mode == "LA" else "RGB")
        return _require_one_plane(_to_planes(np.asarray(image)), path)


def read_mask_colors(path: Path) -> NDArray[Any]:
    """Read a mask as `(3, H, W)` colors.

    A palette gives its colors; gray is a color of three equal channels.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or of a depth that no color has.
    """
    pixels = read_image(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableFileError(f"{path} holds values of the type {pixels.dtype}; expected colors of 8 or 16 bits.")
    if len(pixels) not in (1, 3):
        raise UnreadableFileError(f"{path} has {count_noun(len(pixels), 'channel')}; expected colors. Save it as RGB.")
    return np.broadcast_to(pixels, (3, *pixels.shape[1:]))


def write_png(path: Path, pixels: NDArray[Any], *, replace: bool = False) -> None:
    """Write 8- or 16-bit pixels as a PNG that appears whole.

    Args:
        path: The file to write.
        pixels: `(H, W)` or `(H, W, 3)`.
        replace: Whether an existing file may go.

    Raises:
        TypeError: The pixels are of another type.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"A PNG holds uint8 or uint16, not {pixels.dtype}.")
    with write_atomically(path, replace=replace) as temporary:
        if pixels.ndim == 3 and pixels.dtype == np.uint16:  # which Pillow does not write
            temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes())
        else:
            Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def open_undecoded(path: Path) -> Image.Image:
    """Open a file with Pillow, and read its header only.

    The caller checks how much the header claims. The content decides the format, whatever the name; some of Pillow's
    formats are refused, since an interpreter runs them.
    """
    with _ONE_AT_A_TIME:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # less than half of what `limits` allows
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def encode_webp(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode pixels as a lossy WebP file for pages.

    Every browser shows it, at a third of the size of a PNG.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`.
        quality: From 0 to 100.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _open(path: Path) -> Image.Image:
    """Open a file with Pillow, unless it claims too much."""
    try:
        image = open_undecoded(path)
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except (UnidentifiedImageError, *_DAMAGE) as error:
        raise size_limits.make_decoding_error(path, error, _DECODED) from error
    try:
        size_limits.check_claim(path, image.width * image.height, size_limits.MAX_PIXELS, "pixels")
        _check_alone(path, image)
    except UnreadableFileError:
        image.close()
        raise
    return image


def _check_alone(path: Path, image: Image.Image) -> None:
    """Check that a file holds a single frame."""
    # Of several frames, Pillow decodes the first.
    try:
        frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    except _DAMAGE as error:
        raise size_limits.make_decoding_error(path, error, _DECODED) from error
    if frames > 1:
        raise UnreadableFileError(f"{path} holds {frames} frames; expected one image. Save each as a file of its own.")


def _read_seen(path: Path) -> NDArray[Any]:
    """Read `(H, W)` or `(H, W, 3)`, by palette, without transparency."""
    with _open(path) as opened:
        image = _turn_upright(opened, path)
        if image.mode not in (*_VALUES, "RGB"):
            image.info.pop("transparency", None)  # of a palette; Pillow warns where it cannot keep it
            image = image.convert("RGB" if _has_color(image) else "L")
        return np.asarray(image)


def _turn_upright(image: Image.Image, path: Path) -> Image.Image:
    """Decode an image and turn it as its EXIF tag says."""
    try:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        raise size_limits.make_decoding_error(path, error, _DECODED) from error
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _has_color(image: Image.Image) -> bool:
    if image.mode == "P":
        return any(r != g or g != b for r, g, b in zip(*[iter(image.getpalette() or [])] * 3, strict=False))
    return image.mode not in ("1", "LA", "La")


def _read_deep(path: Path, *, seen: bool) -> NDArray[Any] | None:
    """Read a file whose depth Pillow would reduce, as `(C, H, W)`.

    `None` where Pillow reads it well; `seen` is that of `tiff.read`.
    """
    if tiff.is_tiff(path):
        return tiff.read(path, seen=seen)
    with _open(path) as image:
        if image.format == "TIFF":  # under another name
            return tiff.read(path, seen=seen)
        if image.format == "JPEG2000" and read_codestream(path).deep:
            return _drop_last_alpha(read_deep_jpeg2000(path))
        if image.format == "BMP" and image.mode == "1":
            return _read_bytes_of_two_colors(path, image, seen=seen)
        if image.format != "PNG":
            return None
        with path.open("rb") as file:
            bits, color_type = file.read(26)[24:]
        if bits < 16 or color_type == _PNG_GRAY:
            return None
        _turn_upright(image, path)  # Pillow raises on damage that OpenCV would hide
        orientation = image.getexif().get(_ORIENTATION, 1)
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableFileError(f"{path} cannot be decoded. Replace it with an intact copy.")
    order = [0] if color_type == _PNG_GRAY_ALPHA else [2, 1, 0]  # OpenCV makes four channels of gray with alpha
    return np.ascontiguousarray(tiff.turn(_to_planes(pixels)[order], orientation))


def _to_planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert `(H, W)` or `(H, W, C)` to `(C, H, W)`."""
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _read_bytes_of_two_colors(path: Path, image: Image.Image, *, seen: bool) -> NDArray[Any] | None:
    """Read a two-color BMP of 8 bits, which Pillow misreads; else `None`."""
    with path.open("rb") as file:
        bits = int.from_bytes(file.read(30)[28:], "little")
    if bits == 1:
        return None
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None or pixels.shape != (image.height, image.width):
        raise UnreadableFileError(f"{path} cannot be decoded. Replace it with an intact copy.")
    return pixels[None] if seen else (pixels[None] > 0).astype(np.uint8)


def _drop_last_alpha(planes: NDArray[Any]) -> NDArray[Any]:
    """Drop the transparency behind gray or color."""
    return np.ascontiguousarray(planes[: len(planes) - 1]) if len(planes) in (2, 4) else planes


def _require_one_plane(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the single plane of a mask; equal color channels are one."""
    planes = pixels
    if len(planes) == 1 or bool((planes == planes[:1]).all()):
        return np.ascontiguousarray(planes[0])
    if len(planes) != 3:
        raise MaskValueError(
            f"{path} is a mask with {len(planes)} different channels; expected one value for each pixel. Save each "
            "channel as a file of its own."
        )
    colors = f", {format_marks(find_unique_marks(planes.reshape(3, -1)))}" if planes.dtype.kind == "u" else ""
    raise MaskValueError(
        f"{path} is a mask in colors{colors}; expected one value for each pixel. Say with labels.colors which label "
        "each color is."
    )


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
    """Read the main header of a JPEG 2000 file.

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
        raise size_limits.make_decoding_error(path, error, "be decoded as JPEG 2000") from error
    width, height = right - left, lower - upper
    size_limits.check_claim(path, width * height, size_limits.MAX_PIXELS, "pixels", 2 * channels)
    return Codestream(width, height, any(depth > 7 for depth in depths), transform != _REVERSIBLE)


def read_deep_jpeg2000(path: Path) -> NDArray[Any]:
    """Read all channels of a JPEG 2000 file in full depth.

    Returns:
        `(C, H, W)`.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    try:
        pixels: NDArray[Any] = imagecodecs.jpeg2k_decode(path.read_bytes())
    except (imagecodecs.Jpeg2kError, ValueError, RuntimeError) as error:
        raise size_limits.make_decoding_error(path, error, "be decoded as JPEG 2000") from error
    if not 2 <= pixels.ndim <= 3:
        raise UnreadableFileError(f"{path} has {pixels.ndim} axes; expected one image. Save it as PNG or TIFF.")
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
