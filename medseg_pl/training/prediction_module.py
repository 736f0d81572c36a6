"""A prediction of many cases under a trainer: shared among ranks, decoded ahead, one case after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from medseg_pl.core.errors import MedsegError
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.case_dataset import Decoded, case_loader
from medseg_pl.data.sources import Source
from medseg_pl.inference.ensemble import predict_members
from medseg_pl.inference.predictor import Prediction, Predictor
from medseg_pl.inference.review import CaseEvidence, assess_prediction


class CaseResult(NamedTuple):
    """What became of a case.

    Attributes:
        decoded: The case and its image.
        prediction: `None` where the case could not be predicted.
        fault: Why it could not.
        signs: Whether a person should look at it, where that was asked for.
    """

    decoded: Decoded
    prediction: Prediction | None
    fault: str = ""
    signs: CaseEvidence | None = None


class PredictionModule(LightningModule):
    """Predicts the cases of a source; a case that cannot be predicted stops no other.

    Args:
        predictor: The models.
        source: Reads the cases.
        cases: What to predict, over all ranks.
        is_finished: Whether a case was predicted before, so that it can be left out.
        workers: Processes that decode; 0 decodes in the main one.
        probabilities: Whether predictions keep their probabilities.
        review: Whether it is asked how far each prediction can be believed.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        cases: Sequence[Case],
        is_finished: Callable[[Case], bool],
        workers: int,
        probabilities: bool = False,
        review: bool = False,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.members = nn.ModuleList(predictor.members)  # so that the trainer moves them to its device
        self.source = source
        self.cases = list(cases)
        self.is_finished = is_finished
        self.workers = workers
        self.keeps_probabilities = probabilities
        self.reviews = review

    def predict_dataloader(self) -> DataLoader[Any]:
        """The cases of this rank that are not finished; what is finished does not change which rank has which."""
        mine = self.cases[self.trainer.global_rank :: self.trainer.world_size]
        left = [case for case in mine if not self.is_finished(case)]
        if not left:  # without a batch Lightning would leave this rank out of what all ranks do together
            return DataLoader([None], batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]
        return case_loader(left, self.source, self.predictor.labels, self.workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the case where it is: the predictor moves a few slices at a time."""
        return batch

    def predict_step(self, batch: Decoded | None, batch_idx: int) -> list[CaseResult]:
        """Predict a case, or nothing where all were finished before; Lightning warns of a step that returns `None`."""
        return [] if batch is None else [self._predict(batch)]

    def _predict(self, batch: Decoded) -> CaseResult:
        if batch.volume is None:
            return CaseResult(batch, None, batch.fault)
        what = f"Case {batch.case.case_id} ({batch.case.images[0]})"
        try:
            if self.reviews:
                return self._reviewed(batch, batch.volume, what)
            found = self.predictor.predict_volume(batch.volume, what, probabilities=self.keeps_probabilities)
        except MedsegError as error:
            return CaseResult(batch, None, str(error))
        return CaseResult(batch, found)

    def _reviewed(self, batch: Decoded, volume: Volume, what: str) -> CaseResult:
        """The same prediction, and what speaks against it."""
        found, votes = predict_members(self.predictor, volume, what)
        assert found.probabilities is not None, "an election keeps them"
        signs = assess_prediction(found.labels, found.mask, found.probabilities, votes, found.geometry)
        kept = found if self.keeps_probabilities else replace(found, probabilities=None)
        return CaseResult(batch, kept, signs=signs)
