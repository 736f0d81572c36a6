"""HD, HD95, ASSD and NSD of whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, apply_empty_mask_rule
from medseg_pl.metrics.functional.surface import (
    assd,
    hausdorff,
    hd95,
    measure_diagonal,
    nsd,
    surface_distances,
)


class SurfaceMetric(CaseMetric):
    r"""Distances between the borders of two masks, on the native grid.

    With $d(a, B)$ the distance from a border voxel $a$ of the one mask to the nearest border voxel of the other:

    - `hd_mm` $= \max(\max_{p} d(p, R), \max_{r} d(r, P))$, the Hausdorff distance;
    - `hd95_mm`, the same with 95th percentiles (linear interpolation) in place of the inner maxima;
    - `assd_mm`, the mean of $d$ over all border voxels of both masks;
    - `nsd`, the share of them with $d \le$ tolerance.

    Both masks empty: NaN. Exactly one empty: NSD 0, and distances as long as the image's diagonal. Distances are in
    mm, or, where the spacing is unknown, in pixels; the column `unit` says which. Voxels that the reference leaves
    open (255) are in neither mask.

    Args:
        labels: The labels that are scored.
        tolerance: How far apart borders may be that count as the same for NSD: one number, or one for each label, in
            the unit of the distances. Two annotators differ by as much.

    Raises:
        SettingError: A tolerance is negative or infinite, or not given for each label.

    References:
        Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024.
        Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", JMIR 23(7), 2021.
    """

    in_training = False

    def __init__(self, labels: LabelMap, tolerance: float | Mapping[str, float] = 1.0) -> None:
        super().__init__(labels)
        self.tolerance = _expand_tolerance(labels, tolerance)

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the four scores of a label."""
        geometry = pair.case.geometry
        far = measure_diagonal(geometry.shape, geometry.spacing_in_unit)
        worst = {"hd_mm": far, "hd95_mm": far, "assd_mm": far, "nsd": 0.0}
        return apply_empty_mask_rule(pair, worst, lambda: self._measure(pair))

    def _measure(self, pair: LabelPair) -> dict[str, float]:
        distances = surface_distances(pair.prediction, pair.reference, pair.case.geometry.spacing_in_unit)
        return {
            "hd_mm": hausdorff(distances),
            "hd95_mm": hd95(distances),
            "assd_mm": assd(distances),
            "nsd": nsd(distances, self.tolerance[pair.label]),
        }


def _expand_tolerance(labels: LabelMap, tolerance: float | Mapping[str, float]) -> dict[str, float]:
    given = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(labels.names, tolerance)
    if set(given) != set(labels.names):
        raise SettingError(
            f"The tolerance of NSD names {', '.join(given) or 'no label'}; expected one number, or one for each of the "
            f"labels {', '.join(labels.names)}."
        )
    wrong = [name for name, value in given.items() if not 0 <= value < math.inf]
    if wrong:
        raise SettingError(
            f"The tolerance of NSD must be finite and not negative; got {given[wrong[0]]} for {wrong[0]}."
        )
    return {name: float(given[name]) for name in labels.names}
