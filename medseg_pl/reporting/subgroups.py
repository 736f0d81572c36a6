"""Where scores differ: by what is known of the cases, and by the size of what was to be found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from medseg_pl.metrics.statistics.intervals import describe
from medseg_pl.reporting.run import Run, read_number

_FEWEST = 6
"""Rows of a label below which thirds of it say nothing."""


class Subgroup(NamedTuple):
    """Some of the cases.

    Attributes:
        kind: What they have in common: `site`, or `size of liver`.
        value: Which of its values they have.
        cases: How many there are.
        mean: Their mean Dice over labels.
        labels: The mean and the interval of each label, `None` where it has none.
    """

    kind: str
    value: str
    cases: int
    mean: float | None
    labels: dict[str, tuple[float, Any] | None]


def list_strata(run: Run) -> list[Subgroup]:
    """Those of the summary, such as sites and scanners."""
    found = []
    strata = run.summary.get("strata")
    for kind, values in strata.items() if isinstance(strata, Mapping) else ():
        for value, part in values.items():
            labels = {label: _described(part["labels"].get(label, {}).get("dice")) for label in run.labels}
            found.append(Subgroup(kind, value, part["n_cases"], part["foreground_mean"].get("dice"), labels))
    return found


def list_size_thirds(run: Run) -> list[Subgroup]:
    """Thirds of each label by the volume of its reference; labels that few cases have are left out."""
    return [stratum for label in run.labels for stratum in _thirds(run, label)]


def find_weakest(strata: list[Subgroup]) -> Subgroup | None:
    """The value with the lowest mean of a kind that has several."""
    kinds = [stratum.kind for stratum in strata]
    several = [each for each in strata if each.mean is not None and kinds.count(each.kind) > 1]
    return min(several, key=lambda each: each.mean or 0.0, default=None)


def _thirds(run: Run, label: str) -> list[Subgroup]:
    rows = [
        (read_number(row, "volume_reference_ml"), dice, str(row["group"])) for row, dice in run.values(label, "dice")
    ]
    rows = sorted(row for row in rows if row[0] > 0)
    if len(rows) < _FEWEST:
        return []
    found = []
    for name, places in zip(("smallest", "middle", "largest"), np.array_split(np.arange(len(rows)), 3), strict=True):
        part = [rows[place] for place in places]
        described = describe([dice for _, dice, _ in part], [group for _, _, group in part])
        value = f"{name} third, {part[0][0]:.3g} to {part[-1][0]:.3g} ml"
        mean = _described(described)
        found.append(Subgroup(f"size of {label}", value, len(part), mean and mean[0], {label: mean}))
    return found


def _described(fields: Mapping[str, Any] | None) -> tuple[float, Any] | None:
    return None if not fields or fields.get("mean") is None else (float(fields["mean"]), fields.get("ci95"))
