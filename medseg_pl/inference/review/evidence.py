"""What speaks against each label of a case, as far as the case alone tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.inference.review.discrepancy import describe_discrepancy, format_size
from medseg_pl.inference.review.scores import agreement, expected_dice


class Evidence(NamedTuple):
    """One thing that speaks against a label of a case.

    Attributes:
        strength: From 0 to 1; NaN where it is unknown.
        words: What it is, for a person.
    """

    strength: float
    words: str


class LabelEvidence(NamedTuple):
    """All that one case alone says of one label.

    Attributes:
        signs: By their names.
        size: How much of the label there is; cases are compared by it.
        size_words: The same for a person.
    """

    signs: dict[str, Evidence]
    size: float
    size_words: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        signs = {name: [None if math.isnan(s.strength) else s.strength, s.words] for name, s in self.signs.items()}
        return {"signs": signs, "size": self.size, "size_words": self.size_words}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelEvidence:
        """What `as_dict` gave."""
        signs = {
            name: Evidence(math.nan if strength is None else strength, words)
            for name, (strength, words) in content["signs"].items()
        }
        return cls(signs, content["size"], content["size_words"])


class CaseEvidence(NamedTuple):
    """All that one case says of itself.

    Attributes:
        labels: Of each label.
        slice: Where to look first.
    """

    labels: list[LabelEvidence]
    slice: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"slice": self.slice, "labels": [label.as_dict() for label in self.labels]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CaseEvidence:
        """What `as_dict` gave."""
        return cls([LabelEvidence.from_dict(label) for label in content["labels"]], content["slice"])


def assess_prediction(
    labels: LabelMap,
    mask: UInt8[np.ndarray, "m d h w"],
    probabilities: Float[np.ndarray, "k d h w"],
    votes: Sequence[UInt8[np.ndarray, "m d h w"]],
    geometry: Geometry,
) -> CaseEvidence:
    """What speaks against a prediction, for each label: `doubt` of its probabilities, `disagreement` of its models.

    Args:
        labels: The labels.
        mask: The prediction.
        probabilities: What it was decided by.
        votes: What models, or views of the image, predict alone.
        geometry: The grid.
    """
    found, doubts = [], np.zeros(geometry.shape[0])
    for index in range(len(labels.names)):
        plane, probability = labels.plane(mask, index), labels.probability(probabilities, index)
        doubts += (probability * (1 - probability)).sum(axis=(1, 2))
        expected = expected_dice(probability, plane)
        agreed = agreement([labels.plane(vote, index) for vote in votes], plane)
        signs = {
            "disagreement": Evidence(1 - agreed, f"models agree on it with a Dice of {agreed:.2f}"),
            "doubt": Evidence(1 - expected, f"a Dice of {expected:.2f} is to be expected by its probabilities"),
        }
        found.append(_with_size(signs, int(np.count_nonzero(plane)), geometry))
    return CaseEvidence(found, int(doubts.argmax()))


def assess_reference(
    labels: LabelMap,
    reference: UInt8[np.ndarray, "m d h w"],
    mask: UInt8[np.ndarray, "m d h w"],
    probabilities: Float[np.ndarray, "k d h w"],
    geometry: Geometry,
) -> CaseEvidence:
    """What speaks against a reference, for each label, by the prediction of a model that was not trained on it.

    `surprise` is the Dice that the model expects of its own mask, less the Dice that it expects of the reference:
    none where both are alike, and little where the model itself is in doubt.
    """
    drawn, predicted = labels.planes(reference), labels.planes(mask)
    found = []
    for index in range(len(labels.names)):
        counted = ~labels.unannotated(reference, index)
        probability = np.where(counted, labels.probability(probabilities, index), 0)
        own = expected_dice(probability, predicted[index] & counted)
        surprise = max(0.0, own - expected_dice(probability, drawn[index]))
        words = describe_discrepancy(drawn, predicted & counted, index, list(labels.names), geometry)
        found.append(_with_size({"surprise": Evidence(surprise, words)}, int(np.count_nonzero(drawn[index])), geometry))
    differing = (drawn != predicted).sum(axis=(0, 2, 3))
    return CaseEvidence(found, int(differing.argmax()))


def _with_size(signs: dict[str, Evidence], voxels: int, geometry: Geometry) -> LabelEvidence:
    voxel = 1.0 if geometry.voxel_ml is None else geometry.voxel_ml
    return LabelEvidence(signs, voxels * voxel, format_size(voxels, geometry))
