"""How an image of any size meets a network that wants one size, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, get_args

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
from medseg_pl.data.transforms.windows import Padding, center_padding


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
