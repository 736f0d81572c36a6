"""Sizes of images and patches: windows, padding, resizing, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import ResizeMode

SIGMA = 0.125
"""Of the weights of a window, as a share of its side."""


class Padding(NamedTuple):
    """How many rows and columns were added on each side."""

    top: int
    bottom: int
    left: int
    right: int

    def undo(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        """Cut away what was added."""
        height, width = image.shape[-2:]
        return image[..., self.top : height - self.bottom, self.left : width - self.right]


def center_padding(size: tuple[int, int], padded: tuple[int, int]) -> Padding:
    """Compute the padding from `size` to `padded`, half on each side.

    The odd row or column comes at the end.

    >>> center_padding((5, 8), (8, 8))
    Padding(top=1, bottom=2, left=0, right=0)
    """
    rows, columns = (max(0, goal - length) for length, goal in zip(size, padded, strict=True))
    return Padding(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


def compute_padded_size(size: tuple[int, int], multiple: int, at_least: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Compute the smallest size divisible by `multiple` that holds both.

    >>> compute_padded_size((40, 59), multiple=16, at_least=(64, 32))
    (64, 64)
    """
    height, width = (
        -(-max(length, least) // multiple) * multiple for length, least in zip(size, at_least, strict=True)
    )
    return height, width


def pad(image: Float[Tensor, "b c h w"], padding: Padding, fill: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c H W"]:
    """Add a border that holds the fill of each image and channel."""
    if not any(padding):
        return image
    height, width = image.shape[-2:]
    size = (height + padding.top + padding.bottom, width + padding.left + padding.right)
    frame = fill.expand(*image.shape[:2], *size).clone(memory_format=torch.contiguous_format)
    frame[..., padding.top : padding.top + height, padding.left : padding.left + width] = image
    return frame


def list_window_starts(length: int, window: int, overlap: float) -> list[int]:
    """List where windows begin along one axis, the last one flush.

    The step is `window * (1 - overlap)`, as in MONAI's sliding window.

    >>> list_window_starts(length=10, window=4, overlap=0.5)
    [0, 2, 4, 6]
    """
    if window >= length:
        return [0]
    # Truncated as in MONAI, so that windows are the same ones.
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(index * step, length - window) for index in range(count)]


@lru_cache(maxsize=8)
def gaussian_weights(window: tuple[int, int], sigma_scale: float = SIGMA) -> Float[Tensor, "h w"]:
    """Compute weights that trust the middle of a window most.

    They are never zero, so that every pixel has a value.

    References:
        Isensee et al., "nnU-Net", Nature Methods 18, 2021: sigma is one eighth of the window.
    """
    axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in window]
    y, x = (torch.exp(-0.5 * (axis / (side * sigma_scale)) ** 2) for axis, side in zip(axes, window, strict=True))
    weights = y[:, None] * x[None, :]
    return weights.clamp(min=float(weights[weights > 0].min()), max=None).clamp(min=1e-3)


