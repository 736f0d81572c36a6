"""Sizes of images and patches: windows, padding, resizing, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import ResizeMode
from medseg_pl.data.transforms.grids import (
    SIGMA,
    Padding,
    center_padding,
    fit_size,
    pad_constant,
    resize_image,
    resize_mask,
    scale_size,
)


def pad(image: Float[Tensor, "b c h w"], padding: Padding, fill: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c H W"]:
    """Add a border that holds the fill of each image and channel.

    Args:
        image: `(B, C, h, w)`.
        padding: Rows and columns to add on each side.
        fill: `(B, C, 1, 1)` values of the border.
    """
    if not any(padding):
        return image
    height, width = image.shape[-2:]
    size = (height + padding.top + padding.bottom, width + padding.left + padding.right)
    # Contiguous, since a clone of what was expanded keeps strides of zero, and writing to it would write everywhere.
    frame = fill.expand(*image.shape[:2], *size).clone(memory_format=torch.contiguous_format)
    frame[..., padding.top : padding.top + height, padding.left : padding.left + width] = image
    return frame


@lru_cache(maxsize=8)
def gaussian_weights(window: tuple[int, int], sigma_scale: float = SIGMA) -> Float[Tensor, "h w"]:
    """Compute weights that trust the middle of a window most.

    They are never zero, so that every pixel has a value.

    Args:
        window: `(height, width)`.
        sigma_scale: Standard deviation as a share of the window's side.

    References:
        Isensee et al., "nnU-Net", Nature Methods 18, 2021: sigma is one eighth of the window.
    """
    axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in window]
    y, x = (torch.exp(-0.5 * (axis / (side * sigma_scale)) ** 2) for axis, side in zip(axes, window, strict=True))
    weights = y[:, None] * x[None, :]
    return weights.clamp(min=float(weights[weights > 0].min()), max=None).clamp(min=1e-3)


@dataclass(frozen=True)
class Resize:
    """How slices are resized for the network.

    Args:
        mode: `none` keeps the pixels as they are: training sees crops of `size`, evaluation the whole image.
            `fit` scales the whole image into `size`, its proportions kept, the rest padded.
        size: `(height, width)` in pixels.
        spacing_mm: With `none`, bring every slice to these distances `(y, x)` between pixels first.
        scale: By how much `(height, width)` grow; `adapt_to` finds it for a case.

    Raises:
        SettingError: `mode` is unknown, a size or distance not above 0, or `spacing_mm` set with `fit`.

    >>> Resize("fit", (100, 100)).compute_scaled_size((400, 200))
    (100, 50)
    """

    mode: ResizeMode
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Reject sizes and modes that mean nothing."""
        if self.mode not in get_args(ResizeMode):
            raise SettingError(f"resize must be one of {', '.join(get_args(ResizeMode))}; got {self.mode!r}.")
        if min(self.size) < 1:
            raise SettingError(f"size must be (height, width), both at least 1 pixel; got {tuple(self.size)}.")
        if self.spacing_mm is not None and (self.mode != "none" or not 0 < min(self.spacing_mm) < math.inf):
            raise SettingError(
                f"spacing_mm must be two distances above 0 and goes with resize none; got {self.spacing_mm} with "
                f"resize {self.mode}. Correct model.spacing_mm, or set it to null."
            )

    def adapt_to(self, geometry: Geometry) -> Resize:
        """Resize for the slices of one case.

        >>> Resize("none", (64, 64), spacing_mm=(2.0, 2.0)).adapt_to(Geometry((1, 10, 10), (5.0, 1.0, 0.5))).scale
        (0.5, 0.25)
        """
        if self.spacing_mm is None:
            return self
        assert geometry.spacing_mm is not None, "the data module has refused such cases"
        (_, y, x), (goal_y, goal_x) = geometry.spacing_mm, self.spacing_mm
        return replace(self, scale=(y / goal_y, x / goal_x))

    @property
    def patch(self) -> tuple[int, int]:
        """How many native pixels a training crop of `size` covers."""
        height, width = (max(1, round(side / grow)) for side, grow in zip(self.size, self.scale, strict=True))
        return height, width

    def compute_fitted_size(self, native: tuple[int, int]) -> tuple[int, int]:
        """Compute the size at which an image reaches the network."""
        return self.size if self.mode == "fit" else self.compute_scaled_size(native)

    def compute_scaled_size(self, native: tuple[int, int]) -> tuple[int, int]:
        """Compute the size of the image inside its padding."""
        return fit_size(native, self.size) if self.mode == "fit" else scale_size(native, self.scale)

    def compute_padding(self, native: tuple[int, int]) -> Padding:
        """Compute what is added around the scaled image."""
        return center_padding(self.compute_scaled_size(native), self.compute_fitted_size(native))

    def apply(self, image: Shaped[np.ndarray, "c h w"], fill: Shaped[np.ndarray, " c"]) -> Shaped[np.ndarray, "c H W"]:
        """Resize an image, and pad it.

        Args:
            image: `(C, h, w)` on the native grid.
            fill: `(C,)` values of the padding.
        """
        scaled = resize_image(image, self.compute_scaled_size(image.shape[1:]))
        return pad_constant(scaled, self.compute_padding(image.shape[1:]), fill)

    def apply_mask(self, mask: Shaped[np.ndarray, "m h w"]) -> Shaped[np.ndarray, "m H W"]:
        """Resize a mask without new values, and pad it with background."""
        scaled = resize_mask(mask, self.compute_scaled_size(mask.shape[1:]))
        return pad_constant(scaled, self.compute_padding(mask.shape[1:]), np.zeros(len(mask), mask.dtype))

    def undo(self, probabilities: Float[Tensor, "b k h w"], native: tuple[int, int]) -> Float[Tensor, "b k H W"]:
        """Resize probabilities back to the native grid.

        Args:
            probabilities: `(B, K, h, w)` on the resized grid.
            native: `(height, width)` of the native grid.
        """
        if probabilities.shape[2:] == native:
            return probabilities
        inner = self.compute_padding(native).undo(probabilities)
        return F.interpolate(inner, size=native, mode="bilinear", align_corners=False)

    def undo_rows(
        self, probabilities: Float[Tensor, "b k h w"], native: tuple[int, int], rows: slice
    ) -> Float[Tensor, "b k r W"]:
        """Compute some rows of the result of `undo`, for huge images.

        Args:
            probabilities: `(B, K, h, w)` on the resized grid.
            native: `(height, width)` of the native grid.
            rows: The rows of the native grid, without a step.
        """
        if rows == slice(0, native[0]):
            return self.undo(probabilities, native)
        return scale_rows(self.compute_padding(native).undo(probabilities), native, rows)


