"""A prediction beside what each model, or the image unflipped, says alone: where they differ, one has to look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from medseg_pl.core.types import Volume
from medseg_pl.inference.postprocess import apply_postprocess
from medseg_pl.inference.predictor import Prediction, Predictor
from medseg_pl.inference.tta import IDENTITY
from medseg_pl.training.module import SegmentationModule


class EnsemblePrediction(NamedTuple):
    """A prediction and the votes for it.

    Attributes:
        prediction: With its probabilities.
        votes: Masks. Of several models each one's own; of a single model with flips that of the image as it is; else
            none.
    """

    prediction: Prediction
    votes: list[UInt8[np.ndarray, "m d h w"]]


def predict_members(predictor: Predictor, volume: Volume, what: str) -> EnsemblePrediction:
    """Predict what a source has read, the very mask that `Predictor.predict_volume` gives, and keep the votes.

    Args:
        predictor: The models.
        volume: The image, on its grid.
        what: What to call it in an error.

    Raises:
        DataError: The image does not fit the models.
    """
    if len(predictor.members) == 1:
        prediction = predictor.predict_volume(volume, what, probabilities=True)
        return EnsemblePrediction(prediction, _unflipped(predictor, volume, what))
    votes, total = [], None
    for member in predictor.members:
        alone = Predictor([member], predictor.batch_size, predictor.precision)
        own = alone.predict_volume(volume, what, probabilities=True)
        votes.append(own.mask)
        total = own.probabilities if total is None else _sum(total, own.probabilities)
    assert total is not None, "there is at least one model"
    return EnsemblePrediction(_decided(predictor, np.divide(total, np.float32(len(votes)), out=total), volume), votes)


def _sum(first: NDArray[np.float32], second: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert second is not None, "asked for"
    return np.add(first, second, out=first)


def _decided(predictor: Predictor, mean: NDArray[np.float32], volume: Volume) -> Prediction:
    """As the predictor decides and cleans up."""
    mask = predictor.labels.decide(torch.from_numpy(mean)[None])[0].numpy()
    cleaning = predictor.members[0].assembler.cleaning
    mask = apply_postprocess(mask, volume.geometry, predictor.labels, cleaning) if cleaning else mask
    return Prediction(mask, predictor.labels, volume.geometry, mean)


def _unflipped(predictor: Predictor, volume: Volume, what: str) -> list[UInt8[np.ndarray, "m d h w"]]:
    """What a single model says of the image as it is, where its prediction is a mean over flips."""
    (member,) = predictor.members
    if len(member.symmetries) == 1:
        return []
    with _seen_once(member):
        return [predictor.predict_volume(volume, what).mask]


@contextmanager
def _seen_once(member: SegmentationModule) -> Iterator[None]:
    symmetries = member.symmetries
    member.symmetries = (IDENTITY,)
    try:
        yield
    finally:
        member.symmetries = symmetries
