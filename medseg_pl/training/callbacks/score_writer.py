"""The scores of an evaluation and the masks that they are of, as files and on the terminal."""

from __future__ import annotations

import logging
import math
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.errors import FolderLockedError, MedsegError, count_noun
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Prediction
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.prepared_data import PreparedData, use_mask_values
from medseg_pl.data.sources import Source
from medseg_pl.io.atomic_files import name_errors
from medseg_pl.io.case_pictures import draw_case, picture_path, select_cases, select_slice, write_picture
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import PREDICTIONS, locate_summary, pictures_in, predictions_beside, write_reliability
from medseg_pl.metrics import CalibrationMetric, CaseScore
from medseg_pl.metrics.functional.calibration import CalibrationSums
from medseg_pl.metrics.summary import print_scores, write_scores
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.evaluator import Stage
from medseg_pl.training.module import SegmentationModule

log = logging.getLogger(__name__)

_UNFINISHED = ".writing-"


class SavedMasks:
    """The masks of a stage while it runs, and where they go.

    They move to their place, all at once, when their scores are written.

    ```
    predictions/test/…                      masks, as `medseg predict` writes them
                     .medseg/pictures/…     slices of the worst cases and a few of the best, for `medseg report`
               .writing-test-…/             a stage that has not ended
    ```

    Args:
        folder: Where masks are written until then, the same on all ranks.
        source: Knows the format of the images.
        labels: With the values that are written.
    """

    def __init__(self, folder: Path, source: Source, labels: LabelMap) -> None:
        self.folder = folder
        self.source = source
        self.labels = labels
        self.faults: dict[str, str] = {}
        self._locks = FolderLocks()
        self._pictured: dict[str, float] = {}

    @classmethod
    def begin(cls, trainer: Trainer, run_folder: Path, stage: str, source: Source, labels: LabelMap) -> SavedMasks:
        """Make a folder on rank zero, and remove what killed stages left.

        Args:
            trainer: Its ranks share the folder.
            run_folder: The folder that takes the scores.
            stage: `val` or `test`.
            source: See the class.
            labels: See the class.
        """
        folder = run_folder / PREDICTIONS / f"{_UNFINISHED}{stage}-{trainer.strategy.broadcast(secrets.token_hex(8))}"
        masks = cls(folder, source, labels)
        if trainer.is_global_zero:
            _remove_abandoned(folder.parent)
            with name_errors(folder.parent, folder):
                folder.mkdir(parents=True)
                masks._locks.acquire(folder)
        trainer.strategy.barrier()
        return masks

    def add(self, prediction: Prediction, case: Case, stored: CachedCase, mean_dice: float) -> None:
        """Write a case's mask, and its picture if it may be wanted.

        Pictures show the worst and the best cases so far. If the source cannot write a mask, the case is left out and a
        warning follows at the end; a full disk stops the stage.

        Args:
            prediction: The decided mask with its reference.
            case: Its files, which say the format.
            stored: Its image.
            mean_dice: Mean over the labels, NaN where none has a score.
        """
        assert prediction.reference is not None, "scored cases have one"
        with name_errors(self.folder.parent, self.folder):
            try:
                self.source.write(self.folder, case, prediction.mask, self.labels)
            except (MedsegError, NotImplementedError) as error:  # sources of one's own may have no writer
                self.faults[case.case_id] = str(error) or f"{type(self.source).__name__} has no write"
            if self._select(case.case_id, mean_dice):
                self._draw(prediction, prediction.reference, stored)

    def warn_of_faults(self) -> None:
        """Name a mask that this rank could not write."""
        for case_id, fault in list(self.faults.items())[:1]:
            cases = count_noun(len(self.faults), "case")
            log.warning("Masks are not kept of %s, such as %s: %s", cases, case_id, fault)

    def finish(self, place: Path, means: Mapping[str, float], bins: Mapping[str, CalibrationSums]) -> None:
        """Move the folder to its place, on rank zero after all ranks.

        Args:
            place: A folder that does not exist.
            means: The mean Dice of every case of the stage.
            bins: The binned probabilities of each label, where they were measured.
        """
        with name_errors(place, self.folder):
            self.source.finish(self.folder)
            if bins:
                write_reliability(self.folder, {label: _to_lists(sums) for label, sums in bins.items()})
            self._remove_pictures(set(means) - set(select_cases(dict(sorted(means.items())))))
            self._locks.release()
            for name in self.folder.glob(".lock*"):
                name.unlink()
            self.folder.rename(place)

    def discard(self) -> None:
        """Remove everything after a stage that failed."""
        with suppress(OSError):
            shutil.rmtree(self.folder)
        self._locks.release()

    def _draw(self, prediction: Prediction, reference: UInt8[np.ndarray, "m d h w"], stored: CachedCase) -> None:
        picture = draw_case(
            stored.image,
            stored.statistics,
            reference,
            prediction.mask,
            prediction.geometry,
            telling=select_slice(self.labels.planes(reference), self.labels.planes(prediction.mask)),
            overlapping=self.labels.overlapping,
        )
        write_picture(picture_path(pictures_in(self.folder), prediction.case_id), picture)

    def _select(self, case_id: str, mean_dice: float) -> bool:
        """Decide whether to picture a case, and remove the picture it displaces."""
        self._pictured[case_id] = mean_dice
        dropped = set(self._pictured) - set(select_cases(dict(sorted(self._pictured.items()))))
        for name in dropped:
            del self._pictured[name]
        self._remove_pictures(dropped - {case_id})
        return case_id in self._pictured

    def _remove_pictures(self, case_ids: Collection[str]) -> None:
        for case_id in case_ids:
            picture_path(pictures_in(self.folder), case_id).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the folders of killed stages, whose locks nobody holds."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FolderLockedError), FolderLocks() as locks:
            locks.acquire(left)
            shutil.rmtree(left, ignore_errors=True)


