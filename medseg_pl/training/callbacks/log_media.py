"""MediaLogger: settings, throughput, tables of scores, pictures and a summary on W&B and TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Batch, Prediction
from medseg_pl.io.case_pictures import select_slice
from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.metrics import CaseScore, OverlapMetric
from medseg_pl.metrics.case_metric import LabelPair, gather_from_ranks
from medseg_pl.metrics.statistics.intervals import format_number
from medseg_pl.metrics.summary import make_row, summarize
from medseg_pl.training.callbacks.prediction_writer import rgb_of
from medseg_pl.training.callbacks.score_writer import average_cases, average_dice
from medseg_pl.training.dashboards import (
    Dashboard,
    Picture,
    collect_settings,
    log_objects,
    log_pictures,
    log_scores,
    log_settings,
    log_summary,
)
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule


class MediaLogger(Callback):
    """Fill the dashboards of the loggers that are configured.

    Cases and groups have hashed names there, see `Pseudonyms`. No pixel leaves the machine unless `overlays` is set.
    The throughput goes to `metrics.csv`, too.

    Args:
        overlays: How many fixed cases, and how many of the worst, are shown as images at each validation and test.
        directory: The folder of `dashboard.json`; the run folder by default.
    """

    def __init__(self, overlays: int = 0, directory: str | None = None) -> None:
        self.overlays = overlays
        self.directory = directory
        self._record = Pseudonyms.new()
        self._dashboards: list[Dashboard] = []
        self._settings: dict[str, Any] = {}
        self._images: ImageBuffer | None = None
        self._best: dict[str, float] = {}
        self._image_count = 0
        self._since = 0.0
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """Keep the best values so far, for a run that goes on."""
        return {"best": dict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best values so far."""
        self._best = dict(state_dict["best"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the settings."""
        self._open(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to collect images; outside a training, log the settings."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._open(trainer, pl_module)
        self._collect_images(trainer, pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to collect images, and log the settings."""
        self._open(trainer, pl_module)
        self._collect_images(trainer, pl_module, "test")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step that a resumed training begins after."""
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: what lies between epochs is no training."""
        self._restart_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the images per second as often as the loss.

        Logging the loss waits for the device anyway.
        """
        self._image_count += len(batch.image) if isinstance(batch, Batch) else 0
        stepped = trainer.global_step != self._step  # not while gradients are still being accumulated
        self._step = trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not stepped or not every or self._step % every or not self._image_count:
            return
        seconds = time.monotonic() - self._since
        if seconds and trainer.is_global_zero:
            rate = self._image_count * trainer.world_size / seconds
            for logger in trainer.loggers:
                logger.log_metrics({"train/images_per_second": rate}, self._step - 1)  # Lightning's steps begin at 0
        self._restart_clock()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the images that may be shown."""
        self._keep_images(trainer, outputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the images that may be shown."""
        self._keep_images(trainer, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log pictures, and for the best weights also table and summary."""
        if trainer.sanity_checking or not isinstance(pl_module, SegmentationModule):
            return
        self._log_pictures(trainer, pl_module, "val")
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._log_scores(trainer, pl_module, "val")
        else:
            self._update_best(trainer)
        self._restart_clock()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log pictures, the table and the summary."""
        if isinstance(pl_module, SegmentationModule):
            self._log_pictures(trainer, pl_module, "test")
            self._log_scores(trainer, pl_module, "test")

    def _open(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the dashboards and their key to names; log the settings."""
        folder = self.directory or trainer.log_dir  # a broadcast: every rank takes part
        self._dashboards = [log for log in trainer.loggers if isinstance(log, WandbLogger | TensorBoardLogger)]
        if not trainer.is_global_zero or not self._dashboards:
            return
        if folder is not None:
            record = Pseudonyms.read(Path(folder)) or self._record
            run = next((logger.version for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
            self._record = record.with_run(record.wandb_run_id or run)
            self._record.write(Path(folder))
        self._settings = collect_settings(trainer, module, trainer.datamodule)  # type: ignore[attr-defined]
        for dashboard in self._dashboards:
            log_settings(dashboard, self._settings)

    def _collect_images(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._images = None
        if not self.overlays or not self._dashboards or trainer.sanity_checking:
            return
        if isinstance(module, SegmentationModule) and isinstance(data, SegmentationDataModule):
            names = data.prepared.test_names if stage == "test" else data.prepared.split.val
            self._images = ImageBuffer(module.labels, self.overlays, list(names[: self.overlays]))

    def _keep_images(self, trainer: Trainer, outputs: Mapping[str, Any]) -> None:
        if self._images is None:
            return
        predictions: list[Prediction] = outputs["cases"]
        for case in predictions:
            if self._images.is_wanted(case):  # before its image is read
                cached = trainer.datamodule.prepared.index.open_case(case.case_id)  # type: ignore[attr-defined]
                self._images.add(case, cached.image, cached.statistics)

    def _log_pictures(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        if self._images is None:
            return
        means = average_cases(module.evaluator.table)
        worst = find_worst_cases(module.evaluator.table, self.overlays)
        for name, wanted in {"fixed": sorted(self._images.fixed), "worst": worst}.items():
            pictures = self._images.gather(wanted)
            if not trainer.is_global_zero or not pictures:
                continue
            captions = {
                f"{self._record.pseudonym('case', case_id)}, Dice {format_number(means[case_id])}": picture
                for case_id, picture in pictures.items()
            }
            for dashboard in self._dashboards:
                log_pictures(dashboard, f"{stage}/overlays/{name}", captions, module.labels, trainer.global_step)
        self._images = None

    def _log_scores(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        if not trainer.is_global_zero or not self._dashboards:
            return
        table = module.evaluator.table
        # Without strata: a site's or a scanner's name says where a patient was.
        rows = [self._hash_names(make_row(score, {})) for score in table]
        final = _flatten_means(summarize(table, module.labels.names, intervals=False), f"final/{stage}")
        kept = module.evaluator.objects
        objects = [self._hash_names(row) for row in kept.rows] if kept else []
        for dashboard in self._dashboards:
            log_scores(dashboard, stage, rows)
            if objects:
                log_objects(dashboard, stage, objects)
            log_summary(dashboard, self._settings, {**self._best, **final})

    def _hash_names(self, row: Mapping[str, Any]) -> dict[str, Any]:
        case_id = self._record.pseudonym("case", str(row["case_id"]))
        return {**row, "case_id": case_id, "group": self._record.pseudonym("group", str(row["group"]))}

    def _update_best(self, trainer: Trainer) -> None:
        dice = float(trainer.callback_metrics.get("val/dice", float("nan")))
        if dice > self._best.get("best/val/dice", float("-inf")):
            self._best = {"best/epoch": trainer.current_epoch, "best/val/dice": dice}

    def _restart_clock(self) -> None:
        self._image_count = 0
        self._since = time.monotonic()


class ImageBuffer:
    """Keep only the pictures that the end of an evaluation may show.

    Args:
        labels: The labels to draw and score.
        size: How many of the worst cases are kept, on each process.
        fixed: The cases that are kept whatever their score.
    """

    def __init__(self, labels: LabelMap, size: int, fixed: Collection[str]) -> None:
        self.labels = labels
        self.size = size
        self.fixed = set(fixed)
        self.pictures: dict[str, Picture] = {}
        self._overlap = OverlapMetric(labels)
        self._scores: dict[str, float] = {}

    def is_wanted(self, case: Prediction) -> bool:
        """Score a case, and tell whether to add its picture.

        Pictures that it displaces are dropped.
        """
        pairs = [LabelPair(case, self.labels, index) for index in range(len(self.labels.names))]
        self._scores[case.case_id] = average_dice([float(self._overlap.score(pair)["dice"]) for pair in pairs])
        wanted = {*self.fixed, *_list_lowest(self._scores, self.size)}
        self.pictures = {name: picture for name, picture in self.pictures.items() if name in wanted}
        return case.case_id in wanted

    def add(self, case: Prediction, image: NDArray[Any], statistics: NDArray[np.float32]) -> None:
        """Keep the slice of a case in which the masks differ most.

        Args:
            case: Mask and reference on the native grid.
            image: `(C, D, H, W)` raw values.
            statistics: `(C, 4)` of its channels.
        """
        assert case.reference is not None, "only cases with a reference are shown"
        reference, prediction = (self.labels.planes(mask) for mask in (case.reference, case.mask))
        depth = select_slice(reference, prediction)
        rgb = rgb_of(image, statistics, reference, depth)
        self.pictures[case.case_id] = Picture(case.case_id, rgb, reference[:, depth], prediction[:, depth])

    def gather(self, wanted: Sequence[str]) -> dict[str, Picture]:
        """Gather the pictures of these cases from all processes, in order.

        Each process must call it.
        """
        pictures = gather_from_ranks([self.pictures[name] for name in wanted if name in self.pictures])
        by_name = {picture.case_id: picture for picture in pictures}
        return {name: by_name[name] for name in wanted if name in by_name}


def find_worst_cases(table: Sequence[CaseScore], size: int) -> list[str]:
    """Find the cases with the lowest mean Dice, the worst first.

    >>> rows = [CaseScore(name, "p", "a", {"dice": dice}, "ok", "px") for name, dice in {"x": 0.9, "y": 0.1}.items()]
    >>> find_worst_cases(rows, 1)
    ['y']
    """
    return _list_lowest(average_cases(table), size)


def _list_lowest(means: Mapping[str, float], size: int) -> list[str]:
    # A case of which no label is defined is none of the worst.
    return sorted(means, key=lambda name: (math.isnan(means[name]), np.nan_to_num(means[name]), name))[:size]


def _flatten_means(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Name the means of a summary as metrics are logged: `dice`, `dice/<label>`."""
    means = {f"{prefix}/{metric}": mean for metric, mean in summary["foreground_mean"].items()}
    for label, described in summary["labels"].items():
        means |= {f"{prefix}/{name}/{label}": each["mean"] for name, each in described.items() if "mean" in each}
    return {name: mean for name, mean in means.items() if mean is not None}
