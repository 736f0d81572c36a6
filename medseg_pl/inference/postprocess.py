"""Post-processing of predicted masks, and the gain in Dice by which `medseg postprocess` chooses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.components import (
    fill_holes,
    keep_largest_component,
    measure_components,
    remove_small_components,
)
from medseg_pl.metrics.functional.overlap import count, dice
from medseg_pl.metrics.statistics.intervals import Values, bootstrap_interval, compute_selection_p, sum_groups

ALPHA = 0.025
"""One-sided: the 5 % of a two-sided test, of which only gains matter."""

FEWEST_PATIENTS = 6
"""With fewer patients no p is as small: one of 2^5 combinations of signs is more than 2.5 %."""


def apply_postprocess(
    mask: UInt8[np.ndarray, "m d h w"], geometry: Geometry, labels: LabelMap, postprocess: Mapping[str, PostProcessing]
) -> UInt8[np.ndarray, "m d h w"]:
    """Copy a predicted mask with each label post-processed in order.

    Where labels exclude each other, what a label loses becomes background, and it gains background alone.

    Args:
        mask: The prediction.
        geometry: Its grid.
        labels: The labels.
        postprocess: The post-processing of each label, by its name.
    """
    processed = mask.copy()
    for index, name in enumerate(labels.names):
        if (steps := postprocess.get(name)) is None:
            continue
        before = after = labels.plane(processed, index)
        # Holes first, so that a ring is judged by the size of what it encloses.
        if steps.fill_holes:
            after = fill_holes(after)
        if steps.minimum_size:
            after = remove_small_components(after, steps.minimum_size / voxel_size(geometry))
        if steps.largest_only:
            after = keep_largest_component(after)
        plane = processed[index] if labels.overlapping else processed[0]
        # Only what is background still: a filled hole takes nothing from another label.
        plane[before & ~after] = 0
        plane[after & (plane == 0)] = 1 if labels.overlapping else index + 1
    return processed


def voxel_size(geometry: Geometry) -> float:
    """Return the size of a voxel in the unit of `minimum_size`.

    It is a pixel's area in a case of one slice, else a voxel's volume; 1 if the spacing is unknown.
    """
    z, y, x = geometry.spacing_in_unit
    return y * x if geometry.shape[0] == 1 else z * y * x


@dataclass(frozen=True)
class DiceGain:
    """The change of a label's Dice by post-processing.

    Args:
        postprocess: The post-processing.
        before: Mean Dice without it; a case that has the label neither predicted nor annotated counts as 1.
        after: Mean Dice with it.
        interval: 95 % interval over patients of the mean difference; NaN where so few have none.
        cases: Number of cases.
        patients: Number of patients.
        tried: Number of candidates tried, of all labels.
        p: The chance of a gain as sure if nothing helps, corrected for all that were tried; 1 without a gain.
    """

    postprocess: PostProcessing
    before: float
    after: float
    interval: tuple[float, float]
    cases: int
    patients: int
    tried: int
    p: float

    @property
    def is_safe(self) -> bool:
        """Tell whether the mean is better, and not by chance."""
        return self.after > self.before and self.p <= ALPHA

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a file."""
        return {**asdict(self), "interval": None if math.isnan(self.interval[0]) else list(self.interval)}


def list_candidates(smallest: float | None) -> list[PostProcessing]:
    """List post-processing to try for a label, the first doing nothing.

    Args:
        smallest: The size of the smallest component ever annotated: anything below half of it is taken for noise.
            `None` if the label was never annotated.

    >>> [candidate.minimum_size for candidate in list_candidates(10.0)]
    [0.0, 0.0, 5.0, 0.0, 0.0, 5.0]
    """
    removals: list[dict[str, Any]] = [{}, {"largest_only": True}]
    if smallest is not None:
        removals.append({"minimum_size": smallest / 2})
    return [PostProcessing(fill_holes=fill, **removal) for fill, removal in product((False, True), removals)]


def measure_smallest_components(
    reference: UInt8[np.ndarray, "m d h w"], labels: LabelMap, geometry: Geometry
) -> list[float]:
    """Measure the smallest component of each label.

    Args:
        reference: The annotated mask, `(M, D, H, W)`.
        labels: The labels.
        geometry: The grid.

    Returns:
        Sizes in the unit of `minimum_size`; infinity where the label is absent.
    """
    sizes = (measure_components(labels.plane(reference, index)) for index in range(len(labels.names)))
    return [float(min(voxels, default=np.inf)) * voxel_size(geometry) for voxels in sizes]


def score_candidates(
    prediction: UInt8[np.ndarray, "m d h w"],
    reference: UInt8[np.ndarray, "m d h w"],
    geometry: Geometry,
    labels: LabelMap,
    index: int,
    tried: Sequence[PostProcessing],
) -> list[float]:
    """Compute the Dice of one label of a case with each candidate.

    Voxels that nobody annotated do not count.

    Args:
        prediction: The predicted mask, `(M, D, H, W)`.
        reference: The annotated mask.
        geometry: The grid of both.
        labels: The labels.
        index: The label, counted from 0.
        tried: The candidates.

    Returns:
        The Dice of each; 1 if the label is neither predicted nor annotated.
    """
    counted = ~labels.find_unannotated(reference, index)
    annotated = labels.plane(reference, index)
    scores = []
    for candidate in tried:
        mask = apply_postprocess(prediction, geometry, labels, {labels.names[index]: candidate})
        counts = count(labels.plane(mask, index) & counted, annotated)
        scores.append(dice(counts) if counts.prediction or counts.reference else 1.0)
    return scores


def choose_gains(
    tried: Sequence[Sequence[PostProcessing]], dices: Sequence[Float[np.ndarray, "n _"]], groups: Sequence[str]
) -> list[DiceGain]:
    """Choose the best candidate of each label, judged by mean Dice.

    It is the best among those that gain not by chance. If no gain is sure, the candidate with the highest mean is
    returned all the same, with its p.

    Args:
        tried: The candidates of each label, the first doing nothing.
        dices: For each label, the Dice of each case with each candidate.
        groups: The patient of each case.
    """
    # One test over all labels: with each label that is tried, chance has another try.
    gains = [scores - scores[:, :1] for scores in dices]
    columns = [Values(column, groups) for label in gains for column in label.T.tolist()]
    p_values = iter(compute_selection_p(sum_groups(columns).sums).tolist())
    number = sum(len(candidates) - 1 for candidates in tried)
    return [
        _choose_gain(candidates, scores, groups, [next(p_values) for _ in candidates], number)
        for candidates, scores in zip(tried, dices, strict=True)
    ]


def _choose_gain(
    tried: Sequence[PostProcessing],
    dices: Float[np.ndarray, "n t"],
    groups: Sequence[str],
    p: Sequence[float],
    number: int,
) -> DiceGain:
    """Choose a candidate of one label by p-values and means."""
    means = dices.mean(axis=0)
    sure = np.array(p) <= ALPHA
    chosen = int(np.where(sure, means, -np.inf).argmax() if sure.any() else means.argmax())
    gained = (dices[:, chosen] - dices[:, 0]).tolist()
    interval = bootstrap_interval(gained, groups) if chosen else (0.0, 0.0)
    before, after = float(means[0]), float(means[chosen])
    return DiceGain(tried[chosen], before, after, interval, len(dices), len(set(groups)), number, p[chosen])
