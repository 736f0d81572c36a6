"""Choice among several candidates on a few patients, corrected for how many were tried."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int8

FLIPS = 4096
"""The most combinations of signs to try: all of them with up to 12 patients."""


def selection_p(gains: Float64[np.ndarray, "g t"], *, flips: int = FLIPS, seed: int = 0) -> Float64[np.ndarray, " t"]:
    """Compute one-sided p-values of candidates that gain nothing, corrected for all candidates.

    If a candidate gains nothing, the gain of each patient could as well have had the other sign. All candidates of a
    patient change sign together, so the correction knows how alike they are. Each combination of signs gives every
    candidate a p-value of its own; the corrected one is the share of combinations whose smallest p-value is as small.

    Args:
        gains: The sum of the gains of each patient, for each candidate.
        flips: The most combinations of signs; they are drawn where there are more.
        seed: Makes p a function of the data alone.

    References:
        Westfall and Young, "Resampling-based multiple testing", 1993 (min-P); Phipson and Smyth, "Permutation p-values
        should never be zero", Statistical Applications in Genetics and Molecular Biology 9:39, 2010.

    >>> selection_p(np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]))  # one of eight combinations is as good
    array([0.125, 1.   ])
    """
    scale = np.abs(gains).sum(axis=0)
    # Rounded, so that equal sums stay equal whatever the order in which a processor adds them.
    sums = np.round(_signs(len(gains), flips, seed) @ (gains / np.where(scale > 0, scale, 1.0)), 9)
    above = [len(column) - np.searchsorted(np.sort(column), column) for column in sums.T]
    p_values = np.stack(above, axis=1) / len(sums)
    least = np.sort(p_values.min(axis=1, initial=1.0))
    corrected: Float64[np.ndarray, " t"] = np.searchsorted(least, p_values[0], side="right") / len(sums)
    return corrected


def _signs(groups: int, flips: int, seed: int) -> Int8[np.ndarray, "f g"]:
    """Make all combinations of signs, or as many as wanted; the first flips nothing."""
    if groups < 63 and 2**groups <= flips:
        bits = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(flips, groups))
        bits[0] = 0
    return (1 - 2 * bits).astype(np.int8)
