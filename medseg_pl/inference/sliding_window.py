"""Probabilities of an image of any size: whole where it fits, in windows where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.transforms.windows import Padding, centerd_padding, gaussian_weights, pad, padded_size, starts
from medseg_pl.inference.row_blocks import RowBlock, concat_rows
from medseg_pl.inference.tta import IDENTITY, DihedralTransform

Network = Callable[[Tensor], Tensor]
OnLogits = Callable[[Tensor, slice, slice], None]
ReadRows = Callable[[slice], Tensor]
"""Gives some rows `(B, C, rows, W)` of normalized images."""


class SlidingWindow:
    """Runs a network over images and blends the probabilities of overlapping windows.

    Args:
        labels: Turn logits into probabilities.
        window: `(height, width)` of a window; smaller images are padded to it, as in training.
        size_divisor: Sides that the network accepts divide by this.
        overlap: The share of a window that its neighbor covers again.
        max_pixels: Images up to this many pixels run whole, which is faster and sees more context.
    """

    def __init__(
        self,
        labels: LabelMap,
        window: tuple[int, int],
        size_divisor: int,
        overlap: float = 0.5,
        max_pixels: int = 1 << 20,
    ) -> None:
        if not 0 <= overlap < 1:
            raise SettingError(f"model.window_overlap must be at least 0 and below 1; got {overlap}.")
        self.labels = labels
        self.window = padded_size(window, size_divisor)
        self.size_divisor = size_divisor
        self.overlap = overlap
        self.max_pixels = max_pixels

    def __call__(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        fill: Float[Tensor, "b c 1 1"],
        on_logits: OnLogits | None = None,
        symmetries: Sequence[DihedralTransform] = (IDENTITY,),
    ) -> Float[Tensor, "b k h w"]:
        """The probabilities of a batch of images.

        Args:
            network: `(B, C, H, W)` to logits `(B, K, H, W)`.
            image: Normalized images of one size.
            fill: What lies around each image, where it has to be padded: what training patches are padded with.
            on_logits: Told the logits of every window, without what was padded, and which rows and columns of the
                image they cover: how the validation loss sees the plain network.
            symmetries: Each window is seen in all of them, the first being the identity, and the probabilities are
                averaged (test-time augmentation).
        """
        size = (image.shape[-2], image.shape[-1])
        return concat_rows(self.bands(network, size, lambda rows: image[..., rows, :], fill, on_logits, symmetries))

    def bands(
        self,
        network: Network,
        size: tuple[int, int],
        read: ReadRows,
        fill: Float[Tensor, "b c 1 1"],
        on_logits: OnLogits | None = None,
        symmetries: Sequence[DihedralTransform] = (IDENTITY,),
    ) -> Iterator[RowBlock]:
        """The same of images that are read a few rows at a time; no more than one row of windows is held.

        Args:
            network: As for `__call__`.
            size: `(height, width)` of the images.
            read: Gives the rows that are asked for.
            fill: As for `__call__`.
            on_logits: As for `__call__`.
            symmetries: As for `__call__`.
        """
        window, padding = self._plan(size)
        frame = _Frame(read, size, padding, fill)
        height, width = frame.height, frame.width
        heard = frame.tell(on_logits) if on_logits else None
        tops, lefts = (starts(side, own, self.overlap) for side, own in zip((height, width), window, strict=True))
        blend = _Blend(window, width)
        for top, following in zip(tops, [*tops[1:], height], strict=True):
            rows = slice(top, top + window[0])
            seen = self._seen(network, frame.strip(rows), rows, [(x, x + window[1]) for x in lefts], symmetries, heard)
            band = next(seen)[1] if len(tops) == len(lefts) == 1 else blend.add(seen, following - top)
            yield frame.without_padding(RowBlock(slice(top, following), band))

    def _plan(self, size: tuple[int, int]) -> tuple[tuple[int, int], Padding]:
        """What the network sees at a time, and the padding for it: the whole image where it fits, or a window."""
        whole = padded_size(size, self.size_divisor, at_least=self.window)
        if whole[0] * whole[1] <= self.max_pixels:
            return whole, centerd_padding(size, whole)
        return self.window, centerd_padding(size, padded_size(size, 1, at_least=self.window))

    def _seen(
        self,
        network: Network,
        strip: Float[Tensor, "b c r w"],
        rows: slice,
        windows: Sequence[tuple[int, int]],
        symmetries: Sequence[DihedralTransform],
        on_logits: OnLogits | None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """The columns of each window of a row, and its probabilities."""
        for columns in (slice(*window) for window in windows):
            part = strip[..., columns]
            logits = network(part).float()
            if on_logits is not None:
                on_logits(logits, rows, columns)
            yield columns, self._averaged(network, part, logits, symmetries[1:])

    def _averaged(
        self,
        network: Network,
        image: Float[Tensor, "b c h w"],
        logits: Float[Tensor, "b k h w"],
        symmetries: Sequence[DihedralTransform],
    ) -> Float[Tensor, "b k h w"]:
        """The mean of the probabilities that the logits stand for and of those of the image in each symmetry."""
        total = self.labels.activate(logits)
        for symmetry in symmetries:
            total = total + symmetry.undo(self.labels.activate(network(symmetry.apply(image)).float()))
        return total / (1 + len(symmetries)) if symmetries else total


class _Blend:
    """Adds up windows, one row of them after the other, each pixel trusted the more, the nearer it is to the middle."""

    def __init__(self, window: tuple[int, int], width: int) -> None:
        self.trust = gaussian_weights(window)
        self.width = width
        self._carried: tuple[Tensor, Tensor] | None = None

    def add(self, seen: Iterable[tuple[slice, Tensor]], ready: int) -> Float[Tensor, "b k r w"]:
        """Take the windows of the next row, and give its first rows, the `ready` ones that no later window reaches."""
        total: Tensor | None = None
        weight = torch.zeros(0)
        for columns, probabilities in seen:
            trust = self.trust.to(probabilities.device)
            if total is None:
                total, weight = self._begun(probabilities)
            total[..., columns] += probabilities * trust
            weight[:, columns] += trust
        assert total is not None, "a row has at least one window"
        self._carried = (total[..., ready:, :], weight[ready:])
        return total[..., :ready, :] / weight[:ready]

    def _begun(self, like: Float[Tensor, "b k r c"]) -> tuple[Tensor, Tensor]:
        """What the rows above have added to these already."""
        height = len(self.trust)
        total = like.new_zeros((*like.shape[:2], height, self.width))
        weight = like.new_zeros((height, self.width))
        if self._carried is not None:
            added, trusted = self._carried
            total[..., : len(trusted), :] = added
            weight[: len(trusted)] = trusted
        return total, weight


@dataclass(frozen=True)
class _Frame:
    """Images of one size in their padding, read a few rows at a time."""

    read: ReadRows
    size: tuple[int, int]
    padding: Padding
    fill: Tensor

    @property
    def height(self) -> int:
        return self.size[0] + self.padding.top + self.padding.bottom

    @property
    def width(self) -> int:
        return self.size[1] + self.padding.left + self.padding.right

    def strip(self, rows: slice) -> Float[Tensor, "b c r w"]:
        """Some rows, counted with the padding."""
        own, within = _inside(rows, self.padding.top, self.size[0])
        below = rows.stop - rows.start - within.stop
        return pad(self.read(own), Padding(within.start, below, self.padding.left, self.padding.right), self.fill)

    def without_padding(self, band: RowBlock) -> RowBlock:
        """The part of a band that is no padding."""
        own, within = _inside(band.rows, self.padding.top, self.size[0])
        columns = slice(self.padding.left, self.padding.left + self.size[1])
        return RowBlock(own, band.probabilities[..., within, columns])

    def tell(self, listener: OnLogits) -> OnLogits:
        """A listener for windows of the padded image that tells another one of the image's own part."""

        def heard(logits: Tensor, rows: slice, columns: slice) -> None:
            own_rows, rows_within = _inside(rows, self.padding.top, self.size[0])
            own_columns, columns_within = _inside(columns, self.padding.left, self.size[1])
            if own_rows.start < own_rows.stop and own_columns.start < own_columns.stop:
                listener(logits[..., rows_within, columns_within], own_rows, own_columns)

        return heard


def _inside(span: slice, before: int, length: int) -> tuple[slice, slice]:
    """Which part of an axis a span of its padded form covers: counted on the axis, and from the span's beginning.

    >>> _inside(slice(0, 4), before=1, length=2)
    (slice(0, 2, None), slice(1, 3, None))
    """
    first = min(max(span.start, before), before + length)
    last = max(min(span.stop, before + length), first)
    return slice(first - before, last - before), slice(first - span.start, last - span.start)
