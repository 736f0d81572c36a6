"""Sliding window: class probabilities of images of any size, in blended windows or whole, averaged over flips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import TtaMode
from medseg_pl.data.transforms.grids import Padding, center_padding, compute_padded_size, list_window_starts
from medseg_pl.data.transforms.resize import gaussian_weights, pad

Network = Callable[[Tensor], Tensor]
"""Normalized images `(B, C, H, W)` to logits `(B, K, H, W)`."""

OnLogits = Callable[[Tensor, slice, slice], None]
"""Called with the logits of a window, without its padding, and the rows and columns of the image that it covers."""

ReadRows = Callable[[slice], Tensor]
"""Rows of a stack of images, `(B, C, rows, W)`."""


class DihedralTransform(NamedTuple):
    """An optional flip of left and right, then counterclockwise quarter turns.

    >>> image = torch.tensor([[[[1, 2, 3]]]])
    >>> DihedralTransform(mirrored=True, turns=1).apply(image).tolist()
    [[[[1], [2], [3]]]]
    >>> DihedralTransform(mirrored=True, turns=1).undo(torch.tensor([[[[1], [2], [3]]]])).tolist()
    [[[[1, 2, 3]]]]
    """

    mirrored: bool = False
    turns: int = 0

    def apply(self, image: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b c H W"]:
        """Flip and turn images."""
        flipped = image.flip(-1) if self.mirrored else image
        return torch.rot90(flipped, self.turns, (-2, -1)) if self.turns else flipped

    def undo(self, image: Shaped[Tensor, "b c H W"]) -> Shaped[Tensor, "b c h w"]:
        """Bring images back to how they were before `apply`."""
        # In reverse order: turns and flips do not commute.
        turned = torch.rot90(image, -self.turns, (-2, -1)) if self.turns else image
        return turned.flip(-1) if self.mirrored else turned


IDENTITY = DihedralTransform()

# A vertical flip is a horizontal one and half a turn, so the eight need only mirrors and turns.
_HORIZONTAL, _VERTICAL, _HALF_TURN = (
    DihedralTransform(mirrored=True),
    DihedralTransform(mirrored=True, turns=2),
    DihedralTransform(turns=2),
)


def get_transforms(mode: TtaMode) -> tuple[DihedralTransform, ...]:
    """Return the transforms of a mode, the identity first.

    >>> [len(get_transforms(mode)) for mode in get_args(TtaMode)]
    [1, 2, 2, 4, 8]
    """
    # The identity comes first: its logits are those of the plain network, which a loss may see.
    transforms: dict[TtaMode, tuple[DihedralTransform, ...]] = {
        "none": (IDENTITY,),
        "horizontal": (IDENTITY, _HORIZONTAL),
        "vertical": (IDENTITY, _VERTICAL),
        "flips": (IDENTITY, _HORIZONTAL, _VERTICAL, _HALF_TURN),
        "all": tuple(DihedralTransform(mirrored, turns) for mirrored in (False, True) for turns in range(4)),
    }
    assert set(transforms) == set(get_args(TtaMode))
    return transforms[mode]


class RowBlock(NamedTuple):
    """Whole rows of a stack of images.

    Blocks come from top to bottom, so that no image is too large.

    Attributes:
        rows: Rows of the image.
        probabilities: `(B, K, rows, W)`.
    """

    rows: slice
    probabilities: Float[Tensor, "b k r w"]


def concat_rows(blocks: Iterable[RowBlock]) -> Float[Tensor, "b k h w"]:
    """Join the row blocks of an image."""
    parts = [block.probabilities for block in blocks]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


class SlidingWindow:
    """Run a network over images and blend the probabilities of overlapping windows.

    Args:
        labels: Turn logits into probabilities.
        window: `(height, width)` of a window; smaller images are padded to it, as in training.
        size_divisor: Sides that the network accepts divide by this.
        overlap: The share of a window that its neighbor covers again.
        max_pixels: Images up to this many pixels run whole, which is faster and sees more context.
        transforms: Flips and turns whose probabilities are averaged in each window, the identity first.

    Raises:
        SettingError: `overlap` is negative, or not below 1.
    """

    def __init__(
        self,
        labels: LabelMap,
        window: tuple[int, int],
        size_divisor: int,
        overlap: float = 0.5,
        max_pixels: int = 1 << 20,
        transforms: Sequence[DihedralTransform] = (IDENTITY,),
    ) -> None:
        if not 0 <= overlap < 1:
            raise SettingError(f"model.window_overlap must be at least 0 and below 1; got {overlap}.")
        self.labels = labels
        self.window = compute_padded_size(window, size_divisor)
        self.size_divisor = size_divisor
        self.overlap = overlap
        self.max_pixels = max_pixels
        self.transforms = transforms

    def __call__(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        fill: Float[Tensor, "b c 1 1"],
        on_logits: OnLogits | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Compute the probabilities of normalized images of one size, see `iterate_blocks`."""
        size = (image.shape[-2], image.shape[-1])
        return concat_rows(self.iterate_blocks(network, size, lambda rows: image[..., rows, :], fill, on_logits))

    def iterate_blocks(
        self,
        network: Network,
        size: tuple[int, int],
        read: ReadRows,
        fill: Float[Tensor, "b c 1 1"],
        on_logits: OnLogits | None = None,
    ) -> Iterator[RowBlock]:
        """Compute probabilities block by block.

        It holds no more than one row of windows.

        Args:
            network: Normalized images to logits.
            size: `(height, width)` of the images.
            read: Normalized rows.
            fill: The normalized value around each image, as in training patches.
            on_logits: Sees the logits of the untransformed windows, for a loss.
        """
        window, padding = self._choose_window(size)
        image = _PaddedImage(read, size, padding, fill)
        tops, lefts = (
            list_window_starts(length, side, self.overlap)
            for length, side in zip(image.padded_size, window, strict=True)
        )
        accumulator = _WindowAccumulator(window, image.padded_size[1])
        columns = [slice(left, left + window[1]) for left in lefts]
        for top, next_top in zip(tops, [*tops[1:], image.padded_size[0]], strict=True):
            rows = slice(top, top + window[0])
            windows = self._predict_windows(network, image.read_padded(rows), rows, columns, image.crop(on_logits))
            # A single window needs no blending, and no copy.
            is_whole = len(tops) == len(columns) == 1
            block = next(windows)[1] if is_whole else accumulator.add_row(windows, next_top - top)
            yield image.crop_padding(RowBlock(slice(top, next_top), block))

    def _choose_window(self, size: tuple[int, int]) -> tuple[tuple[int, int], Padding]:
        """Choose the window, the whole image if it fits, and its padding."""
        whole = compute_padded_size(size, self.size_divisor, at_least=self.window)
        # Whole, every pixel sees its context, and nothing is computed twice.
        if whole[0] * whole[1] <= self.max_pixels:
            return whole, center_padding(size, whole)
        # Windows divide as the network asks; the image need only be as large as one.
        return self.window, center_padding(size, compute_padded_size(size, 1, at_least=self.window))

    def _predict_windows(
        self,
        network: Network,
        strip: Float[Tensor, "b c r w"],
        rows: slice,
        columns: Sequence[slice],
        on_logits: OnLogits,
    ) -> Iterator[tuple[slice, Float[Tensor, "b k r _"]]]:
        """Compute the probabilities of a row's windows, averaged over all transforms."""
        for span in columns:
            image = strip[..., span]
            # In 32 bits under autocast, too: sums of weighted windows would lose digits in half precision.
            logits = network(image).float()
            on_logits(logits, rows, span)
            # Probabilities and not logits are averaged: logits would weigh the surest view most.
            total = self.labels.activate(logits)
            for transform in self.transforms[1:]:
                total = total + transform.undo(self.labels.activate(network(transform.apply(image)).float()))
            yield span, total / len(self.transforms) if len(self.transforms) > 1 else total


