"""Evidence against a mask: what its probabilities, other models and another mask say of each label.

Strengths run from 0, nothing to see, to 1.

References:
    Borges et al., "Soft Dice Confidence: a near-optimal confidence estimator for selective prediction in semantic
    segmentation", 2024, for `expected_dice`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.functional.overlap import count, dice

_DICE_GAIN = 0.2
"""Moving or exchanging a label explains a difference if it improves the Dice by this much."""

_SIZE_RATIO = 1.5


class Evidence(NamedTuple):
    """A piece of evidence against a label of a case.

    Attributes:
        strength: From 0 to 1; NaN if unknown.
        words: An explanation for a person.
    """

    strength: float
    words: str


class LabelEvidence(NamedTuple):
    """The evidence of one case against one label.

    Attributes:
        evidence: By its kind.
        size: Volume of the label in ml, or voxels without a spacing; cases are compared by it.
        size_words: The size for a person.
    """

    evidence: dict[str, Evidence]
    size: float
    size_words: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        evidence = {
            kind: [None if math.isnan(each.strength) else each.strength, each.words]
            for kind, each in self.evidence.items()
        }
        return {"signs": evidence, "size": self.size, "size_words": self.size_words}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelEvidence:
        """Read what `as_dict` returned."""
        evidence = {
            kind: Evidence(math.nan if strength is None else strength, words)
            for kind, (strength, words) in content["signs"].items()
        }
        return cls(evidence, content["size"], content["size_words"])


class CaseEvidence(NamedTuple):
    """The evidence of one case against its mask.

    Attributes:
        labels: For each label.
        slice: The slice to look at first.
    """

    labels: list[LabelEvidence]
    slice: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"slice": self.slice, "labels": [label.as_dict() for label in self.labels]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CaseEvidence:
        """Read what `as_dict` returned."""
        return cls([LabelEvidence.from_dict(label) for label in content["labels"]], content["slice"])


def assess_prediction(
    labels: LabelMap,
    mask: UInt8[np.ndarray, "m d h w"],
    probabilities: Float[np.ndarray, "k d h w"],
    member_masks: Sequence[UInt8[np.ndarray, "m d h w"]],
    geometry: Geometry,
) -> CaseEvidence:
    """Find evidence against a prediction in its probabilities and members.

    The kinds are `doubt` of the probabilities and `disagreement` of the models.

    Args:
        labels: The labels.
        mask: The prediction.
        probabilities: `(K, D, H, W)` that it was decided by.
        member_masks: Predictions of each model, or of each view of the image, alone.
        geometry: The grid.
    """
    found, doubts = [], np.zeros(geometry.shape[0])
    for index in range(len(labels.names)):
        plane, probability = labels.plane(mask, index), labels.probability(probabilities, index)
        # The variance of each voxel, summed over labels: the slice of which least is known.
        doubts += (probability * (1 - probability)).sum(axis=(1, 2))
        expected = expected_dice(probability, plane)
        agreed = agreement([labels.plane(member, index) for member in member_masks], plane)
        evidence = {
            "disagreement": Evidence(1 - agreed, f"models agree on it with a Dice of {agreed:.2f}"),
            "doubt": Evidence(1 - expected, f"a Dice of {expected:.2f} is to be expected by its probabilities"),
        }
        found.append(_add_size(evidence, int(np.count_nonzero(plane)), geometry))
    return CaseEvidence(found, int(doubts.argmax()))


def assess_reference(
    labels: LabelMap,
    reference: UInt8[np.ndarray, "m d h w"],
    mask: UInt8[np.ndarray, "m d h w"],
    probabilities: Float[np.ndarray, "k d h w"],
    geometry: Geometry,
    annotated: Sequence[str] | None = None,
) -> CaseEvidence:
    """Find evidence against a reference in a model's prediction.

    The model must not be trained on the case. `surprise` is the Dice that the model expects of its own mask, less the
    Dice that it expects of the reference: 0 if both are alike, and small if the model itself is in doubt.

    Args:
        labels: The labels.
        reference: The annotated mask, `(M, D, H, W)`.
        mask: The prediction.
        probabilities: `(K, D, H, W)` that it was decided by.
        geometry: The grid.
        annotated: The labels that were annotated, all where `None`; there is no evidence against others.
    """
    looked_for = labels.find_annotated(annotated)
    drawn, predicted = labels.planes(reference), labels.planes(mask)
    predicted[np.invert(looked_for)] = False
    found = []
    for index, is_annotated in enumerate(looked_for):
        if not is_annotated:
            found.append(_add_size({"surprise": Evidence(0.0, "was not looked for")}, 0, geometry))
            continue
        counted = ~labels.find_unannotated(reference, index)
        # Voxels that nobody annotated must not count as drawn background.
        probability = np.where(counted, labels.probability(probabilities, index), 0)
        expected = expected_dice(probability, predicted[index] & counted)
        surprise = max(0.0, expected - expected_dice(probability, drawn[index]))
        words = describe_discrepancy(drawn, predicted & counted, index, list(labels.names), geometry)
        found.append(_add_size({"surprise": Evidence(surprise, words)}, int(np.count_nonzero(drawn[index])), geometry))
    differing = (drawn != predicted).sum(axis=(0, 2, 3))
    return CaseEvidence(found, int(differing.argmax()))


def _add_size(evidence: dict[str, Evidence], voxels: int, geometry: Geometry) -> LabelEvidence:
    voxel = 1.0 if geometry.voxel_ml is None else geometry.voxel_ml
    return LabelEvidence(evidence, voxels * voxel, format_size(voxels, geometry))


def expected_dice(probability: Float[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"]) -> float:
    r"""Estimate the Dice of a mask if its probabilities are right.

    $$\frac{2 \sum_{i \in M} p_i}{|M| + \sum_i p_i}$$

    An empty mask is right, with a Dice of 1, if nothing is there, and wrong, with 0, if anything is: the chance of the
    former is at most `1 - max p`.

    Args:
        probability: `p`, of the label, in [0, 1].
        mask: `M`, the voxels that were given the label.

    >>> expected_dice(np.array([1.0, 0.5, 0.5, 0.0]), np.array([True, True, False, False]))
    0.75
    >>> expected_dice(np.array([0.25, 0.125]), np.array([False, False]))
    0.75
    """
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return 1.0 - float(probability.max(initial=0))
    # In 64 bits: half precision overflows at 65,504 voxels.
    inside = float(probability.sum(where=mask, dtype=np.float64))
    return 2 * inside / (voxels + float(probability.sum(dtype=np.float64)))


def agreement(others: Sequence[Bool[np.ndarray, "*shape"]], mask: Bool[np.ndarray, "*shape"]) -> float:
    """Average the Dice of a mask with others of its image.

    Two empty masks agree with 1. The mean is NaN without others.

    >>> mask, half = np.array([True, True, False]), np.array([True, False, False])
    >>> agreement([mask, half], mask)
    0.8333333333333333
    """
    return float(np.mean([_dice(other, mask) for other in others])) if others else math.nan


def describe_discrepancy(
    drawn: Bool[np.ndarray, "n d h w"],
    predicted: Bool[np.ndarray, "n d h w"],
    index: int,
    names: list[str],
    geometry: Geometry,
) -> str:
    """Describe how a label was drawn differently than predicted.

    The plainest explanation comes first.

    Args:
        drawn: The reference of all labels.
        predicted: The prediction of all labels.
        index: The label.
        names: The names of all labels.
        geometry: The grid of both.
    """
    reference, prediction = drawn[index], predicted[index]
    voxels, predicted_voxels = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    if not voxels and not predicted_voxels:
        return "is neither drawn nor predicted"
    if not voxels:
        return f"is not drawn, where {format_size(predicted_voxels, geometry)} are predicted"
    if not predicted_voxels:
        return f"is not predicted, where {format_size(voxels, geometry)} are drawn"
    # Exchanged, moved, resized: each is tried before the plain disagreement is reported.
    overlap = _dice(reference, prediction)
    for other, name in enumerate(names):
        if other != index and _dice(reference, predicted[other]) > overlap + _DICE_GAIN:
            return f"is drawn where {name} is predicted"
    centers = [np.array([indices.mean() for indices in np.nonzero(mask)]) for mask in (reference, prediction)]
    step: NDArray[np.int64] = np.rint(centers[1] - centers[0]).astype(np.int64)
    if step.any() and _dice(_shift(reference, step), prediction) > overlap + _DICE_GAIN:
        distance = np.linalg.norm(step * np.asarray(geometry.spacing_in_unit))
        return f"is drawn {distance:.3g} {geometry.unit} from where it is predicted"
    ratio = voxels / predicted_voxels
    if max(ratio, 1 / ratio) >= _SIZE_RATIO:
        return f"is drawn {ratio:.2g} times as large as it is predicted"
    return f"is drawn with a Dice of {overlap:.2f} to the prediction"


def format_size(voxels: int, geometry: Geometry) -> str:
    """Format a volume, or a number of pixels without a spacing.

    >>> format_size(2000, Geometry((10, 20, 20), (2.0, 1.0, 1.0)))
    '4 ml'
    """
    return f"{voxels} pixels" if geometry.voxel_ml is None else f"{voxels * geometry.voxel_ml:.3g} ml"


def _dice(first: Bool[np.ndarray, "*shape"], second: Bool[np.ndarray, "*shape"]) -> float:
    """Return the Dice of two masks, 1 if both are empty."""
    value = dice(count(first, second))
    return 1.0 if math.isnan(value) else value


def _shift(mask: NDArray[np.bool_], step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Move a mask by whole voxels, and lose what leaves the image."""
    shifted = np.zeros_like(mask)
    source = tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(step.tolist(), mask.shape, strict=True))
    target = tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(step.tolist(), mask.shape, strict=True))
    shifted[target] = mask[source]
    return shifted
