"""Predictions as files, in the format of what was predicted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.core.types import CasePrediction
from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.module import SegmentationModule


class PredictionWriter(Callback):
    """Writes each case as soon as it is complete.

    Args:
        directory: Where to; a file that is there already is an error and stays.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write what the batch completed."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SegmentationDataModule) and isinstance(pl_module, SegmentationModule)
        finished: list[CasePrediction] = outputs
        for case in finished:
            data.source.write(self.directory, data.cases[case.case_id], case.prediction, pl_module.labels)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join what the format wants in one file, once all ranks are done."""
        trainer.strategy.barrier()
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, SegmentationDataModule):
            data.source.finish(self.directory)
