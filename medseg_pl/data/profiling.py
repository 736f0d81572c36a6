"""Profile of the training cases of a run, from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry, find_axis_codes
from medseg_pl.core.image_facts import ImageFacts, measure_image, measure_mask
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.training_profile import TrainingProfile, describe_training
from medseg_pl.core.types import Prediction
from medseg_pl.data.prepared_data import PreparedData
from medseg_pl.data.sources import Source
from medseg_pl.metrics.functional import overlap

_MOST_TRAINING, _MOST_VALIDATION = 256, 128
"""More cases change the limits little, and each takes some milliseconds."""


def profile_training(data: PreparedData, labels: LabelMap, source: Source) -> TrainingProfile | None:
    """Describe the training cases, with limits that the validation cases keep.

    All processes examine the same cases, whatever their number, and so find the same.

    Args:
        data: Decoded and split.
        labels: The structures in the masks.
        source: Knows the modality, which the cache does not.

    Returns:
        `None` where the training cases are too few.
    """
    training = _select_evenly(data.split.train, _MOST_TRAINING)
    validation = _select_evenly(data.split.val, _MOST_VALIDATION)
    images, masks = _measure_cases(data, training, source, labels)
    # The masks of validation cases come later, as the model predicts them.
    held_out, _ = _measure_cases(data, validation, source, None)
    return describe_training(images, masks, held_out)


def measure_volume(image: NDArray[Any], geometry: Geometry, modality: str = "") -> ImageFacts:
    """Measure the facts of an image on its grid.

    Args:
        image: `(C, D, H, W)` raw values.
        geometry: Its grid.
        modality: As DICOM writes it, such as `CT`; empty where it is unknown.
    """
    return measure_image(image, geometry.spacing_mm, find_axis_codes(geometry), modality=modality)


def measure_labels(
    mask: NDArray[np.uint8], labels: LabelMap, geometry: Geometry, annotated: Sequence[bool] | None = None
) -> dict[str, float]:
    """Measure the facts of the annotated labels in a mask.

    Args:
        mask: `(M, D, H, W)`, see `LabelMap`.
        labels: The labels.
        geometry: The grid.
        annotated: Whether each label was annotated; all where `None`.

    Returns:
        By name, see `measure_mask`.
    """
    chosen = [index for index in range(len(labels.names)) if annotated is None or annotated[index]]
    # One plane at a time: all of them together take several times the memory of the mask.
    planes = (labels.plane(mask, index) for index in chosen)
    return measure_mask(planes, [labels.names[index] for index in chosen], geometry.spacing_mm)


def measure_prediction(prediction: Prediction) -> dict[str, float]:
    """Measure a predicted mask's facts, and `<label>.dice` where references allow."""
    labels, mask, reference = prediction.labels, prediction.mask, prediction.reference
    if labels is None:
        return {}
    facts = measure_labels(mask, labels, prediction.geometry)
    for index, known in enumerate(labels.find_annotated(prediction.annotated_labels)):
        if reference is None or not known:
            continue
        counts = overlap.count(labels.plane(mask, index), labels.plane(reference, index))
        if counts.reference:
            facts[f"{labels.names[index]}.dice"] = overlap.dice(counts)
    return facts


def _measure_cases(
    data: PreparedData, names: Sequence[str], source: Source, labels: LabelMap | None
) -> tuple[list[ImageFacts], list[dict[str, float]]]:
    index, images, masks = data.index.select(names), [], []
    for number, name in enumerate(names):
        cached, case = index[number], data.cases[name]
        images.append(measure_volume(cached.image, cached.geometry, source.read_modality(case)))
        if labels is not None and cached.mask is not None:
            # A label that nobody looked for is not absent.
            annotated = labels.find_annotated(case.annotated_labels)
            masks.append(measure_labels(cached.mask, labels, cached.geometry, annotated))
    return images, masks


def _select_evenly(names: Sequence[str], most: int) -> list[str]:
    """Select at most so many names, evenly over their sorted order."""
    ordered = sorted(names)
    return ordered[:: max(1, -(-len(ordered) // most))]
