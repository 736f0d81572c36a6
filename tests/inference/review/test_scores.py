"""Signs that a mask is wrong, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg_pl.inference.review.scores import (
    FEWEST_CASES,
    agreement,
    combine_evidence,
    excess_over_median,
    expected_dice,
    implausibility,
)


def test_the_expected_dice_is_the_mean_over_what_the_probabilities_stand_for() -> None:
    """Each voxel drawn by its probability, many times, and the Dice of the mask with what was drawn."""
    rng = np.random.default_rng(0)
    probability = rng.random(400) ** 3
    mask = probability > 0.5
    drawn = rng.random((4000, 400)) < probability
    both = (drawn & mask).sum(axis=1)
    mean = (2 * both / (drawn.sum(axis=1) + mask.sum())).mean()
    assert expected_dice(probability, mask) == pytest.approx(mean, abs=2e-3)


def test_certainty_expects_what_dice_is() -> None:
    reference = np.array([1.0, 1.0, 0.0, 0.0])
    assert expected_dice(reference, reference == 1) == 1
    assert expected_dice(reference, np.array([False, True, True, False])) == 0.5
    assert expected_dice(reference, np.zeros(4, bool)) == 0
    assert expected_dice(np.zeros(4), np.zeros(4, bool)) == 1
    assert expected_dice(np.zeros(4), reference == 1) == 0


def test_half_precision_does_not_overflow_the_sum() -> None:
    probability = np.full((64, 64, 64), 0.5, np.float32)
    assert expected_dice(probability, np.ones((64, 64, 64), bool)) == 2 / 3


def test_models_that_find_nothing_agree() -> None:
    empty, one = np.zeros(3, bool), np.array([True, False, False])
    assert agreement([empty, empty], empty) == 1
    assert agreement([empty, one], empty) == 0.5
    assert math.isnan(agreement([], empty))


class TestImplausibleSizes:
    def test_too_few_cases_say_nothing(self) -> None:
        assert implausibility([1.0] * (FEWEST_CASES - 2) + [1000.0]).tolist() == [0] * (FEWEST_CASES - 1)

    def test_it_does_not_depend_on_the_unit(self) -> None:
        sizes = np.random.default_rng(0).lognormal(3, 0.3, 40)
        sizes[0] *= 8
        np.testing.assert_allclose(implausibility(list(sizes)), implausibility(list(1000 * sizes)), atol=1e-12)
        assert implausibility(list(sizes)).argmax() == 0

    def test_twice_and_half_are_as_unusual(self) -> None:
        sizes = [100.0] * 18 + [50.0, 200.0]
        unusual = implausibility(sizes)
        assert unusual[18] == pytest.approx(unusual[19])
        assert unusual[18] == pytest.approx(1 - 3 * math.log(1.1) / math.log(2))

    def test_a_label_that_is_often_absent_may_be_absent(self) -> None:
        sizes = [0.0] * 10 + [100.0] * 10
        assert implausibility(sizes).tolist() == [0] * 20

    def test_what_nobody_has_and_what_everybody_has(self) -> None:
        assert implausibility([100.0] * 39 + [0.0])[-1] == 0.75
        assert implausibility([0.0] * 39 + [100.0])[-1] == 0.75


def test_signs_add_up_to_no_more_than_one() -> None:
    assert combine_evidence([]) == 0
    assert combine_evidence([0.25]) == 0.25
    assert combine_evidence([1.0, 0.5]) == 1
    assert combine_evidence([math.nan, math.nan]) == 0


def test_what_all_cases_have_is_no_sign() -> None:
    assert excess_over_median([0.75] * FEWEST_CASES).tolist() == [0] * FEWEST_CASES
    assert excess_over_median([0.75] * (FEWEST_CASES - 1)).tolist() == [0.75] * (FEWEST_CASES - 1)
