"""Facts of an image and of a mask, by which a model recognizes what it was not trained on.

An exported model ships this file: it imports numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Spacing = tuple[float, float, float]

PERCENTILES = (0.5, 10.0, 25.0, 50.0, 75.0, 90.0, 99.5)
AXES = ("depth", "height", "width")

_SLICES, _DETAILED_SLICES, _DETAILED_SIDE = 12, 3, 192
"""So few slices, and so small a part of them, are looked at: the facts of a volume cost less than reading it."""
_SAMPLE = 20_000
_GRID_VOLUME, _GRID_PICTURE = (7, 7, 7), (1, 8, 8)
_STEPS = (1, 2, 4, 8, 16)
_MOST_MASK_VOXELS = 4_000_000
_FEWEST_LABEL_VOXELS = 500
_EXTENT = (0.02, 0.98)


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image, without its content.

    Args:
        numbers: By name, such as `span[0]` for channel 0; a fact that is not known is absent.
        words: `dtype`, and where they are known `orientation`, `modality` and `photometric`.
        pattern: `(C, d, h, w)` mean intensities of a coarse grid, standardized in each channel.
    """

    numbers: dict[str, float]
    words: dict[str, str] = field(default_factory=dict)
    pattern: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))


def measure_image(
    image: Array, spacing_mm: Spacing | None = None, orientation: str | None = None, **words: str
) -> ImageFacts:
    """Measure the facts of an image.

    Args:
        image: `(C, D, H, W)` raw values.
        spacing_mm: Between voxels along `(z, y, x)`, where it is known.
        orientation: Axis codes of `(D, H, W)`, where they are known, see `find_axis_codes`.
        words: What a header says besides, such as `modality="MR"`.

    >>> facts = measure_image(np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8), (3.0, 1.0, 1.0), "SAR")
    >>> facts.words, round(facts.numbers["shape50[0]"], 1), facts.numbers["size.height"]
    ({'dtype': 'uint8', 'orientation': 'SAR'}, 0.5, 3.0)
    """
    depth, height, width = image.shape[1:]
    chosen = spread_indices(depth, _SLICES)
    step = max(1, math.ceil(math.sqrt(len(chosen) * height * width / _SAMPLE)))
    # Indexing by slices first: a mapped volume is read no further than that.
    coarse = np.stack([image[:, index, step // 2 :: step, step // 2 :: step] for index in chosen], axis=1)
    coarse = _fill_not_finite(coarse)
    numbers = _measure_grid(image.shape[1:], spacing_mm)
    detailed = chosen[:: max(1, len(chosen) // _DETAILED_SLICES)][:_DETAILED_SLICES]
    for channel, values in enumerate(coarse):
        pixels = _crop_slices(image[channel], detailed)
        numbers |= {f"{name}[{channel}]": value for name, value in _measure_channel(values, pixels).items()}
    numbers |= _measure_colors(coarse)
    if depth > 2:
        numbers["continuity"] = _measure_continuity(image)
    known = {"dtype": image.dtype.name, "orientation": orientation or "", **words}
    return ImageFacts(numbers, {name: word for name, word in known.items() if word}, _measure_pattern(coarse, depth))


def measure_mask(planes: Iterable[Array], names: Sequence[str], spacing_mm: Spacing | None = None) -> dict[str, float]:
    """Measure volume, position and extent of each label in a mask.

    Args:
        planes: `(D, H, W)` of each label, where it is not 0.
        names: The labels.
        spacing_mm: Between voxels along `(z, y, x)`, where it is known.

    Returns:
        By name, such as `liver.volume`, the decimal logarithm of millilitres or, where the spacing is unknown, of
        voxels; `liver.present` alone where the label is absent. Positions and extents are shares of the image's side.

    >>> plane = np.zeros((1, 4, 4)); plane[0, :, :1] = 1
    >>> facts = measure_mask([plane], ["edge"])
    >>> facts["edge.present"], facts["edge.center.height"], facts["edge.center.width"]
    (1.0, 0.5, 0.125)
    """
    numbers: dict[str, float] = {}
    for name, plane in zip(names, planes, strict=True):
        numbers |= {f"{name}.{fact}": value for fact, value in _measure_label(np.asarray(plane), spacing_mm).items()}
    return numbers


def spread_indices(length: int, most: int) -> list[int]:
    """Spread at most so many indices evenly, both ends included.

    >>> spread_indices(24, 4), spread_indices(2, 4)
    ([0, 8, 15, 23], [0, 1])
    """
    count = min(length, most)
    return [round(index * (length - 1) / max(1, count - 1)) for index in range(count)]


def _measure_continuity(image: Array) -> float:
    """Divide the change from slice to slice by that from each to the next but one."""
    depth, height, width = image.shape[1:]
    step = max(1, min(height, width) // 48)
    starts = spread_indices(depth - 2, _DETAILED_SLICES)
    triples = _fill_not_finite(np.stack([image[0, start : start + 3, ::step, ::step] for start in starts]))
    # The mean of quotients would follow the slices in which nothing changes.
    near, far = (float(np.abs(triples[:, other] - triples[:, 0]).mean()) for other in (1, 2))
    return near / far if far else 0.0


def _fill_not_finite(values: Array) -> NDArray[np.float32]:
    converted = values.astype(np.float32)
    finite = np.isfinite(converted)
    return converted if finite.all() else np.where(finite, converted, converted[finite].min(initial=0.0))


def _measure_grid(shape: Sequence[int], spacing_mm: Spacing | None) -> dict[str, float]:
    """Measure sizes in the logarithm of base 2, and spacings in that of base 10."""
    axes = [index for index, length in enumerate(shape) if index > 0 or length > 1]
    numbers = {f"size.{AXES[axis]}": float(np.log2(shape[axis])) for axis in axes}
    if spacing_mm is not None:
        numbers |= {f"spacing.{AXES[axis]}": float(np.log10(spacing_mm[axis])) for axis in axes}
        numbers |= {f"extent.{AXES[axis]}": float(np.log2(shape[axis] * spacing_mm[axis])) for axis in axes}
    return numbers


def _crop_slices(channel: Array, indices: Sequence[int]) -> NDArray[np.float32]:
    """Take the middle of some slices at full resolution."""
    top, left = (max(0, (length - _DETAILED_SIDE) // 2) for length in channel.shape[1:])
    rows, columns = slice(top, top + _DETAILED_SIDE), slice(left, left + _DETAILED_SIDE)
    return _fill_not_finite(np.stack([channel[index, rows, columns] for index in indices]))


def _measure_channel(values: Array, pixels: Array) -> dict[str, float]:
    """Measure intensities of a sample, and noise and sharpness of neighboring pixels."""
    # Sorted once, for all that is asked of the distribution.
    flat = np.sort(values, axis=None)
    quantiles = _interpolate_quantiles(flat, PERCENTILES)
    low, high = float(quantiles[0]), float(quantiles[-1])
    span = high - low
    if span <= 0:  # more than 99 percent have one value
        low, high = float(flat[0]), float(flat[-1])
        if (span := high - low) <= 0:
            return {"blank": 1.0}
    numbers = {"blank": 0.0, "span": float(np.log10(span)), "offset": low / span}
    shape = (quantiles[1:-1] - low) / span
    numbers |= {f"shape{percent:.0f}": float(s) for percent, s in zip(PERCENTILES[1:-1], shape, strict=True)}
    at_low, at_high = np.searchsorted(flat, flat[0], "right"), len(flat) - np.searchsorted(flat, flat[-1], "left")
    for name, count in (("at_low", at_low), ("at_high", at_high)):
        numbers[name] = float(np.log10(count / len(flat) + 1e-3))
    return numbers | _measure_steps(flat, low, high) | _measure_texture(pixels, span)


def _interpolate_quantiles(ordered: Array, percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Interpolate percentiles of sorted values, as `np.percentile` does."""
    positions = np.asarray(percentiles) / 100 * (len(ordered) - 1)
    below = positions.astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    first, second = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    quantiles: NDArray[np.float64] = first + (positions - below) * (second - first)
    return quantiles


def _measure_steps(ordered: Array, low: float, high: float) -> dict[str, float]:
    """Measure the step from value to value, and the share of steps in use: an export or a remapping leaves gaps."""
    first, last = np.searchsorted(ordered, low, "left"), np.searchsorted(ordered, high, "right")
    gaps = np.sort(np.diff(ordered[first:last]))
    gaps = gaps[np.searchsorted(gaps, 0, "right") :]
    if not len(gaps):
        return {}
    # Not the smallest gap: the rounding of floats makes some between equal values.
    step = float(_interpolate_quantiles(gaps, (25.0,))[0])
    return {"step": float(np.log10(step)), "filled": min(1.0, (len(gaps) + 1) * step / (high - low + step))}


def _measure_texture(pixels: Array, span: float) -> dict[str, float]:
    if min(pixels.shape[1:]) < 3:
        return {}
    # A Laplacian: it leaves slopes out, so that what remains is mostly noise.
    cross = pixels[:, :-2, 1:-1] + pixels[:, 2:, 1:-1] + pixels[:, 1:-1, :-2] + pixels[:, 1:-1, 2:]
    noise = float(np.abs(cross - 4 * pixels[:, 1:-1, 1:-1]).mean()) / span
    steps = [step for step in _STEPS if step < min(pixels.shape[1:])]
    changes = [np.abs(pixels[..., step:] - pixels[..., :-step]) for step in steps]
    means = [float(change.mean()) for change in changes]
    same = changes[0] == 0
    rows, columns = same.all(axis=2), (pixels[:, 1:] == pixels[:, :-1]).all(axis=1)
    # Of columns with content: a margin repeats itself in any image.
    repeated = same.all(axis=1) & ~columns[:, 1:]
    numbers = {
        "noise": float(np.log10(noise + 1e-5)),
        # Against the slope: blurring takes far more of the noise than of the edges.
        "grain": float(np.log10((noise + 1e-5) / (means[0] / span + 1e-5))),
        "flat": float(same.mean()),
        "repeated": float(repeated.mean()),
        "constant": float(rows.mean() + columns.mean()) / 2,
    }
    pairs = zip(steps, means, means[1:], strict=False)
    return numbers | {f"sharpness{step}": near / far if far > 0 else 0.0 for step, near, far in pairs}


def _measure_colors(coarse: Array) -> dict[str, float]:
    """Measure how unlike neighboring channels are, in the logarithm of base 10."""
    numbers = {}
    for channel, (one, other) in enumerate(pairwise(coarse)):
        span = float(np.ptp(one)) or 1.0
        numbers[f"color[{channel}]"] = float(np.log10(np.abs(one - other).mean() / span + 1e-4))
    return numbers


def _measure_pattern(coarse: Array, depth: int) -> NDArray[np.float32]:
    """Average over the cells of a coarse grid.

    Sides that are shorter than the grid repeat their voxels.
    """
    depths, rows, columns = map(_average_cells, coarse.shape[1:], _GRID_PICTURE if depth == 1 else _GRID_VOLUME)
    planes = rows @ coarse @ columns.T
    channels, slices, *cells = planes.shape
    return standardize((depths @ planes.reshape(channels, slices, -1)).reshape(channels, -1, *cells))


@lru_cache(maxsize=128)
def _average_cells(length: int, cells: int) -> NDArray[np.float32]:
    """Make the matrix that averages the voxels of each cell along one side.

    >>> _average_cells(5, 2).round(2).tolist()[0], _average_cells(1, 2).tolist()
    ([0.5, 0.5, 0.0, 0.0, 0.0], [[1.0], [1.0]])
    """
    starts = np.arange(cells) * length // cells
    # Cells differ by a voxel in size, and hold one at least.
    ends = np.maximum(np.arange(1, cells + 1) * length // cells, starts + 1)
    voxels = np.arange(length)
    inside = (voxels >= starts[:, None]) & (voxels < ends[:, None])
    shares: NDArray[np.float32] = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def standardize(pattern: Array) -> NDArray[np.float32]:
    """Scale each channel to mean 0 and length 1.

    A channel of one value becomes 0.

    >>> standardize(np.array([[1, 1, 3, 3]])).tolist()
    [[-0.5, -0.5, 0.5, 0.5]]
    """
    flat = pattern.reshape(len(pattern), -1).astype(np.float64)
    centered = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    scale = np.abs(flat).max(axis=1, keepdims=True, initial=0.0)
    # Rounding leaves 1e-7 of a value where nothing differs.
    whole = np.where(length > 1e-5 * scale, centered / np.maximum(length, 1e-30), 0.0)
    return whole.reshape(pattern.shape).astype(np.float32)


def _measure_label(plane: Array, spacing_mm: Spacing | None) -> dict[str, float]:
    if not plane.any():
        return {"present": 0.0}
    voxels = float(np.prod(spacing_mm)) / 1000 if spacing_mm is not None else 1.0
    step = max(1, int(np.cbrt(plane.size / _MOST_MASK_VOXELS)))
    thinned = plane[::step, ::step, ::step].astype(bool, copy=False)
    if step > 1 and np.count_nonzero(thinned) < _FEWEST_LABEL_VOXELS:  # too small a label to be thinned
        step, thinned = 1, plane.astype(bool, copy=False)
    count = np.count_nonzero(thinned) * plane.size / thinned.size
    numbers = {
        "present": 1.0,
        "volume": float(np.log10(count * voxels)),
        "share": float(np.log10(count / plane.size)),
    }
    # Whole planes are summed first, which is several times as fast as along rows.
    projected = thinned.view(np.uint8).sum(axis=0, dtype=np.uint32)
    profiles = ([np.count_nonzero(each) for each in thinned], projected.sum(axis=1), projected.sum(axis=0))
    for axis, name in enumerate(AXES):
        if plane.shape[axis] == 1:
            continue
        profile = np.asarray(profiles[axis], np.float64)
        centers = (np.arange(len(profile)) + 0.5) / len(profile)
        reached = np.cumsum(profile) / profile.sum()
        first, last = np.searchsorted(reached, _EXTENT)
        numbers[f"center.{name}"] = float((profile * centers).sum() / profile.sum())
        numbers[f"extent.{name}"] = float(last - first + 1) / len(profile)
    return numbers