class _WindowAccumulator:
    """Sum windows row by row, with more weight towards their middle."""

    def __init__(self, window: tuple[int, int], width: int) -> None:
        self.weights = gaussian_weights(window)
        self.width = width
        self._carried: tuple[Tensor, Tensor] | None = None

    def add_row(self, windows: Iterable[tuple[slice, Tensor]], ready: int) -> Float[Tensor, "b k r w"]:
        """Add the windows of the next row.

        Returns:
            Its first `ready` rows, which no later window reaches.
        """
        total: Tensor | None = None
        weight = torch.zeros(0)
        for columns, probabilities in windows:
            weights = self.weights.to(probabilities.device)
            if total is None:
                total, weight = self._start_row(probabilities)
            total[..., columns] += probabilities * weights
            weight[:, columns] += weights
        assert total is not None, "a row has at least one window"
        # The next row of windows reaches these rows as well.
        self._carried = (total[..., ready:, :], weight[ready:])
        # No weight is zero, see `gaussian_weights`.
        return total[..., :ready, :] / weight[:ready]

    def _start_row(self, like: Float[Tensor, "b k r c"]) -> tuple[Tensor, Tensor]:
        """Start sums and weights with those reaching from the row above."""
        height = len(self.weights)
        total = like.new_zeros((*like.shape[:2], height, self.width))
        weight = like.new_zeros((height, self.width))
        if self._carried is not None:
            above, above_weight = self._carried
            total[..., : len(above_weight), :] = above
            weight[: len(above_weight)] = above_weight
        return total, weight


@dataclass(frozen=True)
class _PaddedImage:
    """Images of one size with their padding, read by rows."""

    read: ReadRows
    size: tuple[int, int]
    padding: Padding
    fill: Tensor

    @property
    def padded_size(self) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        return self.size[0] + top + bottom, self.size[1] + left + right

    def read_padded(self, rows: slice) -> Float[Tensor, "b c r w"]:
        """Read rows, counted with the padding."""
        inner, within = _intersect(rows, self.padding.top, self.size[0])
        # Only the first and the last strip of an image have padding above or below.
        below = rows.stop - rows.start - within.stop
        return pad(self.read(inner), Padding(within.start, below, self.padding.left, self.padding.right), self.fill)

    def crop_padding(self, block: RowBlock) -> RowBlock:
        """Cut the padding off a block."""
        inner, within = _intersect(block.rows, self.padding.top, self.size[0])
        columns = slice(self.padding.left, self.padding.left + self.size[1])
        return RowBlock(inner, block.probabilities[..., within, columns])

    def crop(self, on_logits: OnLogits | None) -> OnLogits:
        """Wrap a callback so that it sees logits without the padding."""

        def call(logits: Tensor, rows: slice, columns: slice) -> None:
            image_rows, window_rows = _intersect(rows, self.padding.top, self.size[0])
            image_columns, window_columns = _intersect(columns, self.padding.left, self.size[1])
            # A window may lie in the padding alone.
            if on_logits and image_rows.start < image_rows.stop and image_columns.start < image_columns.stop:
                on_logits(logits[..., window_rows, window_columns], image_rows, image_columns)

        return call


def _intersect(span: slice, before: int, length: int) -> tuple[slice, slice]:
    """Find which part of an axis a span of its padding covers.

    It is given on the axis, and within the span.

    >>> _intersect(slice(0, 4), before=1, length=2)
    (slice(0, 2, None), slice(1, 3, None))
    """
    first = min(max(span.start, before), before + length)
    last = max(min(span.stop, before + length), first)
    return slice(first - before, last - before), slice(first - span.start, last - span.start)
