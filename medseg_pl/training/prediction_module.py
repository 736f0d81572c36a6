"""PredictionModule: predictions of many cases under a Trainer, shared among ranks, one case after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from medseg_pl.core.errors import MedsegError
from medseg_pl.core.types import Case, Prediction, Volume
from medseg_pl.data.datasets import LoadedCase, make_case_loader
from medseg_pl.data.sources import Source
from medseg_pl.inference.predictor import Predictor
from medseg_pl.inference.review.evidence import CaseEvidence, assess_prediction


class CaseResult(NamedTuple):
    """A case with its prediction, or with the reason why there is none.

    Attributes:
        case: The case.
        volume: Its image; `None` if it cannot be read.
        prediction: `None` if the case could not be predicted.
        error: Why it could not.
        evidence: What speaks against the prediction, if a review was asked for.
    """

    case: Case
    volume: Volume | None
    prediction: Prediction | None
    error: str = ""
    evidence: CaseEvidence | None = None


class PredictionModule(LightningModule):
    """Predict the cases of a source; a case that cannot be predicted stops no other.

    Args:
        predictor: The models.
        source: Reads the cases.
        cases: All cases, over all ranks.
        is_finished: Tells whether a case was predicted before and is left out.
        workers: Processes that decode; 0 decodes in the main one.
        probabilities: Whether predictions keep their probabilities.
        review: Whether evidence against each prediction is collected.
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
        self.models = nn.ModuleList(predictor.models)  # so that the trainer moves them to its device
        self.source = source
        self.cases = list(cases)
        self.is_finished = is_finished
        self.workers = workers
        self.keeps_probabilities = probabilities
        self.reviews = review

    def predict_dataloader(self) -> DataLoader[Any]:
        """Serve the cases of this rank that are not finished."""
        # Of all cases, finished ones among them: each rank then keeps its cases in a resumed prediction.
        assigned = self.cases[self.trainer.global_rank :: self.trainer.world_size]
        remaining = [case for case in assigned if not self.is_finished(case)]
        if not remaining:  # without a batch Lightning would leave this rank out of what all ranks do together
            return DataLoader([None], batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]
        return make_case_loader(remaining, self.source, self.predictor.labels, self.workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the case where it is: the predictor moves a few slices at a time."""
        return batch

    def predict_step(self, batch: LoadedCase | None, batch_idx: int) -> list[CaseResult]:
        """Predict a case, or nothing if all were finished before; Lightning warns of a step that returns `None`."""
        if batch is None:
            return []
        if batch.volume is None:
            return [CaseResult(batch.case, None, None, batch.fault)]
        description = f"Case {batch.case.case_id} ({batch.case.images[0]})"
        try:
            prediction, evidence = self._predict(batch.volume, description)
        except MedsegError as error:
            return [CaseResult(batch.case, batch.volume, None, str(error))]
        return [CaseResult(batch.case, batch.volume, prediction, evidence=evidence)]

    def _predict(self, volume: Volume, description: str) -> tuple[Prediction, CaseEvidence | None]:
        if not self.reviews:
            return self.predictor.predict_volume(volume, description, probabilities=self.keeps_probabilities), None
        prediction, member_masks = self.predictor.predict_members(volume, description)
        assert prediction.probabilities is not None, "an ensemble prediction keeps them"
        evidence = assess_prediction(
            self.predictor.labels, prediction.mask, prediction.probabilities, member_masks, volume.geometry
        )
        kept = prediction.probabilities if self.keeps_probabilities else None
        return replace(prediction, probabilities=kept), evidence
