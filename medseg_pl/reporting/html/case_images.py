"""A case as a browser gets it: compressed slices, and masks as bytes that it unpacks itself."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import HIGH, LOW
from medseg_pl.core.visualization import draw_contours, spread_slices, to_rgb
from medseg_pl.io.raster import webp

MOST_SLICES = 48
_SIDES = (320, 256, 192, 128)
"""The longest side of a slice, in pixels; the shorter ones where a case would be too large otherwise."""
_LARGE_SIDE = 640
_FEW_SLICES = 4
"""Of so few, as of a 2D image, each may be large: vessels and lesions of a few pixels are lost otherwise."""
_ENOUGH_SLICES = 12
_QUALITY = 72
_THUMBNAIL = 180


class Masks(NamedTuple):
    """The masks of a case on its native grid, `(M, D, H, W)` each; a run that did not predict it has `None`."""

    reference: UInt8[np.ndarray, "m d h w"]
    predictions: list[UInt8[np.ndarray, "m d h w"] | None]


def case_images(
    image: Shaped[np.ndarray, "c d h w"],
    statistics: Float32[np.ndarray, "c 4"],
    masks: Masks,
    geometry: Geometry,
    telling: int,
    budget: int,
) -> dict[str, Any]:
    """What the viewer shows of a case, as plain values.

    Args:
        image: Raw values.
        statistics: See `medseg_pl.core.intensity.channel_statistics`.
        masks: What is drawn over them.
        geometry: The grid.
        telling: The slice that must not be left out.
        budget: Bytes that it may take; fewer and smaller slices are kept until it does.
    """
    drawn = [mask for mask in (masks.reference, *masks.predictions) if mask is not None]
    holding = np.any([(mask != 0).any(axis=(0, 2, 3)) for mask in drawn], axis=0)
    places = spread_slices(holding, MOST_SLICES, telling)
    for side in _SIDES if len(places) > _FEW_SLICES else (_LARGE_SIDE, *_SIDES):
        size = _size(image.shape[2:], side)
        made = _slices(image, statistics, masks, places, size)
        fitting = max(1, budget * len(places) // _bytes(made))
        if fitting >= min(_ENOUGH_SLICES, len(places)):
            break
    if fitting < len(places):
        places = spread_slices(np.isin(np.arange(image.shape[1]), places), fitting, telling)
        made = _slices(image, statistics, masks, places, size)
    spacing = geometry.spacing_mm or (1.0, 1.0, 1.0)
    return {
        "width": size[0],
        "height": size[1],
        "aspect": round(image.shape[3] * spacing[2] / (image.shape[2] * spacing[1]), 4),
        "depth": image.shape[1],
        "slices": [int(place) for place in places],
        "telling": int(np.flatnonzero(places == telling)[0]),
        **made,
    }


def _slices(
    image: Shaped[np.ndarray, "c d h w"],
    statistics: Float32[np.ndarray, "c 4"],
    masks: Masks,
    places: NDArray[np.int64],
    size: tuple[int, int],
) -> dict[str, Any]:
    """Some slices and their masks as text; of masks all slices together, for neighbors are alike."""
    return {
        "images": [_text(webp(_resized(_rgb(image[:, place], statistics), size), _QUALITY)) for place in places],
        "reference": _packed(masks.reference[:, places], size),
        "predictions": [None if mask is None else _packed(mask[:, places], size) for mask in masks.predictions],
    }


def _bytes(made: dict[str, Any]) -> int:
    return sum(len(text) for text in (*made["images"], made["reference"], *made["predictions"]) if text is not None)


def thumbnail(
    pixels: Shaped[np.ndarray, "c h w"],
    statistics: Float32[np.ndarray, "c 4"],
    panels: Sequence[Bool[np.ndarray, "n h w"]],
) -> str:
    """A slice several times side by side, each with the outlines of other masks; base64 of a WebP file."""
    size = _size(pixels.shape[1:], _THUMBNAIL, enlarge=True)
    rgb = _resized(_rgb(pixels, statistics), size)
    gap = np.zeros((size[1], 3, 3), np.uint8)
    drawn = [part for planes in panels for part in (_outlined(rgb, planes, size), gap)]
    return _text(webp(np.concatenate(drawn[:-1], axis=1), _QUALITY + 8))


def _outlined(
    rgb: UInt8[np.ndarray, "h w 3"], planes: Bool[np.ndarray, "n _ _"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """With outlines of two pixels: the outline of the mask, and that of the mask without its border."""
    large = [cv2.resize(plane.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for plane in planes]
    inner = [cv2.erode(plane, np.ones((3, 3), np.uint8)) for plane in large]
    for masks in (large, inner):
        rgb = draw_contours(rgb, np.stack(masks) > 0)
    return rgb


def _rgb(pixels: Shaped[np.ndarray, "c h w"], statistics: NDArray[np.float32]) -> UInt8[np.ndarray, "h w 3"]:
    return to_rgb(pixels, float(statistics[0, LOW]), float(statistics[0, HIGH]))


def _resized(rgb: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    shrinks = size[0] < rgb.shape[1]
    found = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(found, np.uint8)


def _size(shape: Sequence[int], side: int, *, enlarge: bool = False) -> tuple[int, int]:
    """`(width, height)` with the longest side no longer than asked, and not beyond the pixels that there are.

    >>> _size((200, 100), 50), _size((20, 10), 50), _size((20, 10), 50, enlarge=True)
    ((25, 50), (10, 20), (25, 50))
    """
    height, width = shape
    scale = side / max(height, width)
    scale = scale if enlarge else min(1.0, scale)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _packed(mask: UInt8[np.ndarray, "m s h w"], size: tuple[int, int]) -> str:
    """`(M, S, height, width)` bytes, deflated: exact, where pixels read back from an image may not be."""
    if mask.shape[2:] != (size[1], size[0]):
        rows, columns = (
            _nearest(length, wanted) for length, wanted in ((mask.shape[2], size[1]), (mask.shape[3], size[0]))
        )
        mask = mask[:, :, rows][:, :, :, columns]
    return _text(zlib.compress(np.ascontiguousarray(mask).tobytes(), 9))


def _nearest(length: int, wanted: int) -> NDArray[np.intp]:
    """The places of `length` that stand in for `wanted` ones, at their middles."""
    return ((np.arange(wanted) + 0.5) * length / wanted).astype(np.intp)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
