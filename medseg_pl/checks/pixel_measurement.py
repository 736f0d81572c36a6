"""Measurement of pixels: intensities of images, values of masks, and how well the two lie on each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray

from medseg_pl.checks.findings import TINY, Alignment, ImageFacts, MaskFacts, MaskValueCount, SmallComponents
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.data.perceptual_hash import compute_image_signature
from medseg_pl.io.file_header import FileHeader

_SAMPLE = 400_000
# Of the range: as many values should lie here as at the very top, unless the top was cut off.
_JUST_BELOW = 0.02
_TOO_FEW = 0.2
# The rim of a slice is this part of its height and width on each side.
_RIM = 8
_MOST_VALUES = 256
# Components are counted of masks with this many values; others are no label masks, or would take long.
_MOST_WITH_COMPONENTS = 12
_TABLE, _EXACT = 1 << 16, 1 << 53
_REACH = 10
_LARGEST_SIDE = 512
_SLICES = 6
_FEWEST_BORDER_PIXELS = 40
# Of the border must be inside the image for a shift to count.
_SEEN = 0.8


def measure_image(
    pixels: Shaped[np.ndarray, "c d h w"],
    grids: Sequence[Geometry],
    paths: Sequence[Path],
    headers: Sequence[FileHeader],
    modality: str = "",
    turned_bright: bool = False,
) -> ImageFacts:
    """Measure the intensities of a case.

    Args:
        pixels: All channels.
        grids: The grid of each file.
        paths: The files.
        headers: The header of each.
        modality: As DICOM names it.
        turned_bright: Whether it is stored with bright as low.
    """
    finite = float(np.isfinite(pixels).mean()) if pixels.dtype.kind == "f" else 1.0
    values = sample_finite(pixels)
    ends = tuple(_find_ends(channel, finite) for channel in pixels)
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    low, middle, high = np.percentile(values, [1, 50, 99]).tolist() if values.size else (0.0, 0.0, 0.0)
    just_below = highest - _JUST_BELOW * (highest - low)
    return ImageFacts(
        path=paths[0],
        headers=tuple(headers),
        geometry=grids[0],
        grids=tuple(grids),
        channels=len(pixels),
        dtype=pixels.dtype.name,
        finite=finite,
        lowest=lowest,
        highest=highest,
        ends=ends,
        percentiles=(low, middle, high),
        at_top=float((values == highest).mean()) if values.size else 0.0,
        below_top=float(((values >= just_below) & (values < highest)).mean()) if values.size else 0.0,
        contrast=_measure_contrast(pixels),
        constant=tuple(index for index, channel in enumerate(pixels) if channel.min() == channel.max()),
        digest=_hash_pixels(pixels),
        signature=compute_image_signature(pixels, compute_channel_statistics(pixels)) if lowest < highest else None,
        modality=modality,
        turned_bright=turned_bright,
    )


def sample_finite(pixels: Shaped[np.ndarray, "..."], most: int = _SAMPLE) -> Shaped[np.ndarray, " n"]:
    """Draw about `most` values evenly from an array, the finite ones."""
    values = pixels.ravel()[:: max(1, pixels.size // most)]
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _find_ends(pixels: NDArray[Any], finite: float) -> tuple[float, float]:
    """Find the smallest and the largest number, 0 where there is none."""
    values = pixels if finite == 1.0 else pixels[np.isfinite(pixels)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _measure_contrast(pixels: Shaped[np.ndarray, "c d h w"]) -> float:
    """Measure the contrast of middle and rim in the middle slice.

    It is in standard deviations.

    >>> image = np.zeros((1, 1, 16, 16))
    >>> image[..., 4:12, 4:12] = 1
    >>> round(_measure_contrast(image), 1)
    2.3
    """
    plane = pixels[:, pixels.shape[1] // 2].astype(np.float64).mean(axis=0)
    plane[~np.isfinite(plane)] = np.nan
    if np.isnan(plane).mean() > _TOO_FEW:
        return 0.0
    height, width = plane.shape
    inner = plane[height // 4 : height - height // 4, width // 4 : width - width // 4]
    within_rim = plane[height // _RIM : height - height // _RIM, width // _RIM : width - width // _RIM]
    rim = (np.nansum(plane) - np.nansum(within_rim)) / max(plane.size - within_rim.size, 1)
    spread = float(np.nanstd(plane))
    return float((np.nanmean(inner) - rim) / spread) if spread > 0 else 0.0


def _hash_pixels(pixels: NDArray[Any]) -> bytes:
    # Shape and type first: a reshaped array has the same bytes.
    digest = hashlib.blake2b(f"{pixels.shape}{pixels.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def measure_mask(
    pixels: Shaped[np.ndarray, "*c d h w"],
    geometry: Geometry,
    path: Path,
    header: FileHeader,
    label: int | None = None,
    stored: bool = False,
    with_components: bool = True,
) -> MaskFacts:
    """Count the values of a mask file.

    Args:
        pixels: Values `(D, H, W)`, or colors `(3, D, H, W)`.
        geometry: Their grid.
        path: The file.
        header: Its header.
        label: The index of the label that the file holds alone.
        stored: Whether the values are those of a stored mask.
        with_components: Whether components are measured too, which takes longest.
    """
    colored = pixels.ndim == 4
    finite = bool(np.isfinite(pixels).all())
    indices, table = index_values(_pack_colors(pixels) if colored else pixels)
    values = [tuple(float(part) for part in _unpack_color(value)) if colored else (float(value),) for value in table]
    counts = np.bincount(indices.ravel(), minlength=len(table))
    commonest = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    coherence = _measure_coherence(indices, counts)
    measurable = with_components and not colored and len(table) <= _MOST_WITH_COMPONENTS
    return MaskFacts(
        path=path,
        label=label,
        geometry=geometry,
        header=header,
        voxels=int(counts.sum()),
        values=tuple(MaskValueCount(values[i], int(counts[i]), float(coherence[i])) for i in commonest),
        distinct=len(table),
        finite=finite,
        whole=colored or bool((table[np.isfinite(table)] % 1 == 0).all()),
        colored=colored,
        components=tuple(
            _measure_components(indices == index, float(value))
            for index, value in enumerate(table)
            if measurable and value != 0
        ),
        stored=stored,
    )


def index_values(values: Shaped[np.ndarray, "d h w"]) -> tuple[Shaped[np.ndarray, "d h w"], Shaped[np.ndarray, " n"]]:
    """Index each value in a sorted table of all values.

    It does what `np.unique` does, but faster for few values.

    >>> indices, table = index_values(np.array([[[0, 255, 7]]]))
    >>> indices.tolist(), table.tolist()
    ([[[0, 2, 1]]], [0, 7, 255])
    """
    low, high = values.min(), values.max()
    finite = bool(np.isfinite(low) and np.isfinite(high))  # NaN, too, is its own minimum
    whole = values.dtype.kind != "f" or (finite and bool((values == np.rint(values)).all()))
    if not whole or float(high) - float(low) >= _TABLE or abs(float(low)) > _EXACT:
        table, indices = np.unique(values, return_inverse=True)
        return indices.reshape(values.shape), table
    # The type of the values may be too small for their differences.
    offsets = (values - low if low == 0 else values.astype(np.int64) - int(low)).astype(np.uint16)
    present = np.bincount(offsets.ravel()) > 0
    index = (np.cumsum(present) - 1).astype(np.uint16)
    return index[offsets], np.flatnonzero(present) + int(low)


def _pack_colors(colors: Shaped[np.ndarray, "3 d h w"]) -> Shaped[np.ndarray, "d h w"]:
    """Pack each color into one number."""
    red, green, blue = colors.astype(np.int64)
    return np.asarray(red << 32 | green << 16 | blue)


def _unpack_color(packed: Any) -> tuple[int, int, int]:
    number = int(packed)
    return number >> 32, number >> 16 & 0xFFFF, number & 0xFFFF


def _measure_coherence(
    indices: Shaped[np.ndarray, "d h w"], counts: Shaped[np.ndarray, " n"]
) -> Shaped[np.ndarray, " n"]:
    """Measure the share of each value's pixels followed by the same value."""
    shares = []
    for before, after in ((indices[..., :-1], indices[..., 1:]), (indices[..., :-1, :], indices[..., 1:, :])):
        same = np.bincount(before[before == after].ravel(), minlength=len(counts))
        shares.append(same / np.maximum(counts, 1))
    return np.asarray(np.maximum(*shares))


