"""The intensities of an image, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from medseg_pl.checks.measurements import ImageFacts
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.data.perceptual_hash import compute_image_signature
from medseg_pl.io.file_header import FileHeader

_SAMPLE = 400_000
_JUST_BELOW = 0.02
"""Of the range: as many values should lie here as at the very top, unless the top was cut off."""
_TOO_FEW = 0.2
_RIM = 8
"""The rim of a slice is this part of its height and width on each side."""


def measure_image(
    pixels: Shaped[np.ndarray, "c d h w"],
    grids: Sequence[Geometry],
    paths: Sequence[Path],
    headers: Sequence[FileHeader],
    modality: str = "",
    turned_bright: bool = False,
) -> ImageFacts:
    """What the intensities of a case are like.

    Args:
        pixels: All channels.
        grids: Where each file lies.
        paths: The files.
        headers: What each says of itself.
        modality: What DICOM calls the kind of image.
        turned_bright: Whether it is stored with bright as low.
    """
    finite = float(np.isfinite(pixels).mean()) if pixels.dtype.kind == "f" else 1.0
    values = finite_sample(pixels)
    ends = tuple(_ends(channel, finite) for channel in pixels)
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
        contrast=_contrast(pixels),
        constant=tuple(index for index, channel in enumerate(pixels) if channel.min() == channel.max()),
        digest=_digest(pixels),
        signature=compute_image_signature(pixels, compute_channel_statistics(pixels)) if lowest < highest else None,
        modality=modality,
        turned_bright=turned_bright,
    )


def finite_sample(pixels: Shaped[np.ndarray, "..."], most: int = _SAMPLE) -> Shaped[np.ndarray, " n"]:
    """Numbers drawn evenly from an array, without NaN and infinity."""
    values = pixels.ravel()[:: max(1, pixels.size // most)]
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _ends(pixels: NDArray[Any], finite: float) -> tuple[float, float]:
    """The smallest and the largest number, 0 where there is none."""
    values = pixels if finite == 1.0 else pixels[np.isfinite(pixels)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _contrast(pixels: Shaped[np.ndarray, "c d h w"]) -> float:
    """Mean of the middle less mean of the rim, in standard deviations, of the slice in the middle.

    >>> image = np.zeros((1, 1, 16, 16))
    >>> image[..., 4:12, 4:12] = 1
    >>> round(_contrast(image), 1)
    2.3
    """
    plane = pixels[:, pixels.shape[1] // 2].astype(np.float64).mean(axis=0)
    plane[~np.isfinite(plane)] = np.nan
    if np.isnan(plane).mean() > _TOO_FEW:
        return 0.0
    height, width = plane.shape
    inner = plane[height // 4 : height - height // 4, width // 4 : width - width // 4]
    kept = plane[height // _RIM : height - height // _RIM, width // _RIM : width - width // _RIM]
    rim = (np.nansum(plane) - np.nansum(kept)) / max(plane.size - kept.size, 1)
    spread = float(np.nanstd(plane))
    return float((np.nanmean(inner) - rim) / spread) if spread > 0 else 0.0


def _digest(pixels: NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(f"{pixels.shape}{pixels.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
