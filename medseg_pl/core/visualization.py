"""Masks drawn over pixels, and which slices of a volume to draw."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

COLORS = ((255, 176, 0), (100, 143, 255), (220, 38, 127), (120, 94, 240), (254, 97, 0), (0, 158, 115), (240, 228, 66))
"""RGB of the first labels, told apart by color-blind eyes as well (IBM's and Wong's palettes)."""


def to_gray(pixels: Shaped[np.ndarray, "h w"], low: float, high: float) -> UInt8[np.ndarray, "h w"]:
    """Scale values between `low` and `high` to 0 to 255.

    >>> to_gray(np.array([[0.0, 5.0, 20.0]]), low=0, high=10)
    array([[  0, 127, 255]], dtype=uint8)
    """
    scaled = (np.nan_to_num(pixels.astype(np.float32)) - low) / max(high - low, 1e-6)
    return (scaled.clip(0, 1) * 255).astype(np.uint8)


def to_rgb(pixels: Shaped[np.ndarray, "c h w"], low: float, high: float) -> UInt8[np.ndarray, "h w 3"]:
    """Convert to RGB: 8-bit color as it is, else the first channel as gray between `low` and `high`."""
    if len(pixels) == 3 and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return np.stack([to_gray(pixels[0], low, high)] * 3, axis=-1)


def draw_contours(
    rgb: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"], *, dashed: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the outline of each mask in its label's color on a copy."""
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
    """Draw the image, its reference and its prediction side by side."""
    scale = max(1, -(-min_side // max(rgb.shape[:2])))
    large = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    masks = [mask.repeat(scale, axis=1).repeat(scale, axis=2) for mask in (reference, prediction)]
    gap = np.full((large.shape[0], 4, 3), 255, dtype=np.uint8)
    return np.concatenate([large, gap, draw_contours(large, masks[0]), gap, draw_contours(large, masks[1])], axis=1)


def select_slice(reference: Bool[np.ndarray, "n d h w"], prediction: Bool[np.ndarray, "n d h w"]) -> int:
    """Select the slice in which masks differ most, or else the reference's largest."""
    area = (reference ^ prediction).sum(axis=(0, 2, 3))
    if not area.any():
        area = reference.sum(axis=(0, 2, 3))
    return int(area.argmax()) if area.any() else len(area) // 2


def select_slices(holding: Bool[np.ndarray, " d"], most: int, always: int) -> Int[np.ndarray, " s"]:
    """Select slices, evenly spread over those that hold something and their neighbors.

    Args:
        holding: Which slices hold something; all count where none does.
        most: How many.
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
