"""Perturbations that make an image another one than a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Volume

Array = NDArray[Any]
Change = Callable[[Array, np.random.Generator], Array]


def _span(image: Array) -> tuple[float, float]:
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def _like(values: Array, image: Array) -> Array:
    """Store values in the type of the image, cut off where it ends."""
    if image.dtype.kind == "f":
        return values.astype(image.dtype)
    limits = np.iinfo(image.dtype)
    return np.rint(values).clip(limits.min, limits.max).astype(image.dtype)


def _remap(function: Callable[[Array], Array]) -> Change:
    """Change values between 0 and 1, and bring them back to the range of the image."""

    def change(image: Array, rng: np.random.Generator) -> Array:
        low, high = _span(image)
        return _like(low + (high - low) * function(((image - low) / (high - low)).clip(0, 1)), image)

    return change


def _scale(factor: float, offset: float = 0.0) -> Change:
    def change(image: Array, rng: np.random.Generator) -> Array:
        low, high = _span(image)
        return (factor * image.astype(np.float32) + offset * (high - low)).astype(np.float32)

    return change


def _export(low: float, high: float, most: float, dtype: str) -> Change:
    """Export a window between two percentiles to another type."""

    def change(image: Array, rng: np.random.Generator) -> Array:
        start, end = np.percentile(image, (low, high))
        values = ((image - start) / max(end - start, 1e-6)).clip(0, 1) * most
        return values.astype(dtype)

    return change


def _per_slice(function: Callable[[Array], Array]) -> Change:
    def change(image: Array, rng: np.random.Generator) -> Array:
        return np.stack([np.stack([_like(function(plane.astype(np.float32)), plane) for plane in c]) for c in image])

    return change


def _zoom(plane: Array) -> Array:
    height, width = plane.shape
    inner = plane[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)


def _pixelate(plane: Array) -> Array:
    height, width = plane.shape
    small = cv2.resize(plane, (max(1, width // 5), max(1, height // 5)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def _add_noise(image: Array, rng: np.random.Generator) -> Array:
    low, high = _span(image)
    return _like(image + rng.normal(0, 0.25 * (high - low), image.shape), image)


def _add_salt(image: Array, rng: np.random.Generator) -> Array:
    low, high = _span(image)
    drawn = rng.random(image.shape)
    return np.where(
        drawn < 0.05, _like(np.full(1, low), image), np.where(drawn > 0.95, _like(np.full(1, high), image), image)
    )


def _draw_noise(image: Array, rng: np.random.Generator) -> Array:
    low, high = _span(image)
    return _like(rng.uniform(low, high, image.shape), image)


def _black_out(image: Array, rng: np.random.Generator) -> Array:
    changed = image.copy()
    changed[..., : image.shape[-1] // 2] = image.min()
    return changed


def _pad(image: Array, rng: np.random.Generator) -> Array:
    height, width = image.shape[-2:]
    sides = [(0, 0), (0, 0), (height // 2, height // 2), (width // 2, width // 2)]
    return np.pad(image, sides, constant_values=image.min())


def _crop(image: Array, rng: np.random.Generator) -> Array:
    height, width = image.shape[-2:]
    return image[..., height // 4 : height - height // 4, width // 4 : width - width // 4]


INTENSITIES: Mapping[str, Change] = {
    "times 10": _scale(10),
    "divided by 10": _scale(0.1),
    "offset by its range": _scale(1, 1),
    "offset below zero": _scale(1, -1.5),
    "inverted": _remap(lambda x: 1 - x),
    "negated": _scale(-1),
    "floats from 0 to 1": _export(0.5, 99.5, 1.0, "float32"),
    "16-bit export": _export(0, 100, 65535, "uint16"),
    "8-bit export": _export(0, 100, 255, "uint8"),
    "narrow window": _remap(lambda x: ((x - 0.35) / 0.3).clip(0, 1)),
    "bright cut off": _remap(lambda x: (x / 0.3).clip(0, 1)),
    "dark cut off": _remap(lambda x: ((x - 0.6) / 0.4).clip(0, 1)),
    "other contrast": _remap(lambda x: np.abs(x - 0.4) / 0.6),
    "gamma 0.25": _remap(lambda x: x**0.25),
    "gamma 4": _remap(lambda x: x**4),
    "three gray levels": _remap(lambda x: np.floor(3 * x.clip(0, 0.999)) / 2),
    "thresholded": _remap(lambda x: (x > 0.5).astype(float)),
    "blank": lambda image, rng: np.zeros_like(image),
    "one value": lambda image, rng: np.full_like(image, image.max()),
    "noise": _add_noise,
    "salt and pepper": _add_salt,
    "noise alone": _draw_noise,
    "blurred": _per_slice(lambda plane: cv2.GaussianBlur(plane, (0, 0), 3)),
    "pixelated": _per_slice(_pixelate),
    "edges alone": _per_slice(lambda plane: ndimage.gaussian_gradient_magnitude(plane, 1)),
    "half of it black": _black_out,
    "padded to twice its sides": _pad,
    "cropped to half its sides": _crop,
    "zoomed by 2": _per_slice(_zoom),
}
"""Changes of the pixels; no header tells of them."""

COLORS: Mapping[str, Change] = {
    "channels in reverse order": lambda image, rng: image[::-1],
    "channels rotated": lambda image, rng: np.roll(image, 1, axis=0),
    "gray stored as color": lambda image, rng: np.repeat(
        _like(image.mean(axis=0, keepdims=True), image), len(image), 0
    ),
    "color stored as gray": lambda image, rng: _like(image.mean(axis=0, keepdims=True), image),
}
COLOR_FOR_GRAY: Mapping[str, Change] = {"gray stored as color": lambda image, rng: np.repeat(image, 3, axis=0)}

TURNS: Mapping[str, Change] = {
    "mirrored": lambda image, rng: image[..., ::-1],
    "upside down": lambda image, rng: image[..., ::-1, :],
    "turned by 180 degrees": lambda image, rng: image[..., ::-1, ::-1],
    "turned by 90 degrees": lambda image, rng: np.rot90(image, axes=(-2, -1)),
    "transposed": lambda image, rng: image.swapaxes(-1, -2),
}
VOLUME_TURNS: Mapping[str, Change] = {
    "slices in reverse order": lambda image, rng: image[:, ::-1],
    "slices shuffled": lambda image, rng: image[:, rng.permutation(image.shape[1])],
    "cut across its rows": lambda image, rng: image.swapaxes(1, 2),
    "cut across its columns": lambda image, rng: image.swapaxes(1, 3),
}
"""Turns that the header does not tell of."""

SPACINGS: Mapping[str, tuple[float, float, float]] = {
    "spacing doubled": (2, 2, 2),
    "spacing a third": (1 / 3, 1 / 3, 1 / 3),
    "spacing in meters": (1000, 1000, 1000),
    "slices five times as far apart": (5, 1, 1),
}


def apply_change(volume: Volume, change: Change, rng: np.random.Generator) -> Volume:
    """Apply a change of pixels to a volume without its mask."""
    image = np.ascontiguousarray(change(volume.image, rng))
    depth, height, width = image.shape[1:]
    return Volume(image, None, replace(volume.geometry, shape=(depth, height, width)))


def scale_spacing(volume: Volume, factors: tuple[float, float, float]) -> Volume:
    """Scale what the header says of the spacing."""
    geometry = volume.geometry
    assert geometry.spacing_mm is not None, "asked of volumes alone"
    z, y, x = (spacing * factor for spacing, factor in zip(geometry.spacing_mm, factors, strict=True))
    affine = geometry.affine and tuple(
        tuple(value * (*factors, 1.0)[column] for column, value in enumerate(row)) for row in geometry.affine
    )
    return Volume(volume.image, None, Geometry(geometry.shape, (z, y, x), affine))


def borrow_content(volume: Volume, other: Volume) -> Volume:
    """Show what another data set shows, on this grid and in this range of values."""
    shape = volume.image.shape[1:]
    channels = []
    for channel in volume.image:
        source = other.image[min(len(other.image) - 1, len(channels))].astype(np.float32)
        zoomed = ndimage.zoom(source, [a / b for a, b in zip(shape, source.shape, strict=True)], order=1)
        ranks = np.argsort(np.argsort(zoomed.ravel(), kind="stable"), kind="stable")
        channels.append(np.sort(channel.ravel())[ranks].reshape(shape))
    return Volume(np.stack(channels), None, volume.geometry)


def draw_head() -> Volume:
    """Draw a head: skull, brain and ventricles, as shells of ellipsoids."""
    z, y, x = np.mgrid[-1:1:24j, -1:1:96j, -1:1:80j]
    image = np.random.default_rng(0).normal(0, 2, z.shape)
    shells = [(0.95, 0.95, 0.85, 200), (0.85, 0.85, 0.75, 90), (0.8, 0.8, 0.7, 120)]
    for depth, height, width, value in shells:
        image[(z / depth) ** 2 + (y / height) ** 2 + (x / width) ** 2 < 1] += value - 100
    for side in (-0.15, 0.15):
        image[(z / 0.4) ** 2 + (y / 0.35) ** 2 + ((x - side) / 0.1) ** 2 < 1] -= 60
    return Volume(image[None].astype(np.float32), None, Geometry((24, 96, 80), (3.0, 2.0, 2.0)))
