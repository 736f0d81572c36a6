"""The scores of an evaluation and the masks that they are of, as files and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.types import Prediction
from medseg_pl.data.prepared_data import PreparedData, use_mask_values
from medseg_pl.io.scores import predictions_beside
from medseg_pl.metrics import CalibrationMetric, CaseScore
from medseg_pl.metrics.files import print_scores, write_scores
from medseg_pl.training.callbacks.saved_masks import SavedMasks, average_dice
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.evaluator import Stage
from medseg_pl.training.module import SegmentationModule


class ScoreWriter(Callback):
    """Writes what `validate` and `test` found, and prints the summary.

    The files are `scores_<stage>.csv`, `summary_<stage>.json` and the masks in `predictions/<stage>/`. Of a training
    only the validation of the best weights, at its end, is written.

    Args:
        directory: Where to; the run folder by default.
        save_predictions: Whether masks are kept.
    """

    def __init__(self, directory: str | None = None, save_predictions: bool = True) -> None:
        self.directory = directory
        self.save_predictions = save_predictions
        self._masks: SavedMasks | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a folder for the masks."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a folder for the masks."""
        self._begin(trainer, pl_module, "test")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write the masks that the batch completed."""
        self._add(trainer, pl_module, outputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write the masks that the batch completed."""
        self._add(trainer, pl_module, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._finish(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print."""
        self._finish(trainer, pl_module, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the masks of a stage that ends early."""
        if self._masks is not None and trainer.is_global_zero:
            self._masks.discard()
        self._masks = None

    def _begin(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        directory = self.directory or trainer.log_dir  # a broadcast: every rank takes part
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not self.save_predictions or directory is None:
            return
        if not isinstance(module, SegmentationModule) or not isinstance(data, SegmentationDataModule):
            return  # a module of one's own: nobody knows how its masks are written
        labels = use_mask_values(module.labels, data.prepared.mask_values)
        self._masks = SavedMasks.begin(trainer, Path(directory), stage, data.source, labels)

    def _add(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        if self._masks is None:
            return
        assert isinstance(module, SegmentationModule), "asked when the stage began"
        prepared: PreparedData = trainer.datamodule.prepared  # type: ignore[attr-defined]
        finished: list[Prediction] = outputs["cases"]
        for prediction in finished:
            name = prediction.case_id
            mean = average_dice([float(row.values["dice"]) for row in module.evaluator.ledger.metrics[0].rows(name)])
            self._masks.add(prediction, prepared.cases[name], prepared.index.open_case(name), mean)

    def _finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        directory = self.directory or trainer.log_dir
        masks, self._masks = self._masks, None
        if not isinstance(module, SegmentationModule):
            return
        if masks is not None:
            masks.warn_of_faults()
        metrics = [metric for metric in module.evaluator.ledger.metrics if isinstance(metric, CalibrationMetric)]
        bins = {label: sums for metric in metrics for label, sums in metric.sum_bins().items()}
        if not trainer.is_global_zero or directory is None:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        prepared = data.prepared if isinstance(data, SegmentationDataModule) else None
        strata = {name: dict(case.strata) for name, case in prepared.cases.items()} if prepared else {}
        facts = {**module.evaluator.facts, **({"scored": prepared.describe_scored(stage)} if prepared else {})}
        table = module.evaluator.table
        scores, summary = write_scores(Path(directory), stage, table, module.labels.names, strata=strata, facts=facts)
        if masks is not None:
            masks.finish(predictions_beside(scores), _average_cases(table), bins)
        print_scores(scores, summary, stage)


def _average_cases(table: Sequence[CaseScore]) -> dict[str, float]:
    """Compute the mean Dice over labels of each case."""
    cases: dict[str, list[float]] = {}
    for row in table:
        cases.setdefault(row.case_id, []).append(float(row.values["dice"]))
    return {case_id: average_dice(dice) for case_id, dice in cases.items()}
