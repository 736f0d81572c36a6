"""Objects of whole cases: found, missed and invented, as columns of a case and as rows of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, apply_empty_mask_rule, gather_from_ranks
from medseg_pl.metrics.functional.lesions import average_lesions, measure_lesions
from medseg_pl.metrics.functional.matching import (
    Matching,
    MatchingMode,
    count_disagreement,
    match_objects,
    panoptic_quality,
    segmentation_quality,
)
from medseg_pl.metrics.functional.objects import Connectivity, Objects, count_overlaps, find_objects
from medseg_pl.metrics.functional.overlap import dice, precision, recall
from medseg_pl.metrics.functional.surface import measure_diagonal

ObjectRow = Mapping[str, str | int | float]
MATCHED, MISSED, INVENTED = "matched", "missed", "invented"

OBJECT_COLUMNS = (
    *("case_id", "group", "label", "mask", "object", "status", "partner", "voxels", "volume_ml", "diameter"),
    *("z", "y", "x", "iou", "dice", "center_distance", "unit"),
)
"""The columns of a table of objects; `confidence` follows where it was asked for."""

_FORMULAS = {
    "sensitivity": lambda matching: recall(matching.counts),
    "precision": lambda matching: precision(matching.counts),
    "f1": lambda matching: dice(matching.counts),
    "sq": segmentation_quality,
    "pq": panoptic_quality,
}


@dataclass(frozen=True)
class ObjectTable:
    """The objects of all cases, and the bins of their sizes.

    Args:
        rows: One for each object of reference and prediction, sorted by case, label, mask and number.
        size_bins_ml: Limits between sizes, for recall by size; quartiles where there are none.
    """

    rows: Sequence[ObjectRow]
    size_bins_ml: Sequence[float] = ()


class ObjectMetric(CaseMetric):
    r"""Objects of each label: how many were found, how many invented.

    An object is a connected component.

    Objects are matched by IoU, see `medseg_pl.metrics.functional.matching.match_objects`. With $TP$ the objects found,
    $FN$ those missed and $FP$ those invented, for each threshold of IoU (its suffix is in percent; none for > 0):

    - `object_sensitivity` $= TP / (TP + FN)$, `object_precision` $= TP / (TP + FP)$,
      `object_f1` $= 2TP / (2TP + FP + FN)$, which is called RQ beside the two that follow;
    - `object_sq`, the mean IoU of what was found, and `object_pq` = SQ × RQ, the panoptic quality;
    - `objects_tp`, `objects_fp`; `objects_reference` and `objects_prediction` count all.

    `count_error` is $|P - R| / \max(P, R)$ of the numbers of objects. `lesion_dice` and `lesion_hd95` follow BraTS,
    see `medseg_pl.metrics.functional.lesions`; a missed or invented lesion is the image's diagonal away.

    Both masks empty: NaN, and no objects. Exactly one empty: `count_error` 1, distances the diagonal, the others 0.
    Voxels that the reference leaves open (255) are in neither mask.

    Args:
        labels: The labels that are scored.
        thresholds: Least IoU of a match, in whole percent; 0 asks for one shared voxel. The first one decides what
            the table of objects calls matched.
        matching: Whether several predicted objects together may stand for one of the reference.
        connectivity: Whether voxels that touch at a corner are one object.
        lesion_dilation: By how many voxels lesions are dilated for `lesion_dice`; BraTS 2023 has 3 for gliomas.
        lesion_minimum: Lesions of this volume in mm³ (mm² of one slice, voxels without spacing) or less do not count
            for `lesion_dice`; BraTS 2023 has 50.
        size_bins_ml: Limits between sizes for recall by size; quartiles by default.
        confidence: Whether each predicted object gets its largest probability, which the summary makes points of a
            FROC curve from; cases then come with probabilities, which take more memory.

    Raises:
        SettingError: There is no threshold, or one is no whole percentage, or a size is negative.

    References:
        Kirillov et al., "Panoptic segmentation", CVPR 2019.
        Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024.
        Moawad et al., "The brain tumor segmentation (BraTS-METS) challenge 2023", arXiv:2306.00838, 2023.
    """

    in_training = False

    def __init__(
        self,
        labels: LabelMap,
        thresholds: Sequence[float] = (0.0, 0.5),
        matching: MatchingMode = "one_to_one",
        connectivity: Connectivity = "full",
        lesion_dilation: int = 0,
        lesion_minimum: float = 0.0,
        size_bins_ml: Sequence[float] = (),
        confidence: bool = False,
    ) -> None:
        super().__init__(labels)
        self.thresholds = {_make_suffix(threshold): threshold for threshold in thresholds}
        if not self.thresholds or min(lesion_dilation, lesion_minimum, *size_bins_ml, 0) < 0:
            raise SettingError("ObjectMetric needs a threshold, and no negative size. Correct its settings.")
        self.matching: MatchingMode = matching
        self.connectivity: Connectivity = connectivity
        self.lesion_dilation = lesion_dilation
        self.lesion_minimum = lesion_minimum
        self.size_bins_ml = sorted(size_bins_ml)
        self.needs_probabilities = confidence
        self._objects: list[tuple[str, int, list[ObjectRow]]] = []

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the columns of a label, and keep its objects."""
        reference, prediction = (find_objects(mask, self.connectivity) for mask in (pair.reference, pair.prediction))
        overlaps = count_overlaps(reference, prediction)
        matchings = {
            suffix: match_objects(overlaps, threshold, self.matching) for suffix, threshold in self.thresholds.items()
        }
        first = next(iter(matchings.values()))
        confidences = prediction.find_maxima(pair.probability) if self.needs_probabilities else None
        rows = list(_list_rows(pair, reference, prediction, first, confidences))
        self._objects.append((pair.case.case_id, pair.index, rows))
        counts = {"objects_reference": reference.total, "objects_prediction": prediction.total}
        for suffix, matching in matchings.items():
            counts |= {f"objects_tp{suffix}": matching.counts.tp, f"objects_fp{suffix}": matching.counts.fp}
        geometry = pair.case.geometry
        far = measure_diagonal(geometry.shape, geometry.spacing_in_unit)
        scores = dict.fromkeys((f"object_{name}{suffix}" for suffix in matchings for name in _FORMULAS), 0.0)
        worst = {**scores, "count_error": 1.0, "lesion_dice": 0.0, "lesion_hd95": far}
        return {**counts, **apply_empty_mask_rule(pair, worst, lambda: self._compute(pair, matchings, far))}

    def objects(self) -> list[ObjectRow]:
        """Collect the objects of all processes; each must call it.

        They are sorted by case and label.
        """
        gathered = sorted(gather_from_ranks(self._objects), key=lambda entry: entry[:2])
        return [row for _, _, rows in gathered for row in rows]

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self._objects = []

    def _compute(self, pair: LabelPair, matchings: Mapping[str, Matching], far: float) -> dict[str, float]:
        first = next(iter(matchings.values()))
        return {
            **{
                f"object_{name}{suffix}": float(formula(matching))
                for suffix, matching in matchings.items()
                for name, formula in _FORMULAS.items()
            },
            "count_error": count_disagreement(len(first.iou), len(first.assigned)),
            **self._score_lesions(pair, far),
        }

    def _score_lesions(self, pair: LabelPair, far: float) -> dict[str, float]:
        spacing = pair.case.geometry.spacing_in_unit
        flat = len(pair.reference) == 1
        lesions = measure_lesions(pair.prediction, pair.reference, spacing, self.lesion_dilation)
        # The volume of a slice's lesion is its area.
        minimum = self.lesion_minimum * (spacing[0] if flat else 1.0)
        lesion_dice, distance = average_lesions(lesions, far, minimum)
        # Nothing but lesions too small to count, and nothing invented: BraTS takes it for perfect.
        if math.isnan(lesion_dice):
            lesion_dice, distance = 1.0, 0.0
        return {"lesion_dice": lesion_dice, "lesion_hd95": distance}


