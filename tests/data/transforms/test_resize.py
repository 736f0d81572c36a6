"""How images reach the network's size and come back: where every pixel goes."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import ResizeMode
from medseg_pl.data.transforms.grids import (
    Padding,
    center_padding,
    compute_padded_size,
    list_window_starts,
    pad_constant,
    resize_image,
)
from medseg_pl.data.transforms.resize import Resize, gaussian_weights, pad

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def center(plane: np.ndarray) -> np.ndarray:
    """The center of mass as a share of height and width."""
    places = [(np.arange(length) + 0.5) / length for length in plane.shape]
    return np.array([(plane.sum(axis=1) @ places[0]), (plane.sum(axis=0) @ places[1])]) / plane.sum()


class TestSettings:
    def test_an_unknown_mode_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse it first
        with pytest.raises(SettingError, match="resize must be one of none, fit; got 'stretch'"):
            Resize("stretch", (8, 8))  # type: ignore[arg-type]

    @pytest.mark.parametrize("size", [(0, 8), (8, -1)])
    def test_a_size_without_pixels_is_refused(self, size: tuple[int, int]) -> None:
        with pytest.raises(SettingError, match=r"size must be \(height, width\), both at least 1 pixel; got"):
            Resize("fit", size)


class TestNative:
    def test_nothing_happens(self) -> None:
        resize = Resize("none", (8, 8))
        image, mask = np.ones((1, 5, 20), np.uint16), np.ones((1, 5, 20), np.uint8)
        probabilities = torch.rand(1, 2, 5, 20)
        assert resize.compute_fitted_size((5, 20)) == resize.compute_scaled_size((5, 20)) == (5, 20)
        assert resize.compute_padding((5, 20)) == Padding(0, 0, 0, 0)
        assert resize.apply(image, np.zeros(1)) is image
        assert resize.apply_mask(mask) is mask
        assert resize.undo(probabilities, (5, 20)) is probabilities


class TestSpacing:
    """`native` with a spacing: 1 mm x 0.5 mm pixels are brought to 2 mm x 2 mm."""

    FIT = Resize("none", (8, 8), spacing_mm=(2.0, 2.0)).adapt_to(Geometry((3, 40, 60), (5.0, 1.0, 0.5)))

    def test_sizes_on_paper(self) -> None:
        assert self.FIT.compute_scaled_size((40, 60)) == self.FIT.compute_fitted_size((40, 60)) == (20, 15)
        assert self.FIT.patch == (16, 32)  # 8 pixels of 2 mm cover 16 of 1 mm and 32 of 0.5 mm
        assert self.FIT.compute_padding((40, 60)) == Padding(0, 0, 0, 0)

    def test_a_slice_never_vanishes(self) -> None:
        resize = Resize("none", (8, 8), spacing_mm=(10.0, 10.0)).adapt_to(Geometry((1, 3, 3), (1.0, 1.0, 1.0)))
        assert resize.compute_scaled_size((3, 3)) == (1, 1)

    def test_without_a_spacing_every_case_is_as_it_is(self) -> None:
        resize = Resize("none", (8, 8))
        assert resize.adapt_to(Geometry((1, 4, 4))) is resize
        assert resize.patch == (8, 8)

    @given(native=SIZES, pixel=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
    def test_back_exactly_on_the_native_grid(self, native: tuple[int, int], pixel: tuple[float, float]) -> None:
        resize = Resize("none", (8, 8), spacing_mm=(1.0, 1.5)).adapt_to(Geometry((1, *native), (1.0, *pixel)))
        image = resize.apply(np.full((1, *native), 0.25, np.float32), np.zeros(1))
        assert (
            image.shape[1:]
            == resize.compute_fitted_size(native)
            == resize.apply_mask(np.zeros((1, *native), np.uint8)).shape[1:]
        )
        torch.testing.assert_close(
            resize.undo(torch.from_numpy(image)[None], native), torch.full((1, 1, *native), 0.25)
        )

    def test_a_structure_stays_where_it_was(self) -> None:
        blob = np.zeros((1, 40, 60), np.float32)
        blob[0, 7:25, 20:51] = 1
        back = self.FIT.undo(torch.from_numpy(self.FIT.apply(blob, np.zeros(1)))[None], (40, 60))[0].numpy()
        np.testing.assert_allclose(center(back[0]), center(blob[0]), atol=0.005)

    @pytest.mark.parametrize(("mode", "spacing"), [("fit", (1.0, 1.0)), ("none", (0.0, 1.0))])
    def test_a_spacing_that_cannot_be_is_refused(self, mode: ResizeMode, spacing: tuple[float, float]) -> None:
        with pytest.raises(SettingError, match="spacing_mm must be two distances above 0 and goes with resize none"):
            Resize(mode, (8, 8), spacing)


class TestResize:
    @pytest.mark.parametrize(
        ("native", "size", "scaled"),
        [
            ((400, 200), (100, 100), (100, 50)),
            ((20, 10), (100, 100), (100, 50)),
            ((100, 300), (64, 96), (32, 96)),
            ((1000, 1), (10, 10), (10, 1)),
            ((7, 7), (7, 7), (7, 7)),
        ],
    )
    def test_proportions_are_kept(
        self, native: tuple[int, int], size: tuple[int, int], scaled: tuple[int, int]
    ) -> None:
        assert Resize("fit", size).compute_scaled_size(native) == scaled

    @given(native=SIZES, size=SIZES)
    def test_everything_has_the_asked_size(self, native: tuple[int, int], size: tuple[int, int]) -> None:
        resize = Resize("fit", size)
        scaled, padding = resize.compute_scaled_size(native), resize.compute_padding(native)
        assert (scaled[0] + padding.top + padding.bottom, scaled[1] + padding.left + padding.right) == size
        assert scaled[0] == size[0] or scaled[1] == size[1]
        image = resize.apply(np.zeros((2, *native), np.uint8), np.zeros(2))
        mask = resize.apply_mask(np.zeros((1, *native), np.uint8))
        assert image.shape[1:] == mask.shape[1:] == size
        assert resize.undo(torch.zeros(1, 2, *size), native).shape == (1, 2, *native)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
    def test_shrinking_averages_blocks_and_pads_with_the_fill(self, dtype: type) -> None:
        image = np.array([[[0, 4, 10, 10], [8, 4, 10, 30]]], dtype)
        fitted = Resize("fit", (2, 2)).apply(image, np.array([7]))
        assert fitted.dtype == dtype
        assert fitted.tolist() == [[[4, 15], [7, 7]]]

    def test_each_channel_is_padded_with_its_own_value(self) -> None:
        image = np.stack([np.full((4, 2), value, np.int16) for value in (100, 200, 300, 400, 500)])
        fitted = Resize("fit", (4, 4)).apply(image, np.array([-1, -2, -3, -4, -5]))
        assert fitted[:, 0].tolist() == [[-1 - i, 100 * (i + 1), 100 * (i + 1), -1 - i] for i in range(5)]

    def test_a_mask_gets_no_new_value_and_background_around(self) -> None:
        mask = np.random.default_rng(0).choice([0, 3, 200, 255], (2, 31, 17)).astype(np.uint8)
        fitted = Resize("fit", (24, 24)).apply_mask(mask)
        assert set(np.unique(fitted)) <= {0, 3, 200, 255}
        padding = Resize("fit", (24, 24)).compute_padding((31, 17))
        assert (fitted[:, :, : padding.left] == 0).all()
        assert (fitted[:, :, 24 - padding.right :] == 0).all()

    @pytest.mark.parametrize(("native", "size"), [(24, 8), (40, 8), (8, 24), (30, 21), (64, 48), (33, 32)])
    def test_every_pixel_of_a_mask_comes_from_the_nearest_one(self, native: int, size: int) -> None:
        ramp = np.broadcast_to(np.arange(native, dtype=np.uint8), (1, native, native)).copy()
        taken = Resize("fit", (size, size)).apply_mask(ramp)[0, 0]
        middle = (np.arange(size) + 0.5) * native / size  # of each new pixel, on the old grid
        assert (np.abs(taken + 0.5 - middle) <= 0.5 + 1e-3).all()

    @pytest.mark.parametrize("size", [16, 21, 32, 128])
    def test_image_and_mask_stay_on_top_of_each_other(self, size: int) -> None:
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[0, 11:38, 20:59] = 1
        resize = Resize("fit", (size, size))
        image = resize.apply(mask.astype(np.float32), np.zeros(1))
        # Half a pixel of the finer grid is the most that the nearest pixel can be off.
        np.testing.assert_allclose(center(resize.apply_mask(mask)[0]), center(image[0]), atol=0.6 / 64)

    @pytest.mark.parametrize(("native", "size"), [((64, 48), (32, 32)), ((20, 30), (60, 60)), ((33, 47), (40, 40))])
    def test_the_way_back_ends_where_it_began(self, native: tuple[int, int], size: tuple[int, int]) -> None:
        blob = np.zeros((1, *native), np.float32)
        blob[0, native[0] // 4 : native[0] // 2, native[1] // 3 : native[1] - 4] = 1
        resize = Resize("fit", size)
        back = resize.undo(torch.from_numpy(resize.apply(blob, np.zeros(1)))[None], native)[0].numpy()
        np.testing.assert_allclose(center(back[0]), center(blob[0]), atol=0.005)
        assert back.sum() == pytest.approx(blob.sum(), rel=0.03)

    def test_the_padding_never_enters_the_native_grid(self) -> None:
        resize = Resize("fit", (8, 8))
        padding = resize.compute_padding((4, 8))
        fitted = torch.full((1, 1, 8, 8), 99.0)
        fitted[..., padding.top : 8 - padding.bottom, :] = 0.25
        torch.testing.assert_close(resize.undo(fitted, (4, 8)), torch.full((1, 1, 4, 8), 0.25))


def test_resizing_to_the_same_size_copies_nothing() -> None:
    image = np.zeros((1, 4, 5), np.uint8)
    assert resize_image(image, (4, 5)) is image


def test_a_frame_worked_out_on_paper() -> None:
    framed = pad_constant(np.array([[[1, 2]]], np.int16), Padding(1, 0, 0, 2), np.array([-1000.0], np.float32))
    assert framed.dtype == np.int16
    assert framed.tolist() == [[[-1000, -1000, -1000, -1000], [1, 2, -1000, -1000]]]


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
