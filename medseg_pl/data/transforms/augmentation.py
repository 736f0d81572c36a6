"""Augmentation of training patches. The only module that knows albumentations."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.intensity import HIGH, LOW
from medseg_pl.core.validation import Recorded

# Otherwise importing albumentations asks a server for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations

_WARPED_AT_ONCE = 4
"""Channels that OpenCV warps in one call."""
_LEAST_BLUR = 0.5
"""A narrower blur leaves pixels as they are."""

Image = Shaped[np.ndarray, "c h w"]
Mask = UInt8[np.ndarray, "m h w"]


class Augmentation(Recorded, ABC):
    """Random changes of a patch and its mask that a seed decides."""

    @abstractmethod
    def __call__(
        self, image: Image, mask: Mask, statistics: Float32[np.ndarray, "c 4"], seed: int
    ) -> tuple[Image, Mask]:
        """Change a patch.

        Args:
            image: `(C', h, w)`, `uint8` or `float32`, raw values.
            mask: `(M, h, w)`.
            statistics: `(C', 4)`, those of each channel over the whole case.
            seed: The same seed gives the same change.

        Returns:
            Image and mask in the shapes and types that came in.
        """


Transforms = list[albumentations.BasicTransform]


class AlbumentationsAugmentation(Augmentation):
    """Runs the albumentations transforms of a subclass.

    For the intensity transforms values are brought to 0 … 1 between their case's 0.5th and 99.5th percentile, whatever
    the type of the file. Transforms clip there; what lay beyond is added again afterwards.
    """

    @abstractmethod
    def make_geometric(self) -> Transforms:
        """List what moves pixels, of image and mask together."""

    @abstractmethod
    def make_intensity(self) -> Transforms:
        """List what changes the values of an image, pixel by pixel."""

    def __call__(
        self, image: Image, mask: Mask, statistics: Float32[np.ndarray, "c 4"], seed: int
    ) -> tuple[Image, Mask]:
        """See `Augmentation`."""
        moving, changing = self._pipelines
        # One source for all of them: `set_random_seed` gives each transform its own, seeded alike, and two flips would
        # always come together.
        draws = np.random.default_rng(seed), random.Random(seed)
        for pipeline in self._pipelines:
            pipeline.set_random_state(*draws)
        if moving.transforms:
            moved = moving(image=_to_channels_last(image), mask=_to_channels_last(mask))
            image, mask = _to_channels_first(moved["image"], image.shape), _to_channels_first(moved["mask"], mask.shape)
        if changing.transforms:
            unit, span = _to_unit(image, statistics)
            given = _to_channels_last(unit)
            changed = changing(image=given)["image"]
            if changed is not given:
                changed = _to_channels_first(changed, image.shape)
                image = _from_unit(image, changed - unit, span)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)

    @cached_property
    def _pipelines(self) -> tuple[Any, Any]:
        # Image and mask are cut from one case: nobody need ask whether they fit.
        moving, changing = self.make_geometric(), self.make_intensity()
        return tuple(albumentations.Compose(each, is_check_shapes=False) for each in (moving, changing))


class StandardAugmentation(AlbumentationsAugmentation):
    """Flips, rotations, scales, shifts and changes of intensities.

    They help most 2D medical images.

    Args:
        flip_horizontal: Probability of exchanging left and right; 0 where labels or anatomy know the side.
        flip_vertical: Probability of exchanging top and bottom.
        rotate_degrees: Rotations up to this angle.
        scale: Enlarges or shrinks by up to this share.
        shift: Moves by up to this share of the patch.
        geometric_probability: How often the patch is rotated, scaled and shifted, in one step.
        brightness: Adds up to this share of the range, from the case's 0.5th to its 99.5th percentile.
        contrast: Multiplies by up to one plus or minus this share.
        gamma: Exponents from `1 - gamma` to `1 + gamma`.
        noise: Standard deviation of Gaussian noise, up to this share of the range.
        blur: Standard deviation of a Gaussian blur, from 0.5 up to so many pixels; 0 for none.
        low_resolution: Shrinks to this share of the pixels' number along an axis at the least, and enlarges again; 1
            for never.
        intensity_probability: How often each change of intensity happens.

    Raises:
        SettingError: `blur` is below 0.5 but not 0, or `low_resolution` is not above 0 and at most 1.
    """

    def __init__(
        self,
        flip_horizontal: float = 0.5,
        flip_vertical: float = 0.0,
        rotate_degrees: float = 15.0,
        scale: float = 0.15,
        shift: float = 0.05,
        geometric_probability: float = 0.5,
        brightness: float = 0.15,
        contrast: float = 0.15,
        gamma: float = 0.0,
        noise: float = 0.0,
        blur: float = 0.0,
        low_resolution: float = 1.0,
        intensity_probability: float = 0.3,
    ) -> None:
        self.flip_horizontal = flip_horizontal
        self.flip_vertical = flip_vertical
        self.rotate_degrees = rotate_degrees
        self.scale = scale
        self.shift = shift
        self.geometric_probability = geometric_probability
        self.brightness = brightness
        self.contrast = contrast
        self.gamma = gamma
        self.noise = noise
        if blur and blur < _LEAST_BLUR:
            raise SettingError(f"StandardAugmentation: blur must be 0 or at least {_LEAST_BLUR}; got {blur}.")
        if not 0 < low_resolution <= 1:
            raise SettingError(
                f"StandardAugmentation: low_resolution must be above 0, at most 1; got {low_resolution}."
            )
        self.blur = blur
        self.low_resolution = low_resolution
        self.intensity_probability = intensity_probability

    def make_geometric(self) -> Transforms:
        """List only what is switched on."""
        return _select_transforms(
            (self.flip_horizontal, albumentations.HorizontalFlip(p=self.flip_horizontal)),
            (self.flip_vertical, albumentations.VerticalFlip(p=self.flip_vertical)),
            (self.rotate_degrees or self.scale or self.shift, self._make_affine()),
        )

    def make_intensity(self) -> Transforms:
        """List only what is switched on."""
        often = self.intensity_probability
        gamma = (100 - 100 * self.gamma, 100 + 100 * self.gamma)  # albumentations takes per cent
        return _select_transforms(
            (
                self.brightness or self.contrast,
                albumentations.RandomBrightnessContrast(self.brightness, self.contrast, p=often),
            ),
            (self.gamma, albumentations.RandomGamma(gamma, p=often)),
            (
                self.blur,
                albumentations.GaussianBlur(
                    blur_limit=0, sigma_limit=(_LEAST_BLUR, max(_LEAST_BLUR, self.blur)), p=often
                ),
            ),
            (1 - self.low_resolution, _LowResolution(self.low_resolution, p=often)),
            (self.noise, albumentations.GaussNoise(std_range=(0.0, self.noise), p=often)),
        )

    def _make_affine(self) -> albumentations.Affine:
        return _Affine(
            scale=(1 - self.scale, 1 + self.scale),
            rotate=(-self.rotate_degrees, self.rotate_degrees),
            translate_percent=(-self.shift, self.shift),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            # Tissue mirrored at the border: any constant would be an intensity that this scanner may give a meaning.
            border_mode=cv2.BORDER_REFLECT_101,
            p=self.geometric_probability,
        )


class _LowResolution(albumentations.ImageOnlyTransform):  # type: ignore[misc]  # it has no types
    """Shrink and enlarge again in the image's own precision.

    Albumentations' `Downscale` rounds to 8 bit.
    """

    def __init__(self, least: float, p: float) -> None:
        super().__init__(p=p)
        self.least = least

    def get_params(self) -> dict[str, float]:
        return {"scale": self.py_random.uniform(self.least, 1.0)}

    def apply(self, img: NDArray[Any], scale: float, **params: Any) -> NDArray[Any]:
        height, width = img.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        planes = img.reshape(height, width, -1)
        changed = [
            cv2.resize(
                cv2.resize(np.ascontiguousarray(planes[..., channel]), small, interpolation=cv2.INTER_AREA),
                (width, height),
                interpolation=cv2.INTER_LINEAR,
            )
            for channel in range(planes.shape[2])  # OpenCV resizes four channels at most
        ]
        return np.stack(changed, axis=-1).reshape(img.shape)


class _Affine(albumentations.Affine):  # type: ignore[misc]  # it has no types
    """Warp the same pixels, without albumentations' checks before each warp.

    They take as long as to warp a mask.
    """

    def apply(self, img: NDArray[Any], matrix: NDArray[Any], output_shape: tuple[int, int], **params: Any) -> Any:
        if _count_channels(img) > _WARPED_AT_ONCE:
            return super().apply(img, matrix, output_shape, **params)
        return _warp(img, matrix, output_shape, self.interpolation, self.border_mode)

    def apply_to_mask(
        self, mask: NDArray[Any], matrix: NDArray[Any], output_shape: tuple[int, int], **params: Any
    ) -> Any:
        if _count_channels(mask) > _WARPED_AT_ONCE:
            return super().apply_to_mask(mask, matrix, output_shape, **params)
        return _warp(mask, matrix, output_shape, self.mask_interpolation, self.border_mode)


def _count_channels(planes: NDArray[Any]) -> int:
    return 1 if planes.ndim == 2 else planes.shape[2]


def _warp(
    planes: NDArray[Any], matrix: NDArray[Any], shape: tuple[int, int], interpolation: int, border: int
) -> NDArray[Any]:
    height, width = shape
    warped = cv2.warpAffine(planes, matrix[:2], (width, height), flags=interpolation, borderMode=border)
    return warped.reshape(height, width, *planes.shape[2:])  # OpenCV drops the axis of a single channel


def _select_transforms(*candidates: tuple[float, albumentations.BasicTransform]) -> Transforms:
    return [transform for strength, transform in candidates if strength]


def _to_unit(
    image: Image, statistics: NDArray[np.float32]
) -> tuple[Float32[np.ndarray, "c h w"], Float32[np.ndarray, "c 1 1"]]:
    """Scale each channel's range to 0 … 1, and return its width."""
    low = statistics[:, LOW, None, None]
    # A channel of one value has no range to divide by.
    span = np.maximum(statistics[:, HIGH, None, None] - low, 1e-6)
    if image.dtype != np.uint8:
        return ((image - low) / span).clip(0, 1).astype(np.float32), span
    # A table of 256 values is looked up several times as fast as an image is computed.
    tables = ((np.arange(256, dtype=np.float32) - low[:, 0]) / span[:, 0]).clip(0, 1)
    return np.stack([cv2.LUT(plane, table) for plane, table in zip(image, tables, strict=True)]), span


def _from_unit(image: Image, change: Float32[np.ndarray, "c h w"], span: Float32[np.ndarray, "c 1 1"]) -> Image:
    """Add a change in units of the range, in the image's type."""
    values: NDArray[Any] = image + change * span
    # Rounded and not cut off, which would darken every patch by half a gray value.
    return values if image.dtype != np.uint8 else np.rint(values).clip(0, 255).astype(np.uint8)


def _to_channels_last(planes: NDArray[Any]) -> NDArray[Any]:
    """Move channels behind, as albumentations wants them."""
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _to_channels_first(planes: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return planes.reshape(shape) if shape[0] == 1 else planes.transpose(2, 0, 1)