def collect_objects(metrics: Sequence[CaseMetric]) -> ObjectTable | None:
    """Collect the objects of all processes from the metric that keeps them.

    Returns:
        `None` where no metric keeps objects.
    """
    for metric in metrics:
        if isinstance(metric, ObjectMetric):
            return ObjectTable(metric.objects(), metric.size_bins_ml)
    return None


def _make_suffix(threshold: float) -> str:
    """Make the suffix of a threshold's columns.

    >>> _make_suffix(0.0), _make_suffix(0.5)
    ('', '_50')
    """
    percent = round(100 * threshold)
    if not 0 <= percent <= 100 or not math.isclose(percent, 100 * threshold, abs_tol=1e-9):
        raise SettingError(
            f"ObjectMetric: thresholds must be from 0 to 1 in whole percent; got {threshold}. Use such as 0.5."
        )
    return f"_{percent}" if percent else ""


def _list_rows(
    pair: LabelPair,
    reference: Objects,
    prediction: Objects,
    matching: Matching,
    confidences: NDArray[np.float64] | None,
) -> Iterator[ObjectRow]:
    """List a case's objects of one label, the reference's first."""
    where = {"case_id": pair.case.case_id, "group": pair.case.group, "label": pair.label}
    unit = pair.case.geometry.unit
    apart = _measure_centers_apart(reference, prediction, matching, pair.case.geometry)
    partners: dict[int, list[int]] = {}
    for index, owner in enumerate(matching.assigned.tolist()):
        partners.setdefault(owner, []).append(index)
    for mask, objects, unmatched in (("reference", reference, MISSED), ("prediction", prediction, INVENTED)):
        measured = _measure_objects(objects, pair.case.geometry)
        for index in range(objects.total):
            owner = index if mask == "reference" else int(matching.assigned[index])
            others = partners.get(index, []) if mask == "reference" else [owner] if owner >= 0 else []
            status = MATCHED if others else unmatched
            row = {
                **where,
                "mask": mask,
                "object": index + 1,
                "status": status,
                "partner": " ".join(str(other + 1) for other in others),
                **{name: values[index].item() for name, values in measured.items()},
                "iou": float(matching.iou[owner]) if others else 0.0,
                "dice": float(matching.dice[owner]) if others else 0.0,
                "center_distance": float(apart[owner]) if others else math.nan,
                "unit": unit,
            }
            if confidences is not None:
                row["confidence"] = float(confidences[index]) if mask == "prediction" else math.nan
            yield row


def _measure_objects(objects: Objects, geometry: Geometry) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Measure size and position of each object, positions in voxel indices."""
    voxel_ml = math.nan if geometry.voxel_ml is None else geometry.voxel_ml
    z, y, x = objects.centers.T
    return {
        "voxels": objects.sizes,
        "volume_ml": objects.sizes * voxel_ml,
        "diameter": objects.measure_diameters(geometry.spacing_in_unit),
        "z": z,
        "y": y,
        "x": x,
    }


def _measure_centers_apart(
    reference: Objects, prediction: Objects, matching: Matching, geometry: Geometry
) -> NDArray[np.float64]:
    """Measure each reference object's distance to the center of its match."""
    given = matching.assigned >= 0
    weights = np.zeros(reference.total)
    sums = np.zeros((reference.total, 3))
    np.add.at(weights, matching.assigned[given], prediction.sizes[given])
    np.add.at(sums, matching.assigned[given], prediction.centers[given] * prediction.sizes[given, None])
    with np.errstate(invalid="ignore"):
        offsets = (sums / weights[:, None] - reference.centers) * geometry.spacing_in_unit
    return np.asarray(np.sqrt((offsets**2).sum(axis=1)))
