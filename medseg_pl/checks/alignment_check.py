"""Whether a mask would fit its image better elsewhere: borders of structures lie on edges of the image.

The gradient under the borders of the mask is averaged for every shift within a few pixels. Where the masks of a data
set lie on edges, the average has its peak at no shift; a mask that was moved has it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.image_measurement import finite_sample
from medseg_pl.checks.measurements import Alignment, CaseFacts

_REACH = 10
_LARGEST_SIDE = 512
_SLICES = 6
_FEWEST_BORDER_PIXELS = 40
_SEEN = 0.8
"""Of the border must be inside the image for a shift to count."""
_CLEAR_SHIFT = 3.0
_CLEARLY_BETTER = 1.5
_ON_EDGES = 1.25
_ENOUGH = 4


def align(image: Shaped[np.ndarray, "c d h w"], mask: Shaped[np.ndarray, "d h w"]) -> Alignment | None:
    """How well the borders in a mask lie on edges, in the slices with most of them.

    Returns:
        `None` where there are too few borders, or no shift within reach is the best.
    """
    chosen = _busiest(mask)
    sums = counts = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
    scale = min(1.0, _LARGEST_SIDE / max(mask.shape[1:]))
    for index in chosen:
        plane, labels = _shrunk(image[:, index], mask[index], scale)
        border = _border(labels)
        if min(border.shape) > 2 * _REACH:
            sums = sums + _under(border, _gradient(plane))
            counts = counts + _under(border, np.ones(border.shape, np.float32))
    if counts[_REACH, _REACH] < _FEWEST_BORDER_PIXELS:
        return None
    seen = counts >= _SEEN * counts[_REACH, _REACH]
    means = np.where(seen, sums / np.maximum(counts, 1), 0)
    means /= max(float(means[seen].mean()), 1e-12)
    place = np.unravel_index(int(means.argmax()), means.shape)
    y, x = (int(axis) - _REACH for axis in place)
    if not means.any() or max(abs(y), abs(x)) == _REACH:  # nothing to fit, or better and better to the end: no peak
        return None
    here, best = float(means[_REACH, _REACH]), float(means.max())
    return Alignment((round(y / scale), round(x / scale)), float(np.hypot(y, x)), here, best)


def shift_findings(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Masks that are moved, where those of most other cases lie on edges; or all masks, where all are moved alike."""
    known = [(facts, facts.alignment) for facts in cases if facts.alignment is not None]
    moved = [(facts, found) for facts, found in known if _is_moved(found)]
    if len(known) < _ENOUGH or not moved:
        return
    shifts = np.array([found.shift for _, found in moved])
    alike = np.abs(shifts - np.median(shifts, axis=0)).max(axis=1) <= 1
    systematic = alike.sum() > len(known) / 2
    if not systematic and float(np.median([found.here for _, found in known])) < _ON_EDGES:
        return
    for facts, found in moved:
        y, x = found.shift
        gain = found.best / max(found.here, 1e-6)
        said = f"Borders lie on edges {gain:.1f} times as strong when the mask is moved by {y} rows and {x} columns."
        yield finding("image-mask-shift", said, facts.case.case_id, facts.case.masks[0] if facts.case.masks else None)


def _is_moved(found: Alignment) -> bool:
    return found.distance >= _CLEAR_SHIFT and found.best >= _CLEARLY_BETTER * max(found.here, 1.0)


def _busiest(mask: Shaped[np.ndarray, "d h w"]) -> list[int]:
    """The slices with most labeled pixels."""
    filled = np.count_nonzero(mask, axis=(1, 2))
    return [int(index) for index in np.argsort(-filled, kind="stable")[:_SLICES] if filled[index]]


def _shrunk(
    planes: Shaped[np.ndarray, "c h w"], mask: Shaped[np.ndarray, "h w"], scale: float
) -> tuple[Float[np.ndarray, "H W"], Shaped[np.ndarray, "H W"]]:
    """The mean of all channels, without outliers, and the mask, both of them smaller where they are large."""
    values = finite_sample(planes)
    low, high = np.percentile(values, [1, 99]).tolist() if values.size else (0.0, 1.0)
    image = np.nan_to_num(planes.astype(np.float32), nan=low, posinf=high, neginf=low).clip(low, high).mean(axis=0)
    labels = mask.astype(np.float32)
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
    return image, labels


def _gradient(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.asarray(np.hypot(across, down))


def _border(labels: Shaped[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels on both sides of where labels change."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.dilate(labels, cross) != cv2.erode(labels, cross))


def _under(border: Bool[np.ndarray, "h w"], values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n n"]:
    """The sum of the values under the border for each shift, beyond the image being 0."""
    padded = cv2.copyMakeBorder(values, _REACH, _REACH, _REACH, _REACH, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.matchTemplate(padded, border.astype(np.float32), cv2.TM_CCORR))
