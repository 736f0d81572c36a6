"""The synthetic anatomy: reproducible, complete, and as unlike a threshold exercise as real scans are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from medseg_pl.data.synthetic import ORGANS, PEAKS, Phantom, merge_exclusive, simulate_abdomen, simulate_days

SHAPE = (12, 48, 56)


@pytest.fixture(scope="module")
def scans() -> list[Phantom]:
    return [simulate_abdomen(np.random.default_rng(seed), SHAPE) for seed in range(12)]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def test_a_scan_has_the_asked_shape_and_types(scans: list[Phantom]) -> None:
    assert scans[0].image.shape == SHAPE
    assert scans[0].image.dtype == np.uint16
    assert scans[0].masks.shape == (len(ORGANS), *SHAPE)
    assert scans[0].masks.dtype == np.bool_


@pytest.mark.parametrize("shape", [(1, 33, 40), (5, 60, 34)])
def test_any_shape_works(shape: tuple[int, int, int]) -> None:
    assert simulate_abdomen(np.random.default_rng(0), shape).image.shape == shape


def test_the_same_seed_gives_the_same_voxels(scans: list[Phantom]) -> None:
    again = simulate_abdomen(np.random.default_rng(3), SHAPE)
    np.testing.assert_array_equal(again.image, scans[3].image)
    np.testing.assert_array_equal(again.masks, scans[3].masks)


def test_every_organ_is_present_but_not_in_every_slice(scans: list[Phantom]) -> None:
    slices = np.array([scan.masks.any(axis=(2, 3)).sum(axis=1) for scan in scans])
    assert slices.min() >= 2
    assert (slices < SHAPE[0]).all()


def test_masks_overlap_by_a_rim_in_some_scans_and_not_in_others(scans: list[Phantom]) -> None:
    shares = [max((a & b).sum() / min(a.sum(), b.sum()) for a, b in combinations(scan.masks, 2)) for scan in scans]
    assert min(shares) == 0
    assert 0 < max(shares) < 0.25


def test_stomach_lies_above_small_bowel(scans: list[Phantom]) -> None:
    for scan in scans:
        heights = [np.nonzero(mask)[0].mean() for mask in scan.masks]
        assert heights[2] > heights[1] + SHAPE[0] / 4


def test_brightest_voxels_differ_as_widely_as_in_real_scans(scans: list[Phantom]) -> None:
    peaks = [int(scan.image.max()) for scan in scans]
    assert min(peaks) >= PEAKS[0] - 1
    assert max(peaks) <= PEAKS[1] + 1
    assert max(peaks) > 4 * min(peaks)


def test_no_threshold_finds_an_organ(scans: list[Phantom]) -> None:
    for scan in scans[:4]:
        edges = np.percentile(scan.image, np.arange(0, 101, 5))
        bands = [(scan.image >= low) & (scan.image <= high) for low, high in combinations(edges, 2)]
        assert max(dice(band, mask) for band in bands for mask in scan.masks) < 0.5


def test_days_share_the_anatomy_and_differ_in_detail() -> None:
    first, second, again = simulate_days(5, [1, 2, 1], SHAPE)
    np.testing.assert_array_equal(first.image, again.image)
    for organ, day, other in zip(ORGANS, first.masks, second.masks, strict=True):
        assert 0.5 < dice(day, other) < 0.99, organ


def test_a_day_does_not_depend_on_the_days_before() -> None:
    _, second = simulate_days(5, [1, 2], SHAPE)
    (alone,) = simulate_days(5, [2], SHAPE)
    np.testing.assert_array_equal(second.image, alone.image)


def test_exclusive_gives_shared_voxels_to_the_later_organ() -> None:
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.bool_)
    assert merge_exclusive(masks).tolist() == [1, 2, 3, 0]
