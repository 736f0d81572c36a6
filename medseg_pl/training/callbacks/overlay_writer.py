"""Pictures of predictions beside references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray

from medseg_pl.core.intensity import HIGH, LOW
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.core.visualization import draw_side_by_side, to_rgb
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.io.raster import write_png
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule


class OverlayWriter(Callback):
    """Draws image, reference and prediction of the first cases of `validate` and `test`, one PNG a case.

    Of a volume it draws the slice that holds most of the labels.

    Args:
        cases: How many, on each process.
        directory: Where to; `overlays/` in the run folder by default.
    """

    def __init__(self, cases: int = 8, directory: str | None = None) -> None:
        self.cases = cases
        self.directory = directory
        self._folder = Path()
        self._drawn = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._begin(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._begin(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Draw what the batch completed, at the end of training and in `validate`."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw(trainer, pl_module, outputs, "val")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Draw what the batch completed."""
        self._draw(trainer, pl_module, outputs, "test")

    def _begin(self, trainer: Trainer) -> None:
        # `trainer.log_dir` is a broadcast, and later ranks do not finish cases in step.
        self._folder = Path(self.directory or trainer.log_dir or trainer.default_root_dir) / "overlays"
        self._drawn = 0

    def _draw(self, trainer: Trainer, module: LightningModule, outputs: Any, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(module, SegmentationModule) or not isinstance(data, SegmentationDataModule):
            return
        finished: list[Prediction] = outputs["cases"]
        for case in finished[: max(0, self.cases - self._drawn)]:
            path = self._folder / stage / f"{case.case_id}.png"
            write_png(path, overlay(case, data.prepared.index.open_case(case.case_id), module.labels), replace=True)
            self._drawn += 1


def overlay(case: Prediction, cached: CachedCase, labels: LabelMap) -> NDArray[np.uint8]:
    """Draw image, reference and prediction on the slice with most reference."""
    assert case.reference is not None, "overlays compare with a reference"
    annotated = labels.planes(case.reference)
    depth = int(annotated.sum(axis=(0, 2, 3)).argmax())
    rgb = rgb_of(cached.image, cached.statistics, depth)
    return draw_side_by_side(rgb, annotated[:, depth], labels.planes(case.mask)[:, depth])


def rgb_of(image: NDArray[Any], statistics: NDArray[np.float32], depth: int) -> NDArray[np.uint8]:
    """Convert a slice to RGB, gray between the case's percentiles."""
    return to_rgb(image[:, depth], float(statistics[0, LOW]), float(statistics[0, HIGH]))
