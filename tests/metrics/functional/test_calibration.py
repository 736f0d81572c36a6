"""Brier score, calibration error and entropy against paper, voxel-by-voxel loops, torchmetrics and torch."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from medseg_pl.metrics.functional import calibration
from medseg_pl.metrics.functional.calibration import (
    CalibrationSums,
    brier_score,
    entropy,
    expected_calibration_error,
    sum_calibration,
)


def sums_of(probability: Any, reference: Any, bins: int = 15, annotated: Any = None) -> CalibrationSums:
    probability, reference = np.asarray(probability, np.float32), np.asarray(reference, bool)
    counted = np.ones(probability.shape, bool) if annotated is None else np.asarray(annotated, bool)
    return sum_calibration(probability, reference, counted, bins)


def drawn(seed: int, voxels: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that are too sure of themselves, some of them exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    chance = rng.random(voxels)
    probability = np.clip(1.4 * chance - 0.2, 0, 1).astype(np.float32)
    return probability, rng.random(voxels) < chance, rng.random(voxels) < 0.8


def one_by_one(probability: np.ndarray, reference: np.ndarray, bins: int) -> tuple[float, float]:
    """Brier score and ECE as their definitions read."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for p, r in zip(probability.tolist(), reference.tolist(), strict=True):
        members.setdefault(min(math.floor(p * bins), bins - 1), []).append((p, r))
    gaps = [abs(sum(p for p, _ in bin_) - sum(r for _, r in bin_)) / len(bin_) for bin_ in members.values()]
    ece = sum(gap * len(bin_) / len(probability) for gap, bin_ in zip(gaps, members.values(), strict=True))
    brier = sum((p - r) ** 2 for p, r in zip(probability.tolist(), reference.tolist(), strict=True)) / len(probability)
    return brier, ece


def test_scores_worked_out_on_paper() -> None:
    # Five bins: 0.125 and 0.125 in the first (mean 1/8, share 1/2), 0.75 in the fourth, 1.0 in the last.
    sums = sums_of([0.125, 0.125, 0.75, 1.0], [0, 1, 1, 1], bins=5)
    assert sums.voxels.tolist() == [2, 0, 0, 1, 1]
    assert sums.positives.tolist() == [1, 0, 0, 1, 1]
    assert sums.probability.tolist() == [0.25, 0, 0, 0.75, 1.0]
    assert brier_score(sums) == ((1 / 8) ** 2 + (7 / 8) ** 2 + (1 / 4) ** 2 + 0) / 4
    assert expected_calibration_error(sums) == 2 / 4 * 3 / 8 + 1 / 4 * 1 / 4


def test_a_bin_holds_its_lower_end_and_the_last_one_both() -> None:
    assert sums_of([0.0, 0.25, 0.5, 0.75, 1.0], [0] * 5, bins=4).voxels.tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("probability", "reference", "brier", "ece"),
    [
        ([0.0, 1.0], [0, 1], 0.0, 0.0),
        ([0.0, 1.0], [1, 0], 1.0, 1.0),
        ([0.25] * 4, [1, 0, 0, 0], 3 / 16, 0.0),  # a frequency, and yet no certainty
        ([0.5] * 4, [1, 1, 1, 1], 0.25, 0.5),
    ],
)
def test_certainty_and_frequency(probability: Any, reference: Any, brier: float, ece: float) -> None:
    sums = sums_of(probability, reference)
    assert brier_score(sums) == brier
    assert expected_calibration_error(sums) == ece


def test_without_voxels_there_is_no_score() -> None:
    sums = sums_of([0.3, 0.7], [0, 1], annotated=[0, 0])
    assert math.isnan(brier_score(sums))
    assert math.isnan(expected_calibration_error(sums))