@dataclass(frozen=True)
class Resize:
    """How pixels are brought to the network.

    Args:
        mode: `none` keeps the pixels as they are: training sees crops of `size`, evaluation the whole image.
            `fit` scales the whole image into `size`, its proportions kept, the rest padded.
        size: `(height, width)` in pixels.
        spacing_mm: With `none`, bring every slice to these distances `(y, x)` between pixels first.
        scale: By how much `(height, width)` grow; `adapt_to` finds it for a case.

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
        if self.mode == "none":
            height, width = (max(1, round(length * grow)) for length, grow in zip(native, self.scale, strict=True))
            return height, width
        # One scale for both sides keeps proportions.
        scale = min(goal / length for goal, length in zip(self.size, native, strict=True))
        height, width = (
            min(goal, max(1, round(length * scale))) for goal, length in zip(self.size, native, strict=True)
        )
        return height, width

    def compute_padding(self, native: tuple[int, int]) -> Padding:
        """Compute what is added around the scaled image."""
        return center_padding(self.compute_scaled_size(native), self.compute_fitted_size(native))

    def apply(self, image: Shaped[np.ndarray, "c h w"], fill: Shaped[np.ndarray, " c"]) -> Shaped[np.ndarray, "c H W"]:
        """Fit an image; `fill` is the padding's value for each channel."""
        scaled = resize_image(image, self.compute_scaled_size(image.shape[1:]))
        return pad_constant(scaled, self.compute_padding(image.shape[1:]), fill)

    def apply_mask(self, mask: Shaped[np.ndarray, "m h w"]) -> Shaped[np.ndarray, "m H W"]:
        """Fit a mask without new values; the padding is background."""
        scaled = resize_mask(mask, self.compute_scaled_size(mask.shape[1:]))
        return pad_constant(scaled, self.compute_padding(mask.shape[1:]), np.zeros(len(mask), mask.dtype))

    def undo(self, probabilities: Float[Tensor, "b k h w"], native: tuple[int, int]) -> Float[Tensor, "b k H W"]:
        """Bring probabilities from the fitted to the native grid."""
        if probabilities.shape[2:] == native:
            return probabilities
        inner = self.compute_padding(native).undo(probabilities)
        return F.interpolate(inner, size=native, mode="bilinear", align_corners=False)

    def undo_rows(
        self, probabilities: Float[Tensor, "b k h w"], native: tuple[int, int], rows: slice
    ) -> Float[Tensor, "b k r W"]:
        """Compute some rows of what `undo` gives, for huge images."""
        if rows == slice(0, native[0]):
            return self.undo(probabilities, native)
        return scale_rows(self.compute_padding(native).undo(probabilities), native, rows)


def scale_rows(image: Float[Tensor, "b k h w"], size: tuple[int, int], rows: slice) -> Float[Tensor, "b k r W"]:
    """Compute some rows of an image that is scaled bilinearly.

    >>> scale_rows(torch.tensor([[[[0.0], [4.0]]]]), (4, 1), slice(1, 3)).flatten().tolist()
    [1.0, 3.0]
    """
    height = image.shape[-2]
    places = torch.arange(rows.start, rows.stop, device=image.device, dtype=torch.float64) + 0.5
    places = (places * (height / size[0]) - 0.5).clamp(min=0)
    upper = places.floor().long()
    share = (places - upper).to(image.dtype)[:, None]
    # Rows first: the columns are then scaled as `interpolate` does for the whole image.
    mixed = torch.lerp(image[..., upper, :], image[..., (upper + 1).clamp(max=height - 1), :], share)
    return F.interpolate(mixed, size=(len(places), size[1]), mode="bilinear", align_corners=False)


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale `(C, H, W)`; by area when shrinking, against aliasing."""
    height, width = size
    if image.shape[1:] == size:
        return image
    method = cv2.INTER_AREA if image.shape[1] * image.shape[2] > height * width else cv2.INTER_LINEAR
    # Channel by channel: OpenCV takes four at most for some types.
    return np.stack([cv2.resize(channel, (width, height), interpolation=method) for channel in image])


def resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale `(M, H, W)`; every value is the nearest pixel's."""
    height, width = size
    if mask.shape[1:] == size:
        return mask
    # Plain INTER_NEAREST takes the corner of each cell: it shifts a mask against its image by half a cell.
    nearest = cv2.INTER_NEAREST_EXACT
    return np.stack([cv2.resize(plane, (width, height), interpolation=nearest) for plane in mask])


def pad_constant(image: NDArray[Any], padding: Padding, fill: NDArray[Any]) -> NDArray[Any]:
    """Put `(C, H, W)` into a larger frame that holds `fill[c]`."""
    if not any(padding):
        return image
    channels, height, width = image.shape
    frame = np.empty(
        (channels, height + padding.top + padding.bottom, width + padding.left + padding.right), image.dtype
    )
    frame[...] = fill[:, None, None].astype(image.dtype)
    frame[:, padding.top : padding.top + height, padding.left : padding.left + width] = image
    return frame
