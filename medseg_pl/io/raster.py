"""PNG, TIFF, JPEG and BMP: pixels as they stand in the file, no value changed on the way.

OpenCV returns filler rows for a truncated JPEG and expands palettes, Pillow clips 16-bit gray on conversion and reads
16-bit colour as 8-bit; so Pillow checks and decodes 8-bit files, and OpenCV or tifffile decodes the deep ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io.files import whole_file

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
MAX_PIXELS = 400_000_000
"""No image is decoded that claims more: a 100 KB file can ask for gigabytes."""


def is_raster(path: Path) -> bool:
    """Whether the name is that of an image this module reads."""
    return path.suffix.lower() in SUFFIXES


def image_size(path: Path) -> tuple[int, int]:
    """`(height, width)` from the header, without decoding."""
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: Path) -> NDArray[Any]:
    """Read an image as `(C, H, W)`: one channel for gray, three for colour; transparency is dropped.

    The data type is the file's (`uint8`, `uint16`, `float32` …). A rotation noted in EXIF is applied: it is how the
    image was meant to be seen, and how annotation tools show it.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or of a kind that is not read.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return _without_alpha(_read_tiff(path), path)
    with _opened(path) as image:
        if _is_deep(image, path):
            return _without_alpha(_read_deep(path), path)
        if image.mode not in ("L", "RGB", "I;16", "I;16B", "I", "F"):
            image = image.convert("RGB" if _has_colour(image) else "L")  # noqa: PLW2901
        pixels = np.asarray(_upright(image, path))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_mask(path: Path) -> NDArray[Any]:
    """Read a mask as `(H, W)` values: indices of a palette, 0 and 1 of a 1-bit file, gray values as they stand.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or holds colours instead of values.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        pixels = _read_tiff(path)
        return _only_plane(pixels, path)
    with _opened(path) as image:
        if image.mode == "1":
            return np.asarray(_upright(image, path)).astype(np.uint8)
        if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
            return _only_plane(np.asarray(_upright(image, path)).transpose(2, 0, 1), path)
        if image.mode == "LA":
            image = image.getchannel("L")  # noqa: PLW2901
        return np.asarray(_upright(image, path))


def write_png(path: Path, pixels: NDArray[Any], *, replace: bool = False) -> None:
    """Write `(H, W)` or `(H, W, 3)` pixels, 8 or 16 bit, as a PNG that appears whole."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"A PNG holds uint8 or uint16, not {pixels.dtype}.")
    with whole_file(path, replace=replace) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _opened(path: Path) -> Image.Image:
    """Open with Pillow, which knows bombs and truncation, and read the header."""
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path)
    return image


def _upright(image: Image.Image, path: Path) -> Image.Image:
    """The decoded image, turned as its EXIF tag says."""
    try:
        orientation = image.getexif().get(0x0112, 1)
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
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


def _is_deep(image: Image.Image, path: Path) -> bool:
    """Whether a PNG has 16 bits in more than one channel, which Pillow would halve."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA"):
        return False
    with path.open("rb") as file:
        header = file.read(25)
    return header[24] == 16


def _has_colour(image: Image.Image) -> bool:
    if image.mode == "P":
        return any(r != g or g != b for r, g, b in zip(*[iter(image.getpalette() or [])] * 3, strict=False))
    return image.mode not in ("1", "LA", "La")


def _read_deep(path: Path) -> NDArray[Any]:
    with _opened(path) as image:
        _upright(image, path)  # Pillow raises on damage that OpenCV would hide
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableFileError(f"{path} cannot be decoded. Replace it with an intact copy.")
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return pixels.transpose(2, 0, 1)[order]


def _read_tiff(path: Path) -> NDArray[Any]:
    """The first page as `(C, H, W)`, decoded in the file's own depth."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            if page.size > MAX_PIXELS * 4:
                raise _too_large(path)
            pixels, axes = page.asarray(), page.axes
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(pixels, axes.index("S"), 0)) if "S" in axes else pixels
    raise UnreadableFileError(f"{path} has the axes {axes}; expected one plane or one colour image.")


def _without_alpha(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    channels = len(pixels)
    if channels in (1, 3):
        return pixels
    if channels in (2, 4):
        return np.ascontiguousarray(pixels[: channels - 1])
    raise UnreadableFileError(f"{path} has {channels} channels; expected 1 (gray) or 3 (colour), with or without alpha.")


def _only_plane(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """The single plane of a mask; colour files in which every channel says the same are accepted."""
    planes = _without_alpha(pixels, path)
    if len(planes) == 1 or bool((planes == planes[:1]).all()):
        return np.ascontiguousarray(planes[0])
    raise UnreadableFileError(
        f"{path} is a mask in colours; expected one value for each pixel. Convert its colours to label values first."
    )


def _unreadable(path: Path, error: BaseException) -> UnreadableFileError:
    size = path.stat().st_size if path.exists() else 0
    return UnreadableFileError(
        f"{path} ({size} bytes) cannot be decoded as an image: {error}. Replace it with an intact copy."
    )


def _too_large(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} claims more than {MAX_PIXELS:,} pixels and is not decoded. Tile it, or remove it from the data set."
    )