def scale_rows(image: Float[Tensor, "b k h w"], size: tuple[int, int], rows: slice) -> Float[Tensor, "b k r W"]:
    """Compute some rows of an image that is scaled bilinearly.

    Args:
        image: `(B, K, h, w)`.
        size: `(height, width)` of the whole scaled image.
        rows: The rows of it, without a step.

    >>> scale_rows(torch.tensor([[[[0.0], [4.0]]]]), (4, 1), slice(1, 3)).flatten().tolist()
    [1.0, 3.0]
    """
    height = image.shape[-2]
    # Half a pixel: with `align_corners=False` coordinates are those of pixel centers. Double, as rows may be many.
    places = torch.arange(rows.start, rows.stop, device=image.device, dtype=torch.float64) + 0.5
    places = (places * (height / size[0]) - 0.5).clamp(min=0)
    upper = places.floor().long()
    # Only the share is rounded to the image's precision; positions of huge images need all digits.
    share = (places - upper).to(image.dtype)[:, None]
    # Rows first: the columns are then scaled as `interpolate` does for the whole image.
    mixed = torch.lerp(image[..., upper, :], image[..., (upper + 1).clamp(max=height - 1), :], share)
    return F.interpolate(mixed, size=(len(places), size[1]), mode="bilinear", align_corners=False)
