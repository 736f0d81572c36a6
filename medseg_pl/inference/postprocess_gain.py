"""Which cleaning helps a label, as far as validation cases can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.components import measure_components
from medseg_pl.inference.postprocess import apply_postprocess, voxel_size_in_unit
from medseg_pl.metrics.functional.overlap import count, dice
from medseg_pl.metrics.statistics.intervals import Values, bootstrap_interval, group_totals, selection_p

ALPHA = 0.025
"""One-sided: the 5 % of a two-sided test, of which only gains matter."""

FEWEST_PATIENTS = 6
"""With fewer no p is as small: of 2^5 combinations of signs one is more than 2.5 %."""


@dataclass(frozen=True)
class DiceGain:
    """What a cleaning does to the Dice of a label.

    Args:
        cleaning: The cleaning.
        before: Mean Dice without it; a case that has the label neither predicted nor annotated counts as 1.
        after: Mean Dice with it.
        interval: 95 % interval over patients of the mean difference; NaN with fewer than two of them.
        cases: How many.
        patients: Of how many patients.
        tried: How many cleanings were tried, of all labels.
        p: The chance of a gain as sure if nothing helps, corrected for all that were tried; 1 without a gain.
    """

    cleaning: PostProcessing
    before: float
    after: float
    interval: tuple[float, float]
    cases: int
    patients: int
    tried: int
    p: float

    @property
    def is_safe(self) -> bool:
        """Whether the mean is better, and not by chance."""
        return self.after > self.before and self.p <= ALPHA

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {**asdict(self), "interval": list(self.interval)}


def list_candidates(smallest: float | None) -> list[PostProcessing]:
    """The cleanings that are tried for a label.

    Args:
        smallest: The size of the smallest component that was ever annotated: what is smaller than half of it is taken
            for noise. `None` where the label was never annotated.

    >>> [cleaning.minimum_size for cleaning in list_candidates(10.0)]
    [0.0, 0.0, 5.0, 0.0, 0.0, 5.0]
    """
    removals: list[dict[str, Any]] = [{}, {"largest_only": True}]
    if smallest is not None:
        removals.append({"minimum_size": smallest / 2})
    return [PostProcessing(fill_holes=fill, **removal) for fill, removal in product((False, True), removals)]


def measure_smallest_components(
    reference: UInt8[np.ndarray, "m d h w"], labels: LabelMap, geometry: Geometry
) -> list[float]:
    """Find the smallest component of each label, in the unit of `minimum_size`; infinity without any."""
    sizes = (measure_components(labels.plane(reference, index)) for index in range(len(labels.names)))
    return [float(min(found, default=np.inf)) * voxel_size_in_unit(geometry) for found in sizes]


def score_candidates(
    prediction: UInt8[np.ndarray, "m d h w"],
    reference: UInt8[np.ndarray, "m d h w"],
    geometry: Geometry,
    labels: LabelMap,
    index: int,
    tried: Sequence[PostProcessing],
) -> list[float]:
    """The Dice of one label of a case with each cleaning; 1 where it is neither predicted nor annotated.

    Voxels that nobody annotated do not count.
    """
    counted = ~labels.unannotated(reference, index)
    annotated = labels.plane(reference, index)
    cleaned = (apply_postprocess(prediction, geometry, labels, {labels.names[index]: cleaning}) for cleaning in tried)
    return [_agreement(labels.plane(mask, index) & counted, annotated) for mask in cleaned]


def choose_gain(tried: Sequence[PostProcessing], dices: Float[np.ndarray, "n t"], groups: Sequence[str]) -> DiceGain:
    """Find the best cleaning of a single label, see `choose_gains`."""
    return choose_gains([tried], [dices], groups)[0]


def choose_gains(
    tried: Sequence[Sequence[PostProcessing]], dices: Sequence[Float[np.ndarray, "n _"]], groups: Sequence[str]
) -> list[DiceGain]:
    """Find the cleaning of each label with the highest mean Dice, among those that gain not by chance.

    Where no gain is sure, the cleaning with the highest mean is given all the same, with its p.

    Args:
        tried: The cleanings of each label, of which the first does nothing.
        dices: Of each label, those of each case with each of its cleanings.
        groups: The patient of each case.
    """
    gains = [scores - scores[:, :1] for scores in dices]
    columns = [Values(column, groups) for label in gains for column in label.T.tolist()]
    p_values = iter(selection_p(group_totals(columns).sums).tolist())
    number = sum(len(cleanings) - 1 for cleanings in tried)
    return [
        _best_gain(cleanings, scores, groups, [next(p_values) for _ in cleanings], number)
        for cleanings, scores in zip(tried, dices, strict=True)
    ]


def _best_gain(
    tried: Sequence[PostProcessing],
    dices: Float[np.ndarray, "n t"],
    groups: Sequence[str],
    p: Sequence[float],
    number: int,
) -> DiceGain:
    """Choose among the cleanings of one label, by their p-values and their means."""
    means = dices.mean(axis=0)
    sure = np.array(p) <= ALPHA
    chosen = int(np.where(sure, means, -np.inf).argmax() if sure.any() else means.argmax())
    gained = (dices[:, chosen] - dices[:, 0]).tolist()
    interval = bootstrap_interval(gained, groups) if chosen else (0.0, 0.0)
    before, after = float(means[0]), float(means[chosen])
    return DiceGain(tried[chosen], before, after, interval, len(dices), len(set(groups)), number, p[chosen])


def _agreement(prediction: Bool[np.ndarray, "d h w"], reference: Bool[np.ndarray, "d h w"]) -> float:
    counts = count(prediction, reference)
    return dice(counts) if counts.prediction or counts.reference else 1.0
