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
from medseg_pl.functional.components import component_sizes
from medseg_pl.functional.overlap import count, dice
from medseg_pl.functional.statistics import bootstrap_interval
from medseg_pl.inference.postprocess import Cleaning, clean, voxel_size


@dataclass(frozen=True)
class Gain:
    """What a cleaning does to the Dice of a label.

    Args:
        cleaning: The cleaning.
        before: Mean Dice without it; a case that has the label neither predicted nor annotated counts as 1.
        after: Mean Dice with it.
        interval: 95 % interval over patients of the mean difference; NaN with fewer than two of them.
        cases: How many.
    """

    cleaning: Cleaning
    before: float
    after: float
    interval: tuple[float, float]
    cases: int

    @property
    def is_safe(self) -> bool:
        """Whether the mean is better, and no worse at the lower end of the interval."""
        return self.after > self.before and self.interval[0] >= 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {**asdict(self), "interval": list(self.interval)}


def candidates(smallest: float | None) -> list[Cleaning]:
    """The cleanings that are tried for a label.

    Args:
        smallest: The size of the smallest component that was ever annotated: what is smaller than half of it is taken
            for noise. `None` where the label was never annotated.

    >>> [cleaning.minimum_size for cleaning in candidates(10.0)]
    [0.0, 0.0, 5.0, 0.0, 0.0, 5.0]
    """
    removals: list[dict[str, Any]] = [{}, {"largest_only": True}]
    if smallest is not None:
        removals.append({"minimum_size": smallest / 2})
    return [Cleaning(fill_holes=fill, **removal) for fill, removal in product((False, True), removals)]


def smallest_component(reference: UInt8[np.ndarray, "m d h w"], labels: LabelMap, geometry: Geometry) -> list[float]:
    """The size of the smallest component of each label, in the unit of `Cleaning.minimum_size`; infinity without."""
    sizes = (component_sizes(labels.plane(reference, index)) for index in range(len(labels.names)))
    return [float(min(found, default=np.inf)) * voxel_size(geometry) for found in sizes]


def agreements(
    prediction: UInt8[np.ndarray, "m d h w"],
    reference: UInt8[np.ndarray, "m d h w"],
    geometry: Geometry,
    labels: LabelMap,
    index: int,
    tried: Sequence[Cleaning],
) -> list[float]:
    """The Dice of one label of a case with each cleaning; 1 where it is neither predicted nor annotated.

    Voxels that nobody annotated do not count.
    """
    counted = ~labels.unannotated(reference, index)
    annotated = labels.plane(reference, index)
    cleaned = (clean(prediction, geometry, labels, {labels.names[index]: cleaning}) for cleaning in tried)
    return [_agreement(labels.plane(mask, index) & counted, annotated) for mask in cleaned]


def best_gain(tried: Sequence[Cleaning], dices: Float[np.ndarray, "n t"], groups: Sequence[str]) -> Gain:
    """The cleaning with the highest mean Dice, and what it gains on the first one, which does nothing.

    Args:
        tried: The cleanings.
        dices: Of each case with each of them.
        groups: The patient of each case.
    """
    means = dices.mean(axis=0)
    chosen = int(means.argmax())
    gained = (dices[:, chosen] - dices[:, 0]).tolist()
    interval = bootstrap_interval(gained, groups) if chosen else (0.0, 0.0)
    return Gain(tried[chosen], float(means[0]), float(means[chosen]), interval, len(dices))


def _agreement(prediction: Bool[np.ndarray, "d h w"], reference: Bool[np.ndarray, "d h w"]) -> float:
    counts = count(prediction, reference)
    return dice(counts) if counts.prediction or counts.reference else 1.0
