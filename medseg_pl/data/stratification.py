"""Dealing out groups of several amounts, such as cases and voxels, so that every part gets its share of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64


def stratified_assign(
    amounts: Float64[np.ndarray, "g a"], room: Sequence[int] | None, goals: Sequence[float], seed: int
) -> Int64[np.ndarray, " g"]:
    r"""Which part each group goes to, so that part $k$ gets about its goal $g_k$ of every amount.

    Groups are taken from the largest to the smallest, a group being large where it holds much of any amount: the ones
    with a rare label come first, as long as there is room to balance them. Each goes where it lowers most

    $$\sum_k \frac{1}{g_k} \sum_a (s_{ka} - g_k)^2, $$

    with $s_{ka}$ the share of amount $a$ that part $k$ has. Groups within a factor of two count as equally large, and
    the seed orders them.

    Args:
        amounts: Of each group; a column of zeros says nothing.
        room: How many groups each part takes; `None` for as many as come.
        goals: The share of each part, above 0; together 1.
        seed: Orders groups that are alike.

    References:
        Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011 (rare labels
        first, each to the part that lacks most).

    >>> stratified_assign(np.array([[3.0], [1.0], [1.0], [1.0]]), None, [0.5, 0.5], seed=0).tolist()
    [0, 1, 1, 1]
    """
    goal = np.asarray(goals, dtype=np.float64)
    totals = amounts.sum(axis=0)
    shares = amounts / np.where(totals > 0, totals, 1)
    lacking = np.repeat(goal[:, None], shares.shape[1], axis=1)
    left = np.full(len(goal), len(shares)) if room is None else np.array(room)
    parts = np.zeros(len(shares), np.int64)
    for group in _largest_first(shares, seed):
        share = shares[group]
        growth = ((share - 2 * lacking) @ share) / goal
        part = int(np.where(left > 0, growth, np.inf).argmin())
        parts[group] = part
        lacking[part] -= share
        left[part] -= 1
    return parts


def imbalance(amounts: Float64[np.ndarray, "g a"], parts: Int64[np.ndarray, " g"], goals: Sequence[float]) -> float:
    """The mean distance of a part's share from its goal, over parts and amounts that are there at all.

    >>> imbalance(np.array([[3.0], [1.0]]), np.array([0, 1]), [0.5, 0.5])
    0.25
    """
    there = amounts[:, amounts.sum(axis=0) > 0]
    held = np.stack([there[parts == part].sum(axis=0) for part in range(len(goals))]) / there.sum(axis=0)
    return float(np.abs(held - np.asarray(goals)[:, None]).mean())


def _largest_first(shares: Float64[np.ndarray, "g a"], seed: int) -> Int64[np.ndarray, " g"]:
    sizes = np.floor(np.log2(np.maximum(np.linalg.norm(shares, axis=1), 1e-300)))
    shuffled = np.random.default_rng(seed).permutation(len(shares))
    return shuffled[np.argsort(-sizes[shuffled], kind="stable")]