def _measure_components(mask: Bool[np.ndarray, "d h w"], value: float) -> SmallComponents:
    """Measure the components, which touch at corners too."""
    # Labeling is linear in the box, which for most structures is a small part of the volume.
    ends = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    cropped = mask[tuple(slice(int(first), int(last) + 1) for first, last in ends)]
    if len(cropped) == 1:
        _, _, stats, _ = cv2.connectedComponentsWithStats(cropped[0].astype(np.uint8), connectivity=8)
        sizes = stats[1:, cv2.CC_STAT_AREA]
    else:
        components, _ = scipy.ndimage.label(cropped, np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())[1:]
    return SmallComponents(value, int(sizes.max()), int((sizes <= TINY).sum()), len(sizes))


def measure_alignment(image: Shaped[np.ndarray, "c d h w"], mask: Shaped[np.ndarray, "d h w"]) -> Alignment | None:
    """Measure how well the borders in a mask lie on edges.

    It measures the slices with most of the mask. The gradient under the borders is averaged for every shift within a
    few pixels. Where masks lie on edges, the average has its peak at no shift; a mask that was moved has it elsewhere.

    Args:
        image: Raw values of all channels.
        mask: Label values, on the grid of the image.

    Returns:
        `None` where there are too few borders, or no shift within reach is the best.
    """
    filled = np.count_nonzero(mask, axis=(1, 2))
    busiest = [int(index) for index in np.argsort(-filled, kind="stable")[:_SLICES] if filled[index]]
    # Sums and counts of all slices before one division: a slice with a short border weighs little.
    sums = counts = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
    scale = min(1.0, _LARGEST_SIDE / max(mask.shape[1:]))
    for index in busiest:
        plane, labels = _shrink(image[:, index], mask[index], scale)
        border = _find_borders(labels)
        if min(border.shape) > 2 * _REACH:
            sums = sums + _sum_under_border(border, _compute_gradient(plane))
            counts = counts + _sum_under_border(border, np.ones(border.shape, np.float32))
    if counts[_REACH, _REACH] < _FEWEST_BORDER_PIXELS:
        return None
    seen = counts >= _SEEN * counts[_REACH, _REACH]
    means = np.where(seen, sums / np.maximum(counts, 1), 0)
    means /= max(float(means[seen].mean()), 1e-12)
    y, x = (int(axis) - _REACH for axis in np.unravel_index(int(means.argmax()), means.shape))
    if not means.any() or max(abs(y), abs(x)) == _REACH:  # nothing to fit, or better and better to the end: no peak
        return None
    here, best = float(means[_REACH, _REACH]), float(means.max())
    return Alignment((round(y / scale), round(x / scale)), float(np.hypot(y, x)), here, best)


