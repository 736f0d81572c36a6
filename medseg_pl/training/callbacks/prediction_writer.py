"""Callbacks that write predictions: masks in the format of their images, and pictures beside references."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError
from medseg_pl.core.image_findings import ImageFinding
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Prediction, Volume
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.sources import Source
from medseg_pl.inference.review_queue import ReviewQueue
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.io.case_pictures import choose_window, draw_contours, draw_side_by_side, to_rgb
from medseg_pl.io.folders import OutputFolder
from medseg_pl.io.paths import LeftOut
from medseg_pl.io.raster import write_png
from medseg_pl.metrics.case_metric import gather_from_ranks
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.prediction import (
    FINDINGS,
    CaseResult,
    Outcome,
    list_outcomes,
    mark_trained,
    note_trained,
    read_findings,
    summarize_outcomes,
    write_findings,
    write_outcomes,
)

_WHITE = 255


class OverlayWriter(Callback):
    """Draws image, reference and prediction of the first evaluated cases.

    `validate` and `test` get one PNG for each case. Of a volume it shows the slice that holds most of the labels.

    Args:
        cases: The number of cases, on each process.
        directory: The folder of the pictures; `overlays/` in the run folder by default.
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
        """Draw completed cases in `validate`, and at the end of training."""
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
    """Draw image, reference and prediction on the slice with most reference.

    Returns:
        `(H, W, 3)` picture.
    """
    assert case.reference is not None, "overlays compare with a reference"
    # By the reference and not the prediction, so that the slice is the same for every model.
    annotated = labels.planes(case.reference)
    depth = int(annotated.sum(axis=(0, 2, 3)).argmax())
    rgb = rgb_of(cached.image, cached.statistics, annotated, depth)
    return draw_side_by_side(rgb, annotated[:, depth], labels.planes(case.mask)[:, depth])


