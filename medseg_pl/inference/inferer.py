"""Inferer: class probabilities of slices on their native grid, from one model or the mean of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import LOW
from medseg_pl.core.types import EvaluationBatch, TtaMode
from medseg_pl.data.datasets import as_network_type
from medseg_pl.data.transforms.grids import stack_context
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.inference.sliding_window import OnLogits, ReadRows, RowBlock, SlidingWindow, concat_rows, get_transforms
from medseg_pl.models.segmentation_model import SegmentationModel

_BLOCK_VALUES = 1 << 25
"""Probabilities that are resized at a time: 128 MiB."""


class _Member(NamedTuple):
    """A model with its way from slices to resized probabilities."""

    model: SegmentationModel
    resize: Resize
    window: SlidingWindow


class Inferer:
    """Compute class probabilities of slices, averaged over flips and models.

    Args:
        models: In evaluation mode, on one device, of the same labels and channels.
        tta: Flips to average over, in place of each model's own.
        whole_image_max_pixels: Images with more pixels run in windows, in place of each model's own limit.
    """

    def __init__(
        self,
        models: Sequence[SegmentationModel],
        tta: TtaMode | None = None,
        whole_image_max_pixels: int | None = None,
    ) -> None:
        self.members = [_make_member(model, tta, whole_image_max_pixels) for model in models]

    def infer_batch(self, batch: EvaluationBatch, on_logits: OnLogits | None = None) -> list[Iterator[RowBlock]]:
        """Compute the probabilities of resized slices with a single model.

        Args:
            batch: Raw slices on the resized grid.
            on_logits: Sees the logits of the plain network on that grid, for a loss.

        Returns:
            For each slice its rows on the native grid, `(1, K, rows, W)`.
        """
        (member,) = self.members  # the loader has resized the slices for this one
        size = (batch.image.shape[-2], batch.image.shape[-1])
        blocks = _infer_member(member, lambda rows: batch.image[..., rows, :], size, batch.statistics, on_logits)
        return self._bring_to_native([blocks], [slice_.geometry for slice_ in batch.slices])

    def infer_slices(
        self,
        image: Shaped[np.ndarray, "c d h w"],
        statistics: Float32[np.ndarray, "c 4"],
        geometry: Geometry,
        indices: range,
    ) -> list[Iterator[RowBlock]]:
        """Compute the mean probabilities of all models for slices of a volume.

        Args:
            image: The whole volume, raw values.
            statistics: Of its channels, see `compute_channel_statistics`.
            geometry: Its grid.
            indices: The slices.

        Returns:
            For each slice its rows on the native grid, `(1, K, rows, W)`.
        """
        blocks = []
        for member in self.members:
            resize = member.resize.adapt_to(geometry)
            # As `stack_context` orders channels: the neighbor outside, the channel inside.
            repeated = np.tile(statistics, (2 * member.model.context_slices + 1, 1))
            resized = [
                resize.apply(stack_context(image, index, member.model.context_slices), repeated[:, LOW])
                for index in indices
            ]
            read = _make_reader(resized, repeated)
            stacked = torch.from_numpy(np.tile(repeated, (len(resized), 1, 1)))
            blocks.append(_infer_member(member, read, resize.compute_fitted_size(geometry.shape[1:]), stacked))
        return self._bring_to_native(blocks, [geometry] * len(indices))

    def count_slices_at_once(self, geometry: Geometry, batch_size: int) -> int:
        """Return how many slices fit into a batch.

        They are fewer if the network cannot see such slices whole.

        Args:
            geometry: The native grid of the slices.
            batch_size: Slices in a batch if none is larger than the network sees whole.
        """
        sizes = [member.resize.adapt_to(geometry).compute_fitted_size(geometry.shape[1:]) for member in self.members]
        # A slice that runs in windows costs as much memory as several whole ones.
        shares = [h * w / max(1, member.window.max_pixels) for (h, w), member in zip(sizes, self.members, strict=True)]
        return max(1, int(batch_size / max(1, *shares)))

    def _bring_to_native(
        self, member_blocks: Sequence[Iterator[RowBlock]], geometries: Sequence[Geometry]
    ) -> list[Iterator[RowBlock]]:
        """Resize each member's slices to their native grid, and average members."""
        # Slice by slice: in an evaluation the slices of a batch may differ in their native size.
        slices = zip(*(split_slices(blocks, len(geometries)) for blocks in member_blocks), strict=True)
        return [
            average_members(
                [
                    resize_to_native(blocks, member.resize.adapt_to(geometry), geometry.shape[1:])
                    for member, blocks in zip(self.members, of_members, strict=True)
                ],
                geometry.shape[1],
            )
            for of_members, geometry in zip(slices, geometries, strict=True)
        ]


