"""Normalization of raw values, on the device: a part of the model, so that it travels with the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.intensity import HIGH, LOW, MEAN, STD
from medseg_pl.core.validation import Recorded


class Normalization(Recorded, nn.Module):
    """Base of all normalizations: raw values to values that a network takes."""

    @abstractmethod
    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch.

        Args:
            image: Raw values of any type.
            statistics: `(B, C, 4)` of each channel over its whole case, see `medseg_pl.core.intensity`.
        """


class ZScore(Normalization):
    """Mean 0 and standard deviation 1 over each case: for MRI, whose units mean nothing across scans.

    Both are those of the values moved to the case's 0.5th and 99.5th percentile, see `compute_channel_statistics`.

    Args:
        clip: Whether values beyond the percentiles are moved there.
    """

    def __init__(self, clip: bool = True) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`."""
        columns = statistics[..., None, None]
        values = image.float()
        # Implants and markers in MRI are far brighter than any tissue.
        if self.clip:
            values = values.clamp(columns[:, :, LOW], columns[:, :, HIGH])
        return (values - columns[:, :, MEAN]) / columns[:, :, STD]


class IntensityWindow(Normalization):
    """A fixed range of values to -1 … 1: for CT, whose units are the same everywhere.

    Args:
        low: The value that becomes -1; everything below does too.
        high: The value that becomes 1; everything above does too.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise SettingError(f"An intensity window needs low < high; got {low} and {high}.")
        self.low = low
        self.high = high

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`; the statistics are not used."""
        return (image.float().clamp(self.low, self.high) - self.low) * (2 / (self.high - self.low)) - 1


class MeanStd(Normalization):
    """The same mean and standard deviation for every image: for photographs and pretrained encoders.

    Args:
        mean: Mean of each channel, as a share of `maximum`; the default is that of ImageNet.
        std: Standard deviation of each channel, likewise.
        maximum: The largest value an image can hold, 255 for 8-bit files and 65535 for 16-bit ones.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        maximum: float = 255.0,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise SettingError(f"mean and std need one value for each channel; got {len(mean)} and {len(std)}.")
        if not (min(std) > 0 and maximum > 0):
            raise SettingError(f"std and maximum must be greater than 0; got {list(std)} and {maximum}.")
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean) * maximum, persistent=False)
        self.register_buffer("std", torch.tensor(std) * maximum, persistent=False)

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`; the statistics are not used."""
        # Context slices enter as further channels: the same mean and deviation for each of them.
        slices, rest = divmod(image.shape[1], len(self.mean))
        if rest:
            raise SettingError(
                f"MeanStd has {len(self.mean)} channel(s), but the images have {image.shape[1]}. Give "
                "model.normalization one mean and one std for each of model.channels."
            )
        mean, std = (buffer.repeat(slices)[None, :, None, None] for buffer in (self.mean, self.std))
        return (image.float() - mean) / std


class PerChannel(Normalization):
    """Normalize each channel its own way: a window for the CT, z-scores for the PET beside it.

    Args:
        channels: One normalization for each of `model.channels`, in their order.
    """

    def __init__(self, channels: Sequence[Normalization]) -> None:
        super().__init__()
        if not channels:
            raise SettingError("PerChannel needs a normalization for each of model.channels; got none.")
        self.channels = nn.ModuleList(channels)

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`."""
        count = len(self.channels)
        if image.shape[1] % count:
            raise SettingError(
                f"PerChannel has {count} normalization(s), but the images have {image.shape[1]} channel(s). Give "
                "model.normalization.channels one for each of model.channels."
            )
        # The channels of each slice follow one another, so those of one kind are `count` apart.
        normalized = [how(image[:, i::count], statistics[:, i::count]) for i, how in enumerate(self.channels)]
        return torch.stack(normalized, dim=2).flatten(1, 2)
