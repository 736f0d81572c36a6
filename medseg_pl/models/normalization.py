"""Normalization of raw values, on the device: a part of the model, so that it travels with the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError, count_noun
from medseg_pl.core.intensity import HIGH, LOW, MEAN, STD
from medseg_pl.core.validation import Recorded


class InputStatistics(NamedTuple):
    """Mean and standard deviation of each channel, relative to the largest value."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def repeat(self, channels: int) -> InputStatistics:
        """Give each channel of an image its values.

        Where the numbers of channels differ, all have the average.

        >>> InputStatistics((0.25, 0.5, 0.75), (0.5, 0.5, 0.5)).repeat(1)
        InputStatistics(mean=(0.5,), std=(0.5,))
        """
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in self)
        return InputStatistics((mean,) * channels, (std,) * channels)


IMAGENET = InputStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalization(Recorded, nn.Module):
    """Base of all normalizations: raw values to values that a network takes."""

    @abstractmethod
    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch.

        Args:
            image: Raw values of any type.
            statistics: `(B, C, 4)` of each channel over its whole case, see `medseg_pl.core.intensity`.
        """

    def follow_weights(self, statistics: InputStatistics, channels: int) -> str:
        """Adopt the statistics of the images that the weights were trained on.

        Values around 0 with a deviation near 1 are what weights of any mean and deviation were trained on, so most
        normalizations stay as they are.

        Args:
            statistics: Of those images.
            channels: Channels of an image.

        Returns:
            A sentence for the user.
        """
        return f"Input normalization stays {type(self).__name__}."


class ZScore(Normalization):
    """Mean 0 and standard deviation 1 over each case, as for MRI.

    The units of MRI mean nothing across scans. Mean and deviation are those of the values clipped to the case's 0.5th
    and 99.5th percentile, see `compute_channel_statistics`.

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
    """A fixed range of values, scaled to -1 … 1 for CT.

    The units of CT are the same everywhere.

    Args:
        low: The value that becomes -1; everything below does too.
        high: The value that becomes 1; everything above does too.

    Raises:
        SettingError: `low` is not below `high`.

    >>> IntensityWindow(-100, 100)(torch.tensor([[[[0, 50, 500]]]]), torch.zeros(1, 1, 4)).tolist()
    [[[[0.0, 0.5, 1.0]]]]
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise SettingError(f"An intensity window needs low < high; got {low} and {high}.")
        self.low = low
        self.high = high

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`."""
        return (image.float().clamp(self.low, self.high) - self.low) * (2 / (self.high - self.low)) - 1


class MeanStd(Normalization):
    """The same mean and standard deviation for every image.

    It suits photographs and pretrained encoders. Without values of its own it has those of the images that the weights
    were trained on, or else ImageNet's; they are stored with the weights. An image that is not of three channels has
    their average in each.

    Args:
        mean: Mean of each channel, as a share of `maximum`.
        std: Standard deviation of each channel, likewise.
        maximum: The largest value an image can hold, 255 for 8-bit files and 65535 for 16-bit ones.

    Raises:
        SettingError: `mean` and `std` differ in length, or a deviation or `maximum` is not above 0.
    """

    def __init__(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, maximum: float = 255.0
    ) -> None:
        super().__init__()
        self.is_given = mean is not None or std is not None
        mean, std = (mean or (), std or ()) if self.is_given else IMAGENET
        if len(mean) != len(std) or not mean:
            raise SettingError(f"mean and std need one value for each channel; got {len(mean)} and {len(std)}.")
        if not (min(std) > 0 and maximum > 0):
            raise SettingError(f"std and maximum must be greater than 0; got {list(std)} and {maximum}.")
        self.maximum = maximum
        self.mean: Tensor
        self.std: Tensor
        # Settings bring back values that are given; those of the weights are known to the checkpoint alone.
        self.register_buffer("mean", torch.tensor(mean) * maximum, persistent=not self.is_given)
        self.register_buffer("std", torch.tensor(std) * maximum, persistent=not self.is_given)

    def follow_weights(self, statistics: InputStatistics, channels: int) -> str:
        """Adopt the weights' statistics unless mean and deviation are given.

        Returns:
            A sentence for the user.
        """
        expected = statistics.repeat(channels)
        mean, std = (torch.tensor(values, device=self.mean.device) * self.maximum for values in expected)
        shown = f"mean {_format(expected.mean)} and std {_format(expected.std)}"
        if not self.is_given:
            self.mean, self.std = mean, std
            return f"Input normalization follows the weights: {shown} of {self.maximum:g}."
        if mean.shape == self.mean.shape and torch.allclose(mean, self.mean) and torch.allclose(std, self.std):
            return f"Input normalization is that of the weights: {shown} of {self.maximum:g}."
        return f"Input normalization stays as it is given; the weights were trained with {shown}."

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load stored values, unless mean and deviation are given.

        Older checkpoints store none.
        """
        for name in ("mean", "std"):
            if self.is_given:
                state_dict.pop(prefix + name, None)
            elif isinstance(stored := state_dict.setdefault(prefix + name, getattr(self, name)), Tensor):
                # Where the images have other channels than ImageNet's, there are more values, or fewer.
                setattr(self, name, torch.empty_like(stored, device=self.mean.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`.

        Raises:
            SettingError: The images have another number of channels.
        """
        # Context slices enter as further channels: the same mean and deviation for each of them.
        slices, rest = divmod(image.shape[1], len(self.mean))
        if rest:
            raise SettingError(
                f"MeanStd has {count_noun(len(self.mean), 'channel')}, but the images have {image.shape[1]}. Give "
                "model.normalization one mean and one std for each of model.channels."
            )
        mean, std = (buffer.repeat(slices)[None, :, None, None] for buffer in (self.mean, self.std))
        return (image.float() - mean) / std


class PerChannel(Normalization):
    """A normalization of its own for each channel.

    It can be a window for the CT, and z-scores for the PET beside it.

    Args:
        channels: One normalization for each of `model.channels`, in their order.

    Raises:
        SettingError: There is no normalization.
    """

    def __init__(self, channels: Sequence[Normalization]) -> None:
        super().__init__()
        if not channels:
            raise SettingError("PerChannel needs a normalization for each of model.channels; got none.")
        self.channels = nn.ModuleList(channels)

    def follow_weights(self, statistics: InputStatistics, channels: int) -> str:
        """Have the normalization of each channel follow the weights, see `Normalization`."""
        parts = [how for how in self.channels if isinstance(how, Normalization)]
        return " ".join(dict.fromkeys(how.follow_weights(statistics, 1) for how in parts))

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """Normalize a batch, see `Normalization`.

        Raises:
            SettingError: The images have another number of channels.
        """
        count = len(self.channels)
        if image.shape[1] % count:
            raise SettingError(
                f"PerChannel has {count_noun(count, 'normalization')}, but the images have "
                f"{count_noun(image.shape[1], 'channel')}. Give "
                "model.normalization.channels one for each of model.channels."
            )
        # The channels of each slice follow one another, so those of one kind are `count` apart.
        normalized = [how(image[:, i::count], statistics[:, i::count]) for i, how in enumerate(self.channels)]
        return torch.stack(normalized, dim=2).flatten(1, 2)


def _format(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
