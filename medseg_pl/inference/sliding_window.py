"""Probabilities of an image of any size: whole where it fits, in windows where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.functional.symmetry import IDENTITY, Symmetry
from medseg_pl.functional.windows import Padding, centred_padding, gaussian_weights, grid, pad, padded_size

Network = Callable[[Tensor], Tensor]
LogitsListener = Callable[[Tensor, slice, slice], None]


class SlidingWindow:
    """Runs a network over images and blends the probabilities of overlapping windows.

    Args:
        labels: Turn logits into probabilities.
        window: `(height, width)` of a window; smaller images are padded to it, as in training.
        multiple: Sides that the network accepts divide by this.
        overlap: The share of a window that its neighbour covers again.
        max_pixels: Images up to this many pixels run whole, which is faster and sees more context.
    """

    def __init__(
        self,
        labels: LabelMap,
        window: tuple[int, int],
        multiple: int,
        overlap: float = 0.5,
        max_pixels: int = 1 << 20,
    ) -> None:
        if not 0 <= overlap < 1:
            raise SettingError(f"model.overlap must be at least 0 and below 1; got {overlap}.")
        self.labels = labels
        self.window = padded_size(window, multiple)
        self.multiple = multiple
        self.overlap = overlap
        self.max_pixels = max_pixels

    def __call__(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        fill: Float[Tensor, "b c 1 1"],
        on_logits: LogitsListener | None = None,
        symmetries: Sequence[Symmetry] = (IDENTITY,),
    ) -> Float[Tensor, "b k h w"]:
        """The probabilities of a batch of images.

        Args:
            network: `(B, C, H, W)` to logits `(B, K, H, W)`.
            image: Normalised images of one size.
            fill: What lies around each image, where it has to be padded: what training patches are padded with.
            on_logits: Told the logits of every window, without what was padded, and which rows and columns of the
                image they cover: how the validation loss sees the plain network.
            symmetries: Each window is seen in all of them, the first being the identity, and the probabilities are
                averaged (test-time augmentation).
        """
        padding = self._padding((image.shape[-2], image.shape[-1]))
        framed = pad(image, padding, fill)
        height, width = framed.shape[-2:]
        if height * width <= self.max_pixels:
            windows = [(slice(0, height), slice(0, width))]
        else:
            windows = grid((height, width), self.window, self.overlap)
        heard = _without_padding(on_logits, padding, (image.shape[-2], image.shape[-1])) if on_logits else None
        return padding.undo(self._blend(network, framed, windows, symmetries, heard))

    def _padding(self, size: tuple[int, int]) -> Padding:
        """So that the network accepts the image, and it is no smaller than a window."""
        return centred_padding(size, padded_size(size, self.multiple, at_least=self.window))

    def _blend(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        windows: list[tuple[slice, slice]],
        symmetries: Sequence[Symmetry],
        on_logits: LogitsListener | None,
    ) -> Float[Tensor, "b k h w"]:
        total: Tensor | None = None
        weight = image.new_zeros(image.shape[-2:], dtype=torch.float32)
        for rows, columns in windows:
            part = image[..., rows, columns]
            logits = network(part).float()
            if on_logits is not None:
                on_logits(logits, rows, columns)
            probabilities = self._averaged(network, part, logits, symmetries[1:])
            if len(windows) == 1:
                return probabilities
            if total is None:
                total = probabilities.new_zeros((*probabilities.shape[:2], *image.shape[-2:]))
            trust = gaussian_weights(self.window).to(probabilities.device)
            total[..., rows, columns] += probabilities * trust
            weight[rows, columns] += trust
        assert total is not None, "a grid has at least one window"
        return total / weight

    def _averaged(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        logits: Float[Tensor, "b k h w"],
        symmetries: Sequence[Symmetry],
    ) -> Float[Tensor, "b k h w"]:
        """The mean of the probabilities that the logits stand for and of those of the image in each symmetry."""
        total = self.labels.activate(logits)
        for symmetry in symmetries:
            total = total + symmetry.undo(self.labels.activate(network(symmetry.apply(image)).float()))
        return total / (1 + len(symmetries)) if symmetries else total


def _without_padding(listener: LogitsListener, padding: Padding, size: tuple[int, int]) -> LogitsListener:
    """A listener for windows of the padded image that tells `listener` of the image's own part."""

    def heard(logits: Tensor, rows: slice, columns: slice) -> None:
        top, bottom = max(rows.start, padding.top), min(rows.stop, padding.top + size[0])
        left, right = max(columns.start, padding.left), min(columns.stop, padding.left + size[1])
        if top < bottom and left < right:
            own = logits[..., top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
            listener(
                own,
                slice(top - padding.top, bottom - padding.top),
                slice(left - padding.left, right - padding.left),
            )

    return heard
