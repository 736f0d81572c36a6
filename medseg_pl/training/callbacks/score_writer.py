"""The scores of an evaluation, as files and on the terminal."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.metrics.files import write_scores
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule


class ScoreWriter(Callback):
    """Writes `scores_<stage>.csv` and `summary_<stage>.json` after `validate` and `test`, and prints the summary.

    Args:
        directory: Where to; the run folder by default.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not while training goes on: the validation that counts is that of the best weights, at its end."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        directory = self.directory or trainer.log_dir
        if not trainer.is_global_zero or directory is None or not isinstance(module, SegmentationModule):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        prepared = data.prepared if isinstance(data, SegmentationDataModule) else None
        strata = {name: dict(case.strata) for name, case in prepared.cases.items()} if prepared else {}
        facts = {**module.evaluator.facts, **({"scored": prepared.describe_scored(stage)} if prepared else {})}
        write_scores(Path(directory), stage, module.evaluator.table, module.labels.names, strata=strata, facts=facts)