def test_what_rounding_puts_beyond_the_ends_counts_as_the_ends() -> None:
    beyond, ends = sums_of([-1e-4, 1 + 1e-4], [0, 1], bins=50_000), sums_of([0.0, 1.0], [0, 1], bins=50_000)
    for ours, expected in zip(beyond, ends, strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(seed=st.integers(0, 9999), bins=st.integers(1, 30))
def test_scores_equal_those_of_a_loop(seed: int, bins: int) -> None:
    probability, reference, annotated = drawn(seed)
    sums = sum_calibration(probability, reference, annotated, bins)
    expected = one_by_one(probability[annotated], reference[annotated], bins)
    assert (brier_score(sums), expected_calibration_error(sums)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 10, 15])
def test_the_calibration_error_is_that_of_torchmetrics(bins: int) -> None:
    # For two classes its confidence is the probability of the positive one, as ours. It puts 1.0 into a bin of its own.
    probability, reference, _ = drawn(bins, voxels=5000)
    below_one = np.minimum(probability, np.float32(0.999))
    peer = float(binary_calibration_error(torch.from_numpy(below_one), torch.from_numpy(reference).int(), n_bins=bins))
    assert expected_calibration_error(sums_of(below_one, reference, bins)) == pytest.approx(peer, abs=1e-5)
    assert peer > 0.005  # else this would compare nothing with nothing


@given(seed=st.integers(0, 9999), bins=st.integers(1, 10), finer=st.integers(2, 4))
def test_what_must_hold_for_any_probabilities(seed: int, bins: int, finer: int) -> None:
    probability, reference, annotated = drawn(seed)
    sums, more = (sum_calibration(probability, reference, annotated, n) for n in (bins, bins * finer))
    assert expected_calibration_error(sums) ** 2 <= brier_score(sums)  # Jensen
    assert expected_calibration_error(more) >= expected_calibration_error(sums) - 1e-12  # errors cancel no longer
    assert int(sums.voxels.sum()) == int(annotated.sum())
    assert brier_score(more) == brier_score(sums)


@pytest.mark.parametrize("block", [1, 7, 60, 1000])
def test_blocks_are_not_seen_in_the_sums(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    probability, reference, annotated = (part.reshape(3, 4, 5) for part in drawn(3, voxels=60))
    whole = sum_calibration(probability, reference, annotated, 6)
    monkeypatch.setattr(calibration, "_BLOCK", block)
    for ours, expected in zip(sum_calibration(probability, reference, annotated, 6), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_memory_does_not_grow_with_the_volume() -> None:
    probability = np.zeros((4, 1024, 1024), np.float32)
    mask = np.ones(probability.shape, bool)
    tracemalloc.start()
    try:
        sums = sum_calibration(probability, mask, mask, 15)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert int(sums.positives[0]) == probability.size
    assert peak < probability.nbytes / 4


class TestEntropy:
    def test_worked_out_on_paper(self) -> None:
        found = entropy(np.array([[0.5, 1.0, 0.25], [0.5, 0.0, 0.75]]))
        np.testing.assert_allclose(found, [math.log(2), 0.0, 2 * math.log(2) - 0.75 * math.log(3)], rtol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_certainty_has_none_and_a_draw_the_most(self, dtype: type) -> None:
        assert entropy(np.array([[0], [1], [0], [0]], dtype)).tolist() == [0.0]
        np.testing.assert_allclose(entropy(np.full((4, 2, 3), 0.25, dtype)), np.full((2, 3), math.log(4)), rtol=1e-3)

    def test_rounding_makes_no_holes(self) -> None:
        np.testing.assert_array_equal(entropy(np.array([[-1e-7, 1 + 1e-7], [1 + 1e-7, -1e-7]])), [0.0, 0.0])

    def test_equal_to_torch(self) -> None:
        distribution = np.random.default_rng(0).dirichlet([0.3] * 5, size=(6, 7))
        expected = torch.distributions.Categorical(torch.from_numpy(distribution)).entropy()
        np.testing.assert_allclose(entropy(np.moveaxis(distribution, -1, 0)), expected.numpy(), atol=1e-12)
