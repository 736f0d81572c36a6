"""p-values of candidates, corrected for how many there are."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.metrics.statistics.comparison import sign_flip_p
from medseg_pl.metrics.statistics.selection import selection_p


def test_one_candidate_has_half_the_two_sided_p_of_the_sign_flip_test() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1, 9)
    assert selection_p(gains[:, None])[0] == pytest.approx(sign_flip_p(gains) / 2)


def test_a_candidate_that_loses_has_no_small_p() -> None:
    assert selection_p(-np.ones((8, 1)))[0] == 1.0


def test_equal_candidates_need_no_correction() -> None:
    gains = np.ones((8, 1))
    assert (selection_p(np.tile(gains, 10)) == selection_p(gains)[0]).all()


def test_different_candidates_correct_each_other_exactly() -> None:
    # Each of the two is best in one of eight combinations of signs, and not in the same one.
    assert selection_p(np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])).tolist() == [0.25, 0.75]


def test_scale_means_nothing() -> None:
    gains = np.random.default_rng(1).normal(0.3, 1, (9, 4))
    assert selection_p(gains).tolist() == selection_p(gains * [1.0, 1e-6, 1e6, 3.0]).tolist()


def test_drawn_combinations_come_near_all_of_them_and_are_never_0() -> None:
    gains = np.random.default_rng(2).normal(0.5, 1, (11, 3))
    assert selection_p(gains, flips=1500) == pytest.approx(selection_p(gains), abs=0.03)
    assert selection_p(np.ones((70, 1)), flips=100)[0] == 0.01
