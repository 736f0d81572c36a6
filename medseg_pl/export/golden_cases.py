"""Synthetic images, and what medseg's own path makes of them: what an exported model has to give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Shaped
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.inference.postprocess import apply_postprocess
from medseg_pl.inference.predictor import Predictor
from medseg_pl.models.normalization import IntensityWindow, MeanStd, Normalization, PerChannel
from medseg_pl.training.module import SegmentationModule

Spacing = tuple[float, float, float]


class GoldenCase(NamedTuple):
    """An image, or probabilities, to which the result is known.

    Attributes:
        name: Of its file.
        arrays: What goes in and what has to come out.
        whole_image_max_pixels: In place of the specification's, so that small images show what large ones go through.
    """

    name: str
    arrays: dict[str, NDArray[Any]]
    whole_image_max_pixels: int | None = None


def golden_cases(module: SegmentationModule) -> list[GoldenCase]:
    """Cases whose sizes are odd, smaller and larger than a window, whole and in windows, of several types.

    Args:
        module: The trained module; or one around the exported graph, where its precision is lower.
    """
    height, width = module.sliding_window.window
    rng = np.random.default_rng(0)
    depth = module.context_slices + 2
    low, high = np.array(_ranges(module.model.normalization, module.channels)).T[..., None, None, None]
    large = _image(rng, (module.channels, depth, _odd(1.3 * height), _odd(1.15 * width)), low, high)
    large[0, 0, :2, 0] = np.nan  # no infinity: OpenCV scales it as the processor likes
    long = _image(rng, (module.channels, 1, _odd(1.6 * height), _odd(1.2 * width)), low, high)
    small = _image(
        rng, (module.channels, 1, _odd(0.6 * height), _odd(0.45 * width)), np.maximum(0, low), np.minimum(255, high)
    )
    spacing = _spacing(module)
    flat = spacing if module.resize.spacing_mm else None
    return [
        _predicted(module, "whole", large, spacing),
        _predicted(module, "windows", np.rint(long).astype(np.int16), spacing, height * width),
        _predicted(module, "small", np.rint(small).astype(np.uint8), flat),
        _decided(module, rng),
    ]


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a case."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _predicted(
    module: SegmentationModule,
    name: str,
    image: Shaped[np.ndarray, "c d h w"],
    spacing_mm: Spacing | None,
    whole_image_max_pixels: int | None = None,
) -> GoldenCase:
    """What medseg predicts for an image."""
    depth, height, width = image.shape[1:]
    usual = module.sliding_window.max_pixels
    module.sliding_window.max_pixels = usual if whole_image_max_pixels is None else whole_image_max_pixels
    try:
        volume = Volume(image, None, Geometry((depth, height, width), spacing_mm))
        found = Predictor([module]).predict_volume(volume, name, probabilities=True)
    finally:
        module.sliding_window.max_pixels = usual
    assert found.probabilities is not None, "they were asked for"
    arrays = {"image": image, "probabilities": found.probabilities, "mask": found.mask}
    return GoldenCase(name, arrays | _known(spacing_mm), whole_image_max_pixels)


def _decided(module: SegmentationModule, rng: np.random.Generator) -> GoldenCase:
    """What is made of probabilities: blocks that are sparse on the left, and full of holes on the right."""
    labels, spacing_mm = module.labels, (2.0, 0.75, 0.5)
    density = np.where(np.arange(13) < 7, 0.15, 0.85)
    blocks = rng.random((labels.classes, 5, 11, 13), np.float32)
    chosen = np.where(blocks < density, 0.5 + 0.4 * blocks, 0.4 * blocks).astype(np.float32)
    probabilities = chosen.repeat(3, axis=2).repeat(3, axis=3)
    decided = labels.decide(torch.from_numpy(probabilities)[None])[0].numpy()
    geometry = Geometry((5, 33, 39), spacing_mm)
    mask = apply_postprocess(decided, geometry, labels, module.assembler.cleaning)
    arrays = {"probabilities": probabilities, "mask": mask, "values": _file_values(mask, labels)}
    return GoldenCase("decision", arrays | _known(spacing_mm))


def _file_values(mask: NDArray[np.uint8], labels: LabelMap) -> NDArray[Any]:
    """What the pictures hold that a mask is written to."""
    colored = labels.colors is not None
    if not labels.overlapping:
        return np.stack([labels.decode(mask, colored)])
    return np.stack([labels.decode_one(plane, index, 255, colored) for index, plane in enumerate(mask)])


def _known(spacing_mm: Spacing | None) -> dict[str, NDArray[Any]]:
    return {} if spacing_mm is None else {"spacing_mm": np.array(spacing_mm)}


def _spacing(module: SegmentationModule) -> Spacing:
    """Such that a slice grows on one axis and shrinks on the other, where the model has a spacing of its own."""
    y, x = module.resize.spacing_mm or (0.75, 0.5)
    return 3.0, 1.3 * y, 0.8 * x


def _ranges(how: Normalization, channels: int) -> list[tuple[float, float]]:
    """Find the raw values that the model is made for, channel by channel."""
    if isinstance(how, PerChannel):
        return [_ranges(one, 1)[0] for one in how.channels if isinstance(one, Normalization)]
    if isinstance(how, IntensityWindow):
        return [(1.2 * how.low - 0.2 * how.high, 1.2 * how.high - 0.2 * how.low)] * channels
    if isinstance(how, MeanStd):
        return [(0.0, float((how.mean + 2 * how.std).max()))] * channels
    return [(0.0, 1000.0)] * channels


def _image(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int],
    low: Float64[np.ndarray, "c 1 1 1"],
    high: Float64[np.ndarray, "c 1 1 1"],
) -> Float32[np.ndarray, "c d h w"]:
    """Smooth blobs under noise, on a dark ground."""
    channels, depth, height, width = shape
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, side) for side in (depth, height, width)), indexing="ij")
    image = rng.random(shape) * 0.1
    for channel in range(channels):
        for _ in range(6):
            z, y, x = rng.uniform(-0.8, 0.8, 3)
            radii = ((d - z) / 2) ** 2 + ((h - y) / rng.uniform(0.1, 0.5)) ** 2 + ((w - x) / rng.uniform(0.1, 0.5)) ** 2
            image[channel] += rng.uniform(0.2, 0.8) * np.exp(-radii)
    return np.asarray(low + (high - low) * np.clip(image, 0, 1), dtype=np.float32)


def _odd(length: float) -> int:
    return max(3, int(length)) | 1
