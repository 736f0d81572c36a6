"""Pictures of cases: masks drawn over pixels, and slices of scored cases as one small file each for a page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import HIGH, LOW, PERCENTILES
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.config_files import read_json
from medseg_pl.io.raster import encode_webp

COLORS = ((255, 176, 0), (100, 143, 255), (220, 38, 127), (120, 94, 240), (254, 97, 0), (0, 158, 115), (240, 228, 66))
"""RGB of the first labels, told apart by color-blind eyes as well (IBM's and Wong's palettes)."""

# Cases of a stage that are pictured: the worst, and a few of the best to compare them with.
MOST_CASES = 50

MOST_SLICES = 48

# Of the slices of a case, so that a page with `MOST_CASES` of them opens at once.
_BYTES = 300_000

_BEST_CASES = 6

# The longest side of a slice in pixels; masks keep the first, so that those of several runs fit each other.
_SIDES = (320, 256, 192, 128)

_LARGE_SIDE = 640

# Of so few, as of a 2D image, each may be large: vessels and lesions of a few pixels are lost otherwise.
_FEW_SLICES = 4

_ENOUGH_SLICES = 12

_QUALITY = 72

_THUMBNAIL = 180

_WHITE = 255

# The least height of the strip that names a view.
_CAPTION = 20

# Color whose brightest value, of 255, is below is brightened.
_DARK = 128

# `medseg_pl.core.labels.IGNORE`; its module imports torch, which a report does without.
_IGNORED = 255

# A file that claims larger masks is damaged, or somebody wants the memory to run out.
_MOST_PIXELS = 1 << 30


def to_gray(pixels: Shaped[np.ndarray, "h w"], low: float, high: float) -> UInt8[np.ndarray, "h w"]:
    """Scale values to 0 to 255, and clip those outside.

    Args:
        pixels: `(h, w)`.
        low: The value that becomes 0.
        high: The value that becomes 255.

    >>> to_gray(np.array([[0.0, 5.0, 20.0]]), low=0, high=10)
    array([[  0, 127, 255]], dtype=uint8)
    """
    scaled = (np.nan_to_num(pixels.astype(np.float32)) - low) / max(high - low, 1e-6)
    return (scaled.clip(0, 1) * 255).astype(np.uint8)


def choose_window(
    image: Shaped[np.ndarray, "c d h w"], statistics: Float32[np.ndarray, "c 4"], labeled: Bool[np.ndarray, "d h w"]
) -> tuple[float, float]:
    """Choose the values that become black and white, so that labels keep their shades.

    Args:
        image: Raw values. Of color all channels count, of others the first.
        statistics: See `medseg_pl.core.intensity.compute_channel_statistics`.
        labeled: Where any label is.

    >>> image = np.array([[[[0.0, 40.0, 200.0, 240.0]]]])
    >>> choose_window(image, np.array([[0, 1, 10, 50]], np.float32), image[0] > 200)
    (10.0, 240.0)
    """
    if not _is_color(image):
        return widen_window(float(statistics[0, LOW]), float(statistics[0, HIGH]), image[0, labeled])
    # Colors stay as they are, unless all is dark as in fluorescence: nobody would see what was found.
    _, brightest = widen_window(0.0, float(statistics[:, HIGH].max()), image[:, labeled])
    return 0.0, max(brightest, 1.0) if brightest < _DARK else 255.0


def _is_color(pixels: Shaped[np.ndarray, "c *s"]) -> bool:
    return len(pixels) == 3 and pixels.dtype == np.uint8


def widen_window(low: float, high: float, labeled: Shaped[np.ndarray, "..."]) -> tuple[float, float]:
    """Widen a window to the percentiles of the labeled values.

    >>> widen_window(10, 50, np.array([240.0])), widen_window(10, 50, np.array([]))
    ((10, 240.0), (10, 50))
    """
    finite = labeled[np.isfinite(labeled)]
    if not finite.size:
        return low, high
    # Small bright lesions lie above the percentiles of the image: all of them would be the same white.
    darkest, brightest = np.percentile(finite, PERCENTILES).tolist()
    return min(low, darkest), max(high, brightest)


def to_rgb(pixels: Shaped[np.ndarray, "c h w"], low: float, high: float) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image to RGB.

    Args:
        pixels: `(C, h, w)`; three channels of 8 bits are taken for color, of others the first is shown.
        low: The value that becomes black; of color it is 0.
        high: The value that becomes white, or a color's brightest.

    Returns:
        `(h, w, 3)`.
    """
    if _is_color(pixels):
        return np.ascontiguousarray((pixels * (255 / high)).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    return np.stack([to_gray(pixels[0], low, high)] * 3, axis=-1)


def draw_contours(
    rgb: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"], *, dashed: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw each mask's outline in its label's color, on a copy.

    Args:
        rgb: `(h, w, 3)` picture.
        masks: `(N, h, w)`, one for each label.
        dashed: Whether outlines have gaps.
    """
    canvas = rgb.copy()
    for index, mask in enumerate(masks):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for outline in outlines:
            points = outline[:, 0, ::-1]  # OpenCV counts (x, y)
            kept = points[(np.arange(len(points)) // 3) % 2 == 0] if dashed else points
            canvas[kept[:, 0], kept[:, 1]] = COLORS[index % len(COLORS)]
    return canvas


def draw_side_by_side(
    rgb: UInt8[np.ndarray, "h w 3"],
    reference: Bool[np.ndarray, "n h w"],
    prediction: Bool[np.ndarray, "n h w"],
    *,
    min_side: int = 320,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw an image alone, with its reference and with its prediction.

    A strip above the views names each.

    Args:
        rgb: `(h, w, 3)` picture.
        reference: `(N, h, w)`, one mask for each label.
        prediction: As the reference.
        min_side: Small pictures are enlarged by a whole factor until their longer side has so many pixels.
    """
    scale = max(1, -(-min_side // max(rgb.shape[:2])))
    large = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    masks = [mask.repeat(scale, axis=1).repeat(scale, axis=2) for mask in (reference, prediction)]
    views = {"image": large, "reference": draw_contours(large, masks[0]), "prediction": draw_contours(large, masks[1])}
    # So high that letters stay legible where a large picture is shown small.
    height = max(_CAPTION, max(large.shape[:2]) // 16)
    named = [np.concatenate([_write_caption(name, height, view.shape[1]), view]) for name, view in views.items()]
    gap = np.full((named[0].shape[0], 4, 3), _WHITE, dtype=np.uint8)
    return np.concatenate([named[0], gap, named[1], gap, named[2]], axis=1)


def _write_caption(name: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Write a name on a white strip, smaller where it is narrow."""
    strip = np.full((height, width, 3), _WHITE, dtype=np.uint8)
    (length, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)
    scale = min(height / 40, 0.9 * width / length)
    place = (round(0.05 * min(width, height)), round(0.7 * height))
    return np.asarray(
        cv2.putText(strip, name, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(1, height // 30), cv2.LINE_AA),
        np.uint8,
    )


def select_slice(reference: Bool[np.ndarray, "n d h w"], prediction: Bool[np.ndarray, "n d h w"]) -> int:
    """Select the slice where masks differ most, else the reference's largest."""
    area = (reference ^ prediction).sum(axis=(0, 2, 3))
    if not area.any():
        area = reference.sum(axis=(0, 2, 3))
    return int(area.argmax()) if area.any() else len(area) // 2


def select_slices(holding: Bool[np.ndarray, " d"], most: int, always: int) -> Int[np.ndarray, " s"]:
    """Select slices, evenly spread over those with content and their neighbors.

    Args:
        holding: Which slices hold something; all count where none does.
        most: The largest number of slices.
        always: A slice that is among them in any case.

    >>> select_slices(np.array([0, 0, 1, 1, 1, 1, 0, 0, 0], bool), most=3, always=4)
    array([1, 4, 6])
    """
    places = np.flatnonzero(holding)
    first, last = (places[0] - 1, places[-1] + 1) if len(places) else (0, len(holding) - 1)
    span = np.arange(max(0, first), min(last, len(holding) - 1) + 1)
    if len(span) > most:
        span = span[np.unique(np.linspace(0, len(span) - 1, most).round().astype(int))]
    if always in span:
        return span
    nearest = int(np.abs(span - always).argmin())
    return np.sort(np.where(np.arange(len(span)) == nearest, always, span))


class CasePicture(NamedTuple):
    """Slices of one case, with the masks of the whole case.

    Attributes:
        aspect: Width of a slice over its height, in mm where the spacing is known.
        slices: Slice numbers of `images`, ascending.
        telling: The slice in which reference and prediction differ most; one of `slices`.
        images: A WebP file for each of `slices`.
        reference: `(M, D, h, w)` as `LabelMap` describes it, scaled down.
        prediction: The predicted mask, likewise.
        overlapping: Whether labels have a channel each.
    """

    aspect: float
    slices: list[int]
    telling: int
    images: list[bytes]
    reference: UInt8[np.ndarray, "m d h w"]
    prediction: UInt8[np.ndarray, "m d h w"]
    overlapping: bool


def select_cases(means: Mapping[str, float], most: int = MOST_CASES) -> list[str]:
    """Choose the worst cases and a few of the best.

    Args:
        means: The mean Dice of each case, NaN where it has no score.
        most: The largest number of cases; all are chosen where there are no more.

    >>> select_cases({"a": 0.9, "b": 0.2, "c": 0.4, "d": 0.8, "e": 0.6}, most=4)
    ['b', 'c', 'e', 'a']
    """
    if len(means) <= most:
        return list(means)
    scored = sorted((case_id for case_id, mean in means.items() if not math.isnan(mean)), key=means.__getitem__)
    worst = most - min(_BEST_CASES, most // 4)
    return [*scored[:worst], *scored[max(worst, len(scored) - (most - worst)) :]]


def picture_path(folder: Path, case_id: str) -> Path:
    """Return the file of a case's picture, whatever the case is called."""
    return folder / f"{hashlib.blake2b(case_id.encode(), digest_size=16).hexdigest()}.json"


def draw_case(
    image: Shaped[np.ndarray, "c d h w"],
    statistics: Float32[np.ndarray, "c 4"],
    reference: UInt8[np.ndarray, "m d h w"],
    prediction: UInt8[np.ndarray, "m d h w"],
    geometry: Geometry,
    *,
    telling: int,
    overlapping: bool,
) -> CasePicture:
    """Draw as many slices as fit into a few hundred kilobytes.

    Args:
        image: Raw values.
        statistics: See `medseg_pl.core.intensity.compute_channel_statistics`.
        reference: As `LabelMap` describes it.
        prediction: As the reference.
        geometry: The grid of all three.
        telling: The slice that is drawn in any case, see `select_slice`.
        overlapping: Whether labels have a channel each.
    """
    height, width = image.shape[2:]
    marked = (reference != 0).any(axis=(0, 2, 3)) | (prediction != 0).any(axis=(0, 2, 3))
    slices = select_slices(marked, MOST_SLICES, telling)
    sides = _SIDES if len(slices) > _FEW_SLICES else (_LARGE_SIDE, *_SIDES)
    window = choose_window(image, statistics, ((reference != 0) & (reference != _IGNORED)).any(axis=0))
    for side in sides:
        images = [_draw_slice(image[:, index], window, side) for index in slices]
        fitting = max(1, _BYTES * len(slices) // sum(map(len, images)))
        if fitting >= min(_ENOUGH_SLICES, len(slices)):
            break
    kept = select_slices(np.ones(len(slices), bool), fitting, int(np.flatnonzero(slices == telling)[0]))
    _, y, x = geometry.spacing_mm or (1.0, 1.0, 1.0)
    size = _fit_size((height, width), sides[0])
    return CasePicture(
        aspect=round(width * x / (height * y), 4),
        slices=slices[kept].tolist(),
        telling=telling,
        images=[images[index] for index in kept],
        reference=_shrink_mask(reference, size),
        prediction=_shrink_mask(prediction, size),
        overlapping=overlapping,
    )


def write_picture(path: Path, picture: CasePicture) -> None:
    """Write a picture as JSON, which runs no code when read."""
    content = {
        "aspect": picture.aspect,
        "slices": picture.slices,
        "telling": picture.telling,
        "overlapping": picture.overlapping,
        "shape": picture.reference.shape,
        "images": [encode_base64(data) for data in picture.images],
        "reference": pack_mask(picture.reference, level=1),
        "prediction": pack_mask(picture.prediction, level=1),
    }
    write_text(path, json.dumps(content), replace=True)


def read_picture(path: Path) -> CasePicture:
    """Read a file of `write_picture`.

    Raises:
        UnreadableFileError: The file is missing or damaged.
    """
    try:
        content = read_json(path)
        shape = tuple(int(length) for length in content["shape"])
        picture = CasePicture(
            aspect=float(content["aspect"]),
            slices=[int(index) for index in content["slices"]],
            telling=int(content["telling"]),
            images=[base64.b64decode(text, validate=True) for text in content["images"]],
            reference=_unpack_mask(content["reference"], shape),
            prediction=_unpack_mask(content["prediction"], shape),
            overlapping=bool(content["overlapping"]),
        )
        if picture.telling not in picture.slices or len(picture.images) != len(picture.slices):
            raise ValueError("its slices do not fit together")
        if not 0 <= min(picture.slices) <= max(picture.slices) < shape[1]:
            raise ValueError("it has slices that the case does not have")
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise UnreadableFileError(f"{path} is no picture of a case: {error}. Run medseg test again.") from None
    return picture


def draw_thumbnail(picture: CasePicture, masks: Sequence[UInt8[np.ndarray, "m d h w"]], labels: int) -> bytes:
    """Draw a picture's telling slice once for each mask, side by side.

    Args:
        picture: The picture that holds the slice.
        masks: The mask to outline in each panel, on the grid of the picture's masks.
        labels: The number of labels.

    Raises:
        UnreadableFileError: The slice is no image.
    """
    data = np.frombuffer(picture.images[picture.slices.index(picture.telling)], np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        raise UnreadableFileError("A picture of a case holds a slice that is no image. Run medseg test again.")
    size = _fit_size(picture.reference.shape[2:], _THUMBNAIL, enlarge=True)
    # What is small was never shrunk: its pixels are shown as they are.
    enlarging = cv2.INTER_NEAREST if max(picture.reference.shape[2:]) <= _SIDES[-1] else cv2.INTER_LINEAR
    rgb = cv2.resize(decoded, size, interpolation=cv2.INTER_AREA if size[0] < decoded.shape[1] else enlarging)
    gap = np.zeros((size[1], 3, 3), np.uint8)
    panels: list[NDArray[np.uint8]] = []
    for mask in masks:
        pixels = mask[:, picture.telling]
        planes = pixels == 1 if picture.overlapping else pixels == np.arange(1, labels + 1)[:, None, None]
        large = [cv2.resize(plane.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for plane in planes]
        panels += [draw_contours(np.asarray(rgb, np.uint8), np.stack(large) > 0), gap]
    return encode_webp(np.concatenate(panels[:-1], axis=1), _QUALITY + 8)


def pack_mask(mask: UInt8[np.ndarray, "m s h w"], level: int) -> str:
    """Deflate a mask to base64 without loss, which images do not promise."""
    return encode_base64(zlib.compress(mask.tobytes(), level))


def encode_base64(data: bytes) -> str:
    """Encode bytes as text that stands in JSON and in a page."""
    return base64.b64encode(data).decode("ascii")


def _unpack_mask(text: str, shape: Sequence[int]) -> UInt8[np.ndarray, "m d h w"]:
    size = math.prod(shape)
    if len(shape) != 4 or not 0 < size <= _MOST_PIXELS:
        raise ValueError(f"its masks claim the shape {shape}")
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _draw_slice(pixels: Shaped[np.ndarray, "c h w"], window: tuple[float, float], side: int) -> bytes:
    """Encode one slice, no larger than asked for."""
    # Scaled down before colors are made of it, so that a slice of 20,000 pixels a side takes no further memory.
    size = _fit_size(pixels.shape[1:], side)
    channels = pixels if _is_color(pixels) else pixels[:1]
    small: NDArray[Any] = np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in channels])
    return encode_webp(to_rgb(small, *window), _QUALITY)


def _fit_size(shape: Sequence[int], side: int, *, enlarge: bool = False) -> tuple[int, int]:
    """Return `(width, height)` with the longest side no longer than asked for.

    >>> _fit_size((200, 100), 50), _fit_size((20, 10), 50), _fit_size((20, 10), 50, enlarge=True)
    ((25, 50), (10, 20), (25, 50))
    """
    height, width = shape
    scale = side / max(height, width)
    scale = scale if enlarge else min(1.0, scale)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrink_mask(mask: UInt8[np.ndarray, "m d h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "m d H W"]:
    """Take the nearest pixel for each of fewer ones."""
    columns, rows = (_nearest(length, wanted) for length, wanted in zip(mask.shape[:1:-1], size, strict=True))
    return mask[:, :, rows[:, None], columns]


def _nearest(length: int, wanted: int) -> Int[np.ndarray, " n"]:
    """Return the indices of the `length` pixels nearest to `wanted` centers."""
    return ((np.arange(wanted) + 0.5) * length / wanted).astype(np.intp)
