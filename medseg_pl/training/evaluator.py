"""Evaluator: scores of a validation or a test, case by case, then of all cases of all ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric

from medseg_pl.core.errors import DataError, DivergedError, count_noun
from medseg_pl.core.types import EvaluationBatch, Prediction
from medseg_pl.data.datasets import SliceDataset
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.inferer import Inferer
from medseg_pl.inference.sliding_window import OnLogits
from medseg_pl.metrics import (
    CaseMetric,
    CaseScore,
    MetricTable,
    ObjectTable,
    collect_objects,
    gather_from_ranks,
    summarize,
)
from medseg_pl.models.segmentation_model import SegmentationModel

log = logging.getLogger(__name__)

Stage = Literal["val", "test"]
LOGGED = ("dice", "iou")
"""Scores that are logged; the files hold all of them."""


class Evaluator(nn.Module):
    """Predicts slices, assembles cases, and scores each case.

    The scores stay until the next evaluation begins.

    Args:
        model: Predicts the slices; its flips are left out within a training.
        metrics: Metrics of a whole case.
        facts: Facts about how they measure, for the summary.

    Attributes:
        loss: Mean over all slices.
        table: A row for each case and label, of all ranks.
        objects: A row for each object, where `ObjectMetric` kept them.
        cut: Cases that the trainer's limit cut, as the last warning named them.
        facts: The given ones, and whether all cases were scored.
    """

    def __init__(self, model: SegmentationModel, metrics: Sequence[CaseMetric], facts: Mapping[str, Any]) -> None:
        super().__init__()
        # In lists: the module that trains the model must not find its weights here a second time.
        self._models = [model]
        self.inferer = Inferer(self._models)
        self.resize = Resize(model.resize, model.input_size, model.spacing_mm)
        self.assembler = CaseAssembler(model.labels, model.postprocess)
        self.metrics = metrics
        self.facts = dict(facts)
        # torchmetrics would leave NaN out of the mean, and a network that diverged would look well.
        self.loss = MeanMetric(nan_strategy=float("inf"))
        self.ledger = MetricTable(metrics)
        self.table: list[CaseScore] = []
        self.objects: ObjectTable | None = None
        self.cut: list[str] = []

    def reset(self, *, training: bool) -> None:
        """Start with empty tables, within a training without some metrics."""
        self.loss.reset()
        metrics = [metric for metric in self.metrics if metric.in_training or not training]
        self.ledger = MetricTable(metrics)
        self.ledger.reset()
        (model,) = self._models
        self.inferer = Inferer(self._models, "none" if training else None)
        keep_probabilities = any(metric.needs_probabilities for metric in metrics)
        self.assembler = CaseAssembler(model.labels, model.postprocess, keep_probabilities)

    def add(self, batch: EvaluationBatch, on_logits: OnLogits) -> list[Prediction]:
        """Predict the slices of a batch, and score the completed cases.

        Args:
            batch: The slices, with the references of their cases.
            on_logits: Sees the logits of the plain network, for the loss.

        Returns:
            The completed cases.
        """
        blocks = self.inferer.infer_batch(batch, on_logits)
        cases = self.assembler.add(blocks, batch.slices, batch.masks)
        for case in cases:
            self.ledger.add(case)
        return cases

    def finish(self, trainer: Trainer, stage: Stage) -> None:
        """Merge the tables of all ranks.

        Raises:
            DataError: A case, or a slice of one, is missing though the trainer was not told to stop early; or no case
                is complete.
            DivergedError: The loss is no number.
        """
        limited = _is_limited(trainer, stage)
        cut = self._find_cut_cases(limited)
        self.table = self.ledger.table(None if limited else _list_expected_cases(trainer, stage))
        self.objects = collect_objects(self.ledger.metrics)
        if not self.table and not trainer.sanity_checking:
            self._refuse_no_case(trainer, stage, limited)
        if cut and cut != self.cut and not trainer.sanity_checking:
            log.warning(
                "trainer.limit_%s_batches cuts %s, %s among them: they are left out of the scores.",
                *(stage, count_noun(len(cut), "case"), cut[0]),
            )
            self.cut = cut
        self.facts["complete"] = not limited
        self._check_finite(stage, trainer.global_step)

    def resize_references(self, batch: EvaluationBatch) -> Tensor:
        """Resize the references of slices to the grid of the loss.

        Raises:
            DataError: A case has no reference.
        """
        if len(batch.masks) != len(batch.slices):
            raise DataError(
                f"Case {batch.slices[0].case_id} has no reference, so it cannot be scored. Use predict for it."
            )
        pairs = zip(batch.slices, batch.masks, strict=True)
        return torch.from_numpy(
            np.stack([self.resize.adapt_to(slice_.geometry).apply_mask(mask) for slice_, mask in pairs])
        )

    def compute_means(self, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield the means to log, of all labels and of each.

        A mean is NaN where there is no score.
        """
        summary = summarize(self.table, names, intervals=False)
        for score in LOGGED:
            mean = summary["foreground_mean"].get(score)
            yield score, float("nan") if mean is None else mean
            for label, described in summary["labels"].items():
                if score in described and described[score]["mean"] is not None:
                    yield f"{score}/{label}", described[score]["mean"]

    def _find_cut_cases(self, limited: bool) -> list[str]:
        """Find the cases with missing slices, for which a limit must account."""
        # Asked of all ranks, so that all of them end with this error: the others would wait for one that has left.
        incomplete = sorted(gather_from_ranks(self.assembler.list_incomplete()))
        if incomplete and not limited:
            raise DataError(
                f"Slices of {count_noun(len(incomplete), 'case')} never came, {incomplete[0]} among them, so no score "
                "is given. A data module of your own must serve every slice of a case, all of them to one process."
            )
        self.assembler.reset()
        return incomplete

    def _refuse_no_case(self, trainer: Trainer, stage: Stage, limited: bool) -> None:
        """Refuse an evaluation without a score."""
        # NaN would end an early stopping, or become the best.
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # it tries the code, and nobody reads its scores
            return
        if not limited:
            raise DataError(f"The {stage} loader gave no complete case, so there is no score. Give it cases to score.")
        name = f"trainer.limit_{stage}_batches"
        raise DataError(
            f"No case is complete within {name}={getattr(trainer, name.split('.')[1])}, so there is no score. Raise "
            "it or data.eval_batch_size until whole volumes fit, or leave it out."
        )

    def _check_finite(self, stage: Stage, step: int) -> None:
        """Check that the network has not diverged."""
        # It predicts something all the same, and must not become the best one.
        if not torch.isfinite(self.loss.compute()):
            raise DivergedError(
                f"The {stage} loss is not finite at step {step}: training has diverged, or the images or "
                f"the weights hold values that are not numbers. {DivergedError.REMEDY}"
            )


def _list_expected_cases(trainer: Trainer, stage: Stage) -> list[str] | None:
    """List the cases to be scored; `None` with loaders of one's own."""
    loader = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
    dataset = getattr(loader, "dataset", None)
    return [case.case_id for case in dataset.cases] if isinstance(dataset, SliceDataset) else None


def _is_limited(trainer: Trainer, stage: Stage) -> bool:
    """Check whether the trainer stops before the last batch."""
    limit = trainer.limit_val_batches if stage == "val" else trainer.limit_test_batches
    return bool(trainer.sanity_checking or isinstance(limit, int) or limit < 1)