def _to_lists(sums: CalibrationSums) -> dict[str, list[float]]:
    kept = {"voxels": sums.voxels, "positives": sums.positives, "probability": sums.probability}
    return {name: values.tolist() for name, values in kept.items()}


def average_dice(dice: Sequence[float]) -> float:
    """Average the labels of a case that have a score.

    It is NaN where none has.

    >>> average_dice([0.5, float("nan"), 1.0])
    0.75
    """
    known = [value for value in dice if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


class ScoreWriter(Callback):
    """Writes the scores of `validate` and `test`, and prints the summary.

    The files are `scores_<stage>.csv`, `summary_<stage>.json`, `objects_<stage>.csv` where `ObjectMetric` is among the
    metrics, and the masks in `predictions/<stage>/`. A training writes only the validation of the best weights, at its
    end.

    Args:
        directory: The folder of the files; the run folder by default.
        save_predictions: Whether masks are kept.

    Attributes:
        summary: The summary that was written last, if one was.
    """

    def __init__(self, directory: str | None = None, save_predictions: bool = True) -> None:
        self.directory = directory
        self.save_predictions = save_predictions
        self.summary: Path | None = None
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
        objects = module.evaluator.objects
        scores, summary = write_scores(
            Path(directory), stage, table, module.labels.names, strata=strata, facts=facts, objects=objects
        )
        if masks is not None:
            masks.finish(predictions_beside(scores), average_cases(table), bins)
        print_scores(scores, summary, stage)
        self.summary = locate_summary(scores)


def average_cases(table: Sequence[CaseScore]) -> dict[str, float]:
    """Average the Dice of each case over its labels, see `average_dice`."""
    cases: dict[str, list[float]] = {}
    for row in table:
        cases.setdefault(row.case_id, []).append(float(row.values["dice"]))
    return {case_id: average_dice(dice) for case_id, dice in cases.items()}
