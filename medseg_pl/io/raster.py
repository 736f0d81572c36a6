"""PNG, TIFF, JPEG and BMP: pixels as they stand in the file, no value changed on the way.

OpenCV returns filler rows for a truncated JPEG and expands palettes, Pillow clips 16-bit gray on conversion and reads
16-bit colour as 8-bit; so Pillow checks and decodes 8-bit files, and OpenCV or tifffile decodes the deep ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io.files import whole_file

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
MAX_PIXELS = 400_000_000
"""No image is decoded that claims more: a 100 KB file can ask for gigabytes. Pillow itself stops a little earlier."""

_ORIENTATION = 0x0112
_PNG_GRAY, _PNG_GRAY_ALPHA = 0, 4
_VALUES = ("L", "I;16", "I;16B", "I", "F")


def is_raster(path: Path) -> bool:
    """Whether the name is that of an image this module reads."""
    return path.suffix.lower() in SUFFIXES


def image_size(path: Path) -> tuple[int, int]:
    """`(height, width)` of what `read_image` gives, from the header, without decoding."""
    if _is_tiff(path):
        with _tiff_page(path) as page:
            return page.imagelength, page.imagewidth
    with _opened(path) as image:
        sideways = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if sideways else (image.height, image.width)


def read_image(path: Path) -> NDArray[Any]:
    """Read an image as `(C, H, W)`: one channel for gray, three for colour; transparency is dropped.

    The data type is the file's (`uint8`, `uint16`, `float32` …). A rotation noted in EXIF is applied: it is how the
    image was meant to be seen, and how annotation tools show it.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or of a kind that is not read.
    """
    if (deep := _read_deep(path)) is not None:
        return _without_alpha(deep, path)
    with _opened(path) as opened:
        image = _upright(opened, path)
        if image.mode not in (*_VALUES, "RGB"):
            image.info.pop("transparency", None)  # of a palette; Pillow warns where it cannot keep it
            image = image.convert("RGB" if _has_colour(image) else "L")
        return _planes(np.asarray(image))


def read_mask(path: Path) -> NDArray[Any]:
    """Read a mask as `(H, W)` values: indices of a palette, 0 and 1 of a 1-bit file, gray values as they stand.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or holds colours instead of values.
    """
    if (deep := _read_deep(path)) is not None:
        return _only_plane(deep, path)
    with _opened(path) as opened:
        image = _upright(opened, path)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode not in (*_VALUES, "P"):
            image = image.convert("L" if image.mode == "LA" else "RGB")
        return _only_plane(_planes(np.asarray(image)), path)


def write_png(path: Path, pixels: NDArray[Any], *, replace: bool = False) -> None:
    """Write `(H, W)` or `(H, W, 3)` pixels, 8 or 16 bit, as a PNG that appears whole."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"A PNG holds uint8 or uint16, not {pixels.dtype}.")
    with whole_file(path, replace=replace) as temporary:
        if pixels.ndim == 3 and pixels.dtype == np.uint16:  # which Pillow does not write
            temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes())
        else:
            Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _opened(path: Path) -> Image.Image:
    """Open with Pillow, which knows bombs and truncation, and read the header."""
    try:
        # By content, whatever the name; but not all that Pillow opens: some formats are run by an interpreter.
        image = Image.open(path, formats=_FORMATS)
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _too_large(path, MAX_PIXELS)
    return image


def _upright(image: Image.Image, path: Path) -> Image.Image:
    """The decoded image, turned as its EXIF tag says."""
    try:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
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


def _has_colour(image: Image.Image) -> bool:
    if image.mode == "P":
        return any(r != g or g != b for r, g, b in zip(*[iter(image.getpalette() or [])] * 3, strict=False))
    return image.mode not in ("1", "LA", "La")


def _read_deep(path: Path) -> NDArray[Any] | None:
    """`(C, H, W)` of a file that Pillow would read at less than its depth; `None` where Pillow reads it well."""
    if _is_tiff(path):
        return _read_tiff(path)
    with _opened(path) as image:
        if image.format == "TIFF":  # under another name
            return _read_tiff(path)
        if image.format != "PNG":
            return None
        with path.open("rb") as file:
            bits, colour_type = file.read(26)[24:]
        if bits < 16 or colour_type == _PNG_GRAY:
            return None
        _upright(image, path)  # Pillow raises on damage that OpenCV would hide
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableFileError(f"{path} cannot be decoded. Replace it with an intact copy.")
    order = [0] if colour_type == _PNG_GRAY_ALPHA else [2, 1, 0]  # OpenCV makes four channels of gray with alpha
    return np.ascontiguousarray(_planes(pixels)[order])


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


@contextmanager
def _tiff_page(path: Path) -> Iterator[Any]:
    """The first page of a TIFF, not yet decoded."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            if page.size > MAX_PIXELS * min(4, page.samplesperpixel):
                raise _too_large(path, MAX_PIXELS)
            yield page
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _read_tiff(path: Path) -> NDArray[Any]:
    """The first page as `(C, H, W)`, decoded in the file's own depth."""
    with _tiff_page(path) as page:
        bits = page.bitspersample
        pixels: NDArray[Any] = np.empty(0) if bits == 1 else page.asarray()
        axes: str = page.axes
    if bits == 1:  # the fax codes of scanned masks, which not every tifffile knows
        with _opened(path) as image:
            pixels = np.asarray(_upright(image, path))
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(pixels, axes.index("S"), 0)) if "S" in axes else pixels
    raise UnreadableFileError(f"{path} has the axes {axes}; expected one plane or one colour image.")


def _planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """`(H, W)` or `(H, W, C)` as `(C, H, W)`."""
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _without_alpha(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    channels = len(pixels)
    if channels in (1, 3):
        return pixels
    if channels in (2, 4):
        return np.ascontiguousarray(pixels[: channels - 1])
    raise UnreadableFileError(
        f"{path} has {channels} channels; expected 1 (gray) or 3 (colour), with or without alpha."
    )


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


def _too_large(path: Path, limit: int) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} claims more than {limit:,} pixels and is not decoded. Tile it, or remove it from the data set."
    )
