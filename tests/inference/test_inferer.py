"""Slices come back on their own grid, and rows that come piece by piece make the image that comes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import EvaluationBatch, SliceReference
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.inference.inferer import Inferer, average_members, resize_to_native
from medseg_pl.inference.sliding_window import RowBlock, SlidingWindow, concat_rows
from medseg_pl.models.normalization import MeanStd
from medseg_pl.models.segmentation_model import SegmentationModel

IMAGE = torch.rand((2, 3, 12, 5), generator=torch.Generator().manual_seed(0))


def cut(image: Tensor, ends: Sequence[int]) -> Iterator[RowBlock]:
    """The image in bands that end at these rows."""
    starts = [0, *ends[:-1]]
    return (RowBlock(slice(a, b), image[..., a:b, :]) for a, b in zip(starts, ends, strict=True))


def rows_of(bands: list[RowBlock]) -> list[tuple[int, int]]:
    return [(band.rows.start, band.rows.stop) for band in bands]


@pytest.mark.parametrize("ends", [[12], [1, 12], [5, 5, 9, 12]])
def test_joined_bands_are_the_image(ends: list[int]) -> None:
    assert torch.equal(concat_rows(cut(IMAGE, ends)), IMAGE)


def test_the_mean_of_bands_that_end_at_different_rows() -> None:
    members = [cut(IMAGE, [4, 12]), cut(2 * IMAGE, [3, 6, 12]), cut(6 * IMAGE, [12])]
    bands = list(average_members(members, 12))
    assert rows_of(bands) == [(0, 3), (3, 4), (4, 6), (6, 12)]
    torch.testing.assert_close(concat_rows(iter(bands)), 3 * IMAGE)


@pytest.mark.parametrize(
    ("resize", "native"),
    [
        (Resize("fit", (12, 16)), (31, 13)),
        (Resize("fit", (12, 16)), (5, 7)),
        (Resize("none", (8, 8), (1.0, 1.0), (0.5, 0.75)), (25, 20)),
        (Resize("none", (8, 8)), (25, 20)),
    ],
)
def test_what_is_undone_row_by_row_is_what_is_undone_at_once(resize: Resize, native: tuple[int, int]) -> None:
    fitted = torch.rand((1, 2, *resize.compute_fitted_size(native)), generator=torch.Generator().manual_seed(1))
    ends = [2, len(fitted[0, 0])]
    bands = list(resize_to_native(cut(fitted, ends), resize, native, 2 * native[1] * 4))
    assert len(bands) > 1
    torch.testing.assert_close(concat_rows(iter(bands)), resize.undo(fitted, native), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(65, 97), (64, 32), (20, 100), (131, 17)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_windows_read_no_more_rows_at_a_time_than_they_are_high(size: tuple[int, int], overlap: float) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(2, 3, 5, padding="same").requires_grad_(False)
    pixels, fill = torch.rand(1, 2, *size), torch.zeros(1, 2, 1, 1)
    window = SlidingWindow(LabelMap(["a", "b"], "multiclass"), (32, 24), 8, overlap, max_pixels=0)
    asked: list[slice] = []

    def read(rows: slice) -> Tensor:
        asked.append(rows)
        return pixels[..., rows, :]

    bands = list(window.iterate_blocks(network, size, read, fill))
    assert max(rows.stop - rows.start for rows in asked) <= 32
    assert [row for band in bands for row in range(band.rows.start, band.rows.stop)] == list(range(size[0]))
    assert torch.equal(concat_rows(iter(bands)), window(network, pixels, fill))


class Given(torch.nn.Module):
    """A network that answers the logits of these probabilities."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.logits = torch.logit(probabilities)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(len(image), -1, -1, -1)


def infer(resized: Tensor, native: tuple[int, int]) -> Tensor:
    """Probabilities on the native grid of a slice that was scaled whole."""
    size = (resized.shape[-2], resized.shape[-1])
    model = SegmentationModel(
        Given(resized),
        LabelMap(["lesion"], "binary"),
        MeanStd([0.0], [1.0]),
        resize="fit",
        input_size=size,
        size_divisor=1,
    )
    slices = [SliceReference("a", "p", 0, Geometry((1, *native)))]
    batch = EvaluationBatch(torch.zeros(1, 1, *size), torch.zeros(1, 1, 4), slices, [])
    (blocks,) = Inferer([model]).infer_batch(batch)
    return concat_rows(blocks)


def test_padding_is_thrown_away_on_the_native_grid() -> None:
    # 20 x 40 pixels were scaled to 4 x 8 and padded to 8 x 8 with two rows above and below.
    resized = torch.full((1, 1, 8, 8), 0.01)
    resized[..., 2:6, 4:] = 0.99
    resized[..., :2, :4] = resized[..., 6:, :4] = 0.99
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[:, 20:] = True
    assert torch.equal(infer(resized, (20, 40))[0, 0] > 0.5, expected)


def test_probabilities_and_not_decisions_are_scaled() -> None:
    # Between 0.2 and 1.0 the limit of 0.5 lies at 3/8 of the way: decisions first would put it at 1/2.
    native = infer(torch.tensor([[[[0.2, 1 - 1e-6]]]]), (40, 80))
    assert native.shape == (1, 1, 40, 80)
    assert native[0, 0, 20, [0, 79]].tolist() == pytest.approx([0.2, 1.0], abs=1e-5)
    row = native[0, 0, 20] > 0.5
    assert int(row.int().argmax()) == 20 + 15  # the way goes from the middle of one pixel, 20, to that of the other, 60
    assert row[35:].all()
