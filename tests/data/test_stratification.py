"""Dealing groups to parts: every one once, and closer to even than by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.data.stratification import imbalance, stratified_assign


def skewed(seed: int, groups: int = 40) -> np.ndarray:
    """Cases, voxels of a common and of a rare label, and the cases that hold them."""
    rng = np.random.default_rng(seed)
    cases = rng.integers(1, 5, groups).astype(float)
    voxels = np.stack([rng.lognormal(8, 1, groups), rng.lognormal(5, 2, groups) * (rng.random(groups) < 0.3)], axis=1)
    return np.column_stack([cases, voxels, (voxels > 0) * cases[:, None]])


@pytest.mark.parametrize("seed", range(20))
def test_more_even_than_a_random_split_of_the_groups(seed: int) -> None:
    amounts, goals = skewed(seed), [0.2] * 5
    dealt = stratified_assign(amounts, None, goals, seed)
    chance = np.random.default_rng(seed).permutation(np.arange(len(amounts)) % 5)
    assert imbalance(amounts, dealt, goals) < imbalance(amounts, chance, goals)


@given(groups=st.integers(5, 60), parts=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_group_has_a_part_and_every_part_a_group(groups: int, parts: int, seed: int) -> None:
    dealt = stratified_assign(skewed(seed, groups), None, [1 / parts] * parts, seed)
    assert dealt.shape == (groups,)
    assert set(dealt.tolist()) == set(range(parts))


@given(seed=st.integers(0, 9))
def test_room_is_kept_to(seed: int) -> None:
    dealt = stratified_assign(skewed(seed, 20), [12, 5, 3], [0.6, 0.25, 0.15], seed)
    assert np.bincount(dealt).tolist() == [12, 5, 3]