def _shrink(
    planes: Shaped[np.ndarray, "c h w"], mask: Shaped[np.ndarray, "h w"], scale: float
) -> tuple[Float[np.ndarray, "H W"], Shaped[np.ndarray, "H W"]]:
    """Average the channels without outliers, and shrink large slices with their mask."""
    values = sample_finite(planes)
    # Metal and markers would outshine every edge of tissue.
    low, high = np.percentile(values, [1, 99]).tolist() if values.size else (0.0, 1.0)
    # NaN would spread over the neighborhood of the blur.
    image = np.nan_to_num(planes.astype(np.float32), nan=low, posinf=high, neginf=low).clip(low, high).mean(axis=0)
    labels = mask.astype(np.float32)
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
    return image, labels


def _compute_gradient(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.asarray(np.hypot(across, down))


def _find_borders(labels: Shaped[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Find the pixels on both sides of where labels change."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.dilate(labels, cross) != cv2.erode(labels, cross))


def _sum_under_border(border: Bool[np.ndarray, "h w"], values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n n"]:
    """Sum the values under the border for each shift."""
    # Values beyond the image are 0.
    padded = cv2.copyMakeBorder(values, _REACH, _REACH, _REACH, _REACH, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.matchTemplate(padded, border.astype(np.float32), cv2.TM_CCORR))
