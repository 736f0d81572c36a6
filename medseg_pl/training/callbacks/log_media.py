"""What dashboards show beside the scalars: settings, throughput, tables of scores, pictures, a summary."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.types import Batch, Prediction
from medseg_pl.metrics.files import make_row
from medseg_pl.metrics.summary import summarize
from medseg_pl.training.callbacks.overlay_writer import rgb_of
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.loggers import (
    Board,
    ImageBuffer,
    Pseudonyms,
    TensorBoardBoard,
    WandbBoard,
    shown_settings,
    worst_cases,
)
from medseg_pl.training.loggers.images import case_means, picture_of, telling_slice
from medseg_pl.training.module import SegmentationModule


class MediaLogger(Callback):
    """Fills the dashboards of the loggers that are configured; `metrics.csv` gets the throughput.

    Cases and groups have hashed names there, see `Pseudonyms`. No pixel leaves the machine unless `overlays` is set.

    Args:
        overlays: How many fixed cases, and how many of the worst, are shown as images at each validation and test.
        directory: Where `dashboard.json` is; the run folder by default.
    """

    def __init__(self, overlays: int = 0, directory: str | None = None) -> None:
        self.overlays = overlays
        self.directory = directory
        self._record = Pseudonyms.new()
        self._boards: list[Board] = []
        self._gallery: ImageBuffer | None = None
        self._best: dict[str, float] = {}
        self._images = 0
        self._since = 0.0
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a run that goes on."""
        return {"best": dict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far."""
        self._best = dict(state_dict["best"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the settings."""
        self._open(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a gallery; outside a training, the dashboards too."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._open(trainer, pl_module)
        self._hang(trainer, pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a gallery and the dashboards."""
        self._open(trainer, pl_module)
        self._hang(trainer, pl_module, "test")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step that a resumed training begins after."""
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: what lies between epochs is no training."""
        self._restart_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the images a second, as often as the loss is, whose logging waits for the device anyway."""
        self._images += len(batch.image) if isinstance(batch, Batch) else 0
        stepped = trainer.global_step != self._step  # not where gradients are still being accumulated
        self._step = trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not stepped or not every or self._step % every or not self._images:
            return
        seconds = time.monotonic() - self._since
        if seconds and trainer.is_global_zero:
            rate = self._images * trainer.world_size / seconds
            for logger in trainer.loggers:
                logger.log_metrics({"train/images_per_second": rate}, self._step - 1)  # Lightning's steps begin at 0
        self._restart_clock()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the pictures that may be shown."""
        self._look(trainer, outputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the pictures that may be shown."""
        self._look(trainer, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show pictures; the table and the summary where the validation is that of the best weights."""
        if trainer.sanity_checking or not isinstance(pl_module, SegmentationModule):
            return
        self._show_pictures(trainer, pl_module, "val")
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._show_scores(trainer, pl_module, "val")
        else:
            self._note_best(trainer)
        self._restart_clock()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show pictures, the table and the summary."""
        if isinstance(pl_module, SegmentationModule):
            self._show_pictures(trainer, pl_module, "test")
            self._show_scores(trainer, pl_module, "test")

    def _open(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the dashboards, the key to the names on them, and show the settings."""
        folder = self.directory or trainer.log_dir  # a broadcast: every rank takes part
        self._boards = [board for logger in trainer.loggers for board in _board_of(logger)]
        if not trainer.is_global_zero or not self._boards:
            return
        if folder is not None:
            kept = Pseudonyms.read(Path(folder)) or self._record
            run = next((logger.version for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
            self._record = kept.with_run(kept.wandb_run_id or run)
            self._record.write(Path(folder))
        settings = shown_settings(trainer, module, trainer.datamodule)  # type: ignore[attr-defined]
        for board in self._boards:
            board.show_settings(settings)

    def _hang(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._gallery = None
        if not self.overlays or not self._boards or trainer.sanity_checking:
            return
        if isinstance(module, SegmentationModule) and isinstance(data, SegmentationDataModule):
            self._gallery = ImageBuffer(module.labels, self.overlays, self._fixed(data, stage))

    def _fixed(self, data: SegmentationDataModule, stage: str) -> list[str]:
        names = data.prepared.test_names if stage == "test" else data.prepared.split.val
        return list(names[: self.overlays])

    def _look(self, trainer: Trainer, outputs: Mapping[str, Any]) -> None:
        if self._gallery is None:
            return
        finished: list[Prediction] = outputs["cases"]
        for case in finished:
            if self._gallery.wants(case):
                cached = trainer.datamodule.prepared.index.open_case(case.case_id)  # type: ignore[attr-defined]
                depth = telling_slice(case, self._gallery.labels)
                rgb = rgb_of(cached.image, cached.statistics, depth)
                self._gallery.add(picture_of(case, rgb, self._gallery.labels, depth))

    def _show_pictures(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        if self._gallery is None:
            return
        means = case_means(module.evaluator.table)
        fixed = sorted(self._gallery.fixed)
        for name, wanted in {"fixed": fixed, "worst": worst_cases(module.evaluator.table, self.overlays)}.items():
            pictures = self._gallery.gathered(wanted)
            if not trainer.is_global_zero or not pictures:
                continue
            captions = {
                f"{self._record.pseudonym('case', case_id)}, Dice {means[case_id]:.3f}": picture
                for case_id, picture in pictures.items()
            }
            for board in self._boards:
                board.show_pictures(f"{stage}/overlays/{name}", captions, module.labels, trainer.global_step)
        self._gallery = None

    def _show_scores(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        if not trainer.is_global_zero or not self._boards:
            return
        # Without strata: a site's or a scanner's name says where a patient was.
        rows = [self._hashed(make_row(score, {})) for score in module.evaluator.table]
        final = _flat(summarize(module.evaluator.table, module.labels.names, intervals=False), f"final/{stage}")
        for board in self._boards:
            board.show_scores(stage, rows)
            board.show_summary({**self._best, **final})

    def _hashed(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        case_id = self._record.pseudonym("case", str(columns["case_id"]))
        return {**columns, "case_id": case_id, "group": self._record.pseudonym("group", str(columns["group"]))}

    def _note_best(self, trainer: Trainer) -> None:
        dice = float(trainer.callback_metrics.get("val/dice", float("nan")))
        if dice > self._best.get("best/val/dice", float("-inf")):
            self._best = {"best/epoch": trainer.current_epoch, "best/val/dice": dice}

    def _restart_clock(self) -> None:
        self._images = 0
        self._since = time.monotonic()


def _board_of(logger: Any) -> list[Board]:
    if isinstance(logger, WandbLogger):
        return [WandbBoard(logger)]
    return [TensorBoardBoard(logger)] if isinstance(logger, TensorBoardLogger) else []


def _flat(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The means of a summary under the names that metrics are logged by: `dice`, `dice/<label>`."""
    means = {f"{prefix}/{metric}": mean for metric, mean in summary["foreground_mean"].items()}
    for label, described in summary["labels"].items():
        means |= {f"{prefix}/{name}/{label}": each["mean"] for name, each in described.items() if "mean" in each}
    return {name: mean for name, mean in means.items() if mean is not None}
