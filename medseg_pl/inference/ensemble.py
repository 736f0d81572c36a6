"""Ensemble predictions that keep each member's mask, to measure where the members disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.types import Prediction, Volume
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.predictor import Predictor


class EnsemblePrediction(NamedTuple):
    """A prediction and the masks of its members.

    Attributes:
        prediction: With its probabilities.
        member_masks: Of several models each one's own; of a single model with flips that of the image unflipped;
            else none.
    """

    prediction: Prediction
    member_masks: list[UInt8[np.ndarray, "m d h w"]]


def predict_members(predictor: Predictor, volume: Volume, description: str) -> EnsemblePrediction:
    """Predict as `Predictor.predict_volume` does, and keep the masks of the members.

    Args:
        predictor: The models.
        volume: The image, on its grid.
        description: The image's name in an error.

    Raises:
        DataError: The image does not fit the models.
    """
    if len(predictor.models) == 1:
        prediction = predictor.predict_volume(volume, description, probabilities=True)
        if (predictor.tta or predictor.models[0].tta) == "none":
            return EnsemblePrediction(prediction, [])
        unflipped = predictor.select_models([0], tta="none").predict_volume(volume, description)
        return EnsemblePrediction(prediction, [unflipped.mask])
    masks, total = [], np.zeros(0, np.float32)
    for index in range(len(predictor.models)):
        member = predictor.select_models([index]).predict_volume(volume, description, probabilities=True)
        assert member.probabilities is not None, "asked for"
        masks.append(member.mask)
        # In place, and one after the other: probabilities of a volume take 4 K bytes for each voxel.
        total = np.add(total, member.probabilities, out=total) if index else member.probabilities
    mean = np.divide(total, np.float32(len(masks)), out=total)
    prediction = CaseAssembler(predictor.labels, predictor.postprocess).assemble(mean, volume.geometry)
    return EnsemblePrediction(replace(prediction, probabilities=mean), masks)