def _make_member(model: SegmentationModel, tta: TtaMode | None, whole_image_max_pixels: int | None) -> _Member:
    window = SlidingWindow(
        model.labels,
        model.input_size,
        model.size_divisor,
        model.window_overlap,
        model.whole_image_max_pixels if whole_image_max_pixels is None else whole_image_max_pixels,
        get_transforms(model.tta if tta is None else tta),
    )
    return _Member(model, Resize(model.resize, model.input_size, model.spacing_mm), window)


def _infer_member(
    member: _Member,
    read: ReadRows,
    size: tuple[int, int],
    statistics: Float[Tensor, "b c 4"],
    on_logits: OnLogits | None = None,
) -> Iterator[RowBlock]:
    """Compute the probabilities of one model on the resized grid."""
    model = member.model
    # Of the whole case, not of the rows at hand: normalized windows must agree where they overlap.
    statistics = statistics.to(model.device)

    def read_normalized(rows: slice) -> Tensor:
        return model.normalize(read(rows).to(model.device), statistics)

    fill = model.compute_padding_value(statistics)
    return member.window.iterate_blocks(model.compute_logits, size, read_normalized, fill, on_logits)


def _make_reader(resized: Sequence[Shaped[np.ndarray, "c h w"]], statistics: Float32[np.ndarray, "c 4"]) -> ReadRows:
    """Read rows of slices as input of the network."""
    # A huge image is never held in 32 bits.

    def read(rows: slice) -> Tensor:
        return torch.from_numpy(np.stack([as_network_type(pixels[:, rows], statistics) for pixels in resized]))

    return read


def split_slices(blocks: Iterator[RowBlock], count: int) -> list[Iterator[RowBlock]]:
    """Split the blocks of a stack of slices by slice.

    Args:
        blocks: The blocks of the stack, `(B, K, rows, W)`.
        count: The number of slices `B`.

    Returns:
        The blocks of each slice.
    """
    if count == 1:  # it may be huge, and passes a few rows at a time
        return [blocks]
    # Several slices at once are small enough, see `Inferer.count_slices_at_once`.
    whole = concat_rows(blocks)
    rows = slice(0, whole.shape[-2])
    return [iter([RowBlock(rows, whole[index : index + 1])]) for index in range(count)]


def resize_to_native(
    blocks: Iterable[RowBlock], resize: Resize, native: tuple[int, int], block_values: int = _BLOCK_VALUES
) -> Iterator[RowBlock]:
    """Resize the blocks of a slice to its native grid.

    Args:
        blocks: On the resized grid.
        resize: How the slice was brought there.
        native: `(height, width)` of the slice.
        block_values: Values in a block that is returned.
    """
    if resize.compute_fitted_size(native) == native:
        yield from blocks
        return
    resized = concat_rows(blocks)  # scaled to what the network takes, it is small
    height, width = native
    step = max(1, block_values // (resized.shape[0] * resized.shape[1] * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield RowBlock(rows, resize.undo_rows(resized, native, rows))


def average_members(members: Sequence[Iterator[RowBlock]], height: int) -> Iterator[RowBlock]:
    """Average the probabilities of several models.

    Their blocks may end at different rows.

    Args:
        members: The blocks of each model, of one slice.
        height: Rows of the slice.
    """
    if len(members) == 1:
        yield from members[0]
        return
    current = [next(blocks) for blocks in members]
    top = 0
    while top < height:
        end = min(block.rows.stop for block in current)  # a member whose block reaches further waits
        parts = [block.probabilities[..., top - block.rows.start : end - block.rows.start, :] for block in current]
        # Summed one by one, in the order of the members: the same bits as in `Predictor.predict_members`.
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        yield RowBlock(slice(top, end), total / len(parts))
        top = end
        if top < height:
            current = [
                next(blocks) if block.rows.stop == top else block
                for block, blocks in zip(current, members, strict=True)
            ]