def rgb_of(image: NDArray[Any], statistics: NDArray[np.float32], planes: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    """Convert a slice to RGB, as bright as `choose_window` says.

    Args:
        image: `(C, D, H, W)` raw values.
        statistics: Of the channels, see `compute_channel_statistics`.
        planes: `(L, D, H, W)`, where each label is.
        depth: The number of the slice.
    """
    return to_rgb(image[:, depth], *choose_window(image, statistics, np.asarray(planes.any(axis=0))))


class Inputs(NamedTuple):
    """The inputs of a prediction.

    Attributes:
        root: The folder or file.
        cases: All cases in it, over all ranks.
        left_out: Files that belong to no case.
        finished: The cases that had been predicted before.
        trained: Names of cases that a checkpoint was trained on.
    """

    root: Path
    cases: Sequence[Case]
    left_out: Sequence[LeftOut]
    finished: frozenset[str]
    trained: frozenset[str] = frozenset()


class PredictionWriter(Callback):
    """Writes each case as soon as it is predicted, then all outcomes.

    The outcome of each input is written when the run ends, well or not.

    Args:
        output: The folder of the predictions.
        source: Knows the formats.
        inputs: All inputs, for `predictions.csv`.
        labels: With the values that are written.
        overlays: Whether a picture of each case is drawn as well, in `overlays/`.
        queue: Records what a review needs of each case.
    """

    def __init__(
        self,
        output: OutputFolder,
        source: Source,
        inputs: Inputs,
        labels: LabelMap,
        overlays: bool = False,
        queue: ReviewQueue | None = None,
    ) -> None:
        self.output = output
        self.source = source
        self.inputs = inputs
        self.labels = labels
        self.overlays = overlays
        self.queue = queue
        self.faults: dict[str, str] = {}
        self.written: frozenset[str] = frozenset()
        self.outcomes: list[Outcome] = []
        self._began = False

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the folder before any rank writes."""
        if trainer.is_global_zero:
            self.output.begin()
            self._table.unlink(missing_ok=True)  # an earlier run's; a run that is killed leaves none that looks new
            self._began = True
        trainer.strategy.barrier()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write the case, or note its fault."""
        for result in outputs:
            self._keep(result)

    def _keep(self, result: CaseResult) -> None:
        name = result.case.case_id
        if result.prediction is None:
            self.faults[name] = result.error
            return
        try:
            self._write(result, result.prediction)
        except DataError as error:  # what its format cannot hold or refer to; a full disk stops all
            self.faults[name] = str(error)
        else:
            self.written |= {name}

    def _write(self, result: CaseResult, prediction: Prediction) -> None:
        case, volume = result.case, result.volume
        assert volume is not None, "what was predicted had been read"
        with self.output.case(case.case_id, case.images) as stage:
            # Beside the mask and with it: a repeated run does not predict the case again and has to know them.
            write_findings(stage / self.output.note(case.case_id, FINDINGS), prediction.findings)
            self.source.write(stage, case, prediction.mask, self.labels)
            if prediction.probabilities is not None:
                _write_probabilities(stage / "probabilities" / f"{case.case_id}.npz", prediction, self.labels)
            if self.overlays:
                write_png(stage / "overlays" / f"{case.case_id}.png", picture(volume, prediction.mask, self.labels))
            if self.queue and result.evidence:
                drawn = picture(volume, prediction.mask, self.labels, result.evidence.slice)
                self.queue.note(stage, case.case_id, result.evidence, drawn)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the files of formats that want one, after all ranks."""
        parts = gather_from_ranks([(self.written, self.faults)])
        self.written = frozenset[str]().union(*(written for written, _ in parts))
        self.faults = {name: fault for _, faults in parts for name, fault in faults.items()}
        root, cases, left_out, finished, trained = self.inputs
        limited = _is_limited(trainer)
        findings = self._read_findings(finished | self.written)
        outcomes = list_outcomes(
            cases, left_out, finished, self.faults, self.written, root, limited=limited, findings=findings
        )
        self.outcomes = mark_trained(outcomes, trained)
        if trainer.is_global_zero:
            self.source.finish(self.output.directory)
            write_outcomes(self._table, self.outcomes)
            sys.stdout.write(f"{summarize_outcomes(self.outcomes, self.output.directory)}\n")
            if seen := note_trained(self.outcomes):
                sys.stdout.write(f"{seen}\n")
            if self.written and set(self.labels.values or ()) == {_WHITE}:
                sys.stdout.write(f"Masks hold 0 and {_WHITE}, as the training masks do.\n")
            if self.queue:
                sys.stdout.write(f"{self.queue.write()}\n")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the outcomes of inputs so far, as this rank knows them.

        Nothing is gathered from stopped ranks.
        """
        if not (trainer.is_global_zero and self._began):  # before, the folder may be another run's
            return
        # The disk may be full still, or gone. What stopped the run is what is to be told, not that it cannot be listed.
        with contextlib.suppress(OSError):
            root, cases, left_out, finished, trained = self.inputs
            # What other ranks wrote is known by its marks on the disk.
            written = frozenset(case.case_id for case in cases if self.output.is_finished(case.case_id, case.images))
            done, findings = self.written | written, self._read_findings(written)
            outcomes = list_outcomes(cases, left_out, finished, self.faults, done, root, findings=findings)
            self.outcomes = mark_trained(outcomes, trained)
            write_outcomes(self._table, self.outcomes)

    def _read_findings(self, cases: Iterable[str]) -> dict[str, list[ImageFinding]]:
        """Read the findings of cases of all ranks and earlier runs."""
        notes = {name: self.output.directory / self.output.note(name, FINDINGS) for name in cases}
        return {name: read_findings(path) for name, path in notes.items()}

    @property
    def _table(self) -> Path:
        return self.output.directory / "predictions.csv"


def picture(volume: Volume, mask: NDArray[np.uint8], labels: LabelMap, depth: int | None = None) -> NDArray[np.uint8]:
    """Draw a slice of a prediction without and with outlines.

    Args:
        volume: The image.
        mask: The prediction.
        labels: Its labels.
        depth: The number of the slice; by default the one with most of the prediction.
    """
    planes = labels.planes(mask)
    depth = int(planes.sum(axis=(0, 2, 3)).argmax()) if depth is None else depth
    rgb = rgb_of(volume.image, compute_channel_statistics(volume.image), planes, depth)
    return np.concatenate([rgb, draw_contours(rgb, planes[:, depth])], axis=1)


def _is_limited(trainer: Trainer) -> bool:
    """Tell whether the settings limit the batches.

    An integer counts them, a float is a share.
    """
    limit: int | float = trainer.limit_predict_batches
    return isinstance(limit, int) or limit < 1.0


def _write_probabilities(path: Path, prediction: Prediction, labels: LabelMap) -> None:
    """Write probabilities `(K, D, H, W)` with the labels' names."""
    # Half precision would move what is close to one half.
    assert prediction.probabilities is not None, "asked for"
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=prediction.probabilities, labels=np.array(labels.names))
