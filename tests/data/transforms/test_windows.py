"""Windows, weights and padding: against MONAI's, and undone to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices

from medseg_pl.data.transforms.windows import (
    Padding,
    center_padding,
    compute_padded_size,
    gaussian_weights,
    list_window_starts,
    list_windows,
    pad,
)

LENGTHS = st.integers(1, 90)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.99])


def monai_starts(length: int, window: int, overlap: float) -> list[int]:
    """MONAI pads an image to its window first, and steps by the window where both are alike."""
    length = max(length, window)
    step = window if window == length else max(1, int(window * (1 - overlap)))
    return [place.start for (place,) in dense_patch_slices((length,), (window,), (step,))]


@given(length=LENGTHS, window=LENGTHS, overlap=OVERLAPS)
def test_windows_begin_where_monai_lets_them_begin(length: int, window: int, overlap: float) -> None:
    assert list_window_starts(length, window, overlap) == monai_starts(length, window, overlap)


@given(length=LENGTHS, window=LENGTHS, overlap=OVERLAPS)
def test_windows_cover_the_axis_and_stay_inside(length: int, window: int, overlap: float) -> None:
    begins = list_window_starts(length, window, overlap)
    covered = {place for begin in begins for place in range(begin, begin + window)}
    assert covered >= set(range(length))
    assert begins == sorted(set(begins))
    assert begins[-1] == max(0, length - window)


def test_a_grid_goes_row_by_row() -> None:
    windows = [
        (rows.start, rows.stop, columns.start, columns.stop) for rows, columns in list_windows((6, 5), (4, 3), 0.5)
    ]
    assert windows == [
        (y, y + 4, x, x + 3)
        for y, x in [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    ]  # fmt: skip


@pytest.mark.parametrize("window", [(8, 8), (33, 64), (1, 5)])
def test_weights_equal_those_of_monai(window: tuple[int, int]) -> None:
    expected = compute_importance_map(window, mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    torch.testing.assert_close(gaussian_weights(window), expected, rtol=1e-5, atol=1e-7)


def test_weights_have_the_width_that_nnunet_gives_them() -> None:
    weights = gaussian_weights((17, 33))
    middle = weights[8, 16]
    assert middle == 1
    # One eighth of the window from the middle is one sigma; the rows measure 17 / 8 = 2.125 pixels.
    assert float(weights[10, 16]) == pytest.approx(float(np.exp(-0.5 * (2 / 2.125) ** 2)), rel=1e-6)
    assert float(weights.min()) == pytest.approx(1e-3)
    torch.testing.assert_close(weights, weights.flip(0, 1))


@pytest.mark.parametrize(
    ("size", "multiple", "at_least", "expected"),
    [
        ((40, 59), 16, (64, 32), (64, 64)),
        ((64, 64), 32, (1, 1), (64, 64)),
        ((65, 1), 32, (1, 1), (96, 32)),
        ((7, 9), 1, (1, 1), (7, 9)),
        ((7, 9), 4, (9, 9), (12, 12)),
    ],
)
def test_padded_sizes(
    size: tuple[int, int], multiple: int, at_least: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert compute_padded_size(size, multiple, at_least) == expected


def test_the_odd_row_goes_to_the_end() -> None:
    assert center_padding((5, 4), (8, 9)) == Padding(top=1, bottom=2, left=2, right=3)
    assert center_padding((9, 9), (8, 9)) == Padding(0, 0, 0, 0)


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    extra=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 99),
)
def test_padding_is_undone_to_the_last_bit(
    size: tuple[int, int], extra: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = (torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) * 10.0 ** seed.__mod__(5)).to(dtype)
    padding = center_padding(size, (size[0] + extra[0], size[1] + extra[1]))
    padded = pad(image, padding, image.amin(dim=(-2, -1), keepdim=True))
    assert padded.shape[-2:] == (size[0] + extra[0], size[1] + extra[1])
    assert padded.dtype == dtype
    assert torch.equal(padding.undo(padded), image)


def test_the_border_is_the_fill_of_each_image_and_channel() -> None:
    image = torch.tensor([[[[3.0, 1.0]], [[-5.0, 2.0]]], [[[7.0, 8.0]], [[0.1, 0.2]]]])
    fill = torch.tensor([[-1.0, 9.0], [0.1, 1e6]])
    padded = pad(image, Padding(1, 0, 0, 1), fill[..., None, None])
    assert padded[0, 0].tolist() == [[-1, -1, -1], [3, 1, -1]]
    assert padded[0, 1].tolist() == [[9, 9, 9], [-5, 2, 9]]
    assert padded[1, 0].tolist() == [[fill[1, 0]] * 3, [7, 8, fill[1, 0]]]
    assert padded[1, 1].tolist() == [[1e6] * 3, [*image[1, 1, 0].tolist(), 1e6]]


def test_padding_leaves_image_and_fill_as_they_are() -> None:
    image, fill = torch.arange(12.0).view(1, 2, 2, 3), torch.tensor([7.0, -7.0]).view(1, 2, 1, 1)
    before = image.clone(), fill.clone()
    padded = pad(image, Padding(1, 2, 0, 3), fill)
    padded += 1
    assert torch.equal(image, before[0])
    assert torch.equal(fill, before[1])
    assert padded.is_contiguous()
    assert pad(image, Padding(0, 0, 0, 0), fill) is image
