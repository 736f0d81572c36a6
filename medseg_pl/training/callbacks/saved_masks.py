"""The masks of a scored stage, in the run folder beside their scores."""

from __future__ import annotations

import logging
import math
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch import Trainer

from medseg_pl.core.errors import FolderLockedError, MedsegError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Prediction
from medseg_pl.core.visualization import select_slice
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.sources import Source
from medseg_pl.io.atomic_files import name_errors
from medseg_pl.io.case_pictures import draw_case, picture_path, select_cases, write_picture
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.scores import PREDICTIONS, pictures_in, write_reliability
from medseg_pl.metrics.functional.calibration import CalibrationSums

log = logging.getLogger(__name__)

_UNFINISHED = ".writing-"


class SavedMasks:
    """The masks of a stage while it runs; they move to their place, all at once, when their scores are written.

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
        """Write the mask of a case, and its picture if it is one of the worst or best so far.

        A mask that the source cannot write is left out with a warning at the end; a full disk stops the stage.

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
            log.warning("The masks of %d case(s) are not kept, %s among them: %s", len(self.faults), case_id, fault)

    def finish(self, place: Path, means: Mapping[str, float], bins: Mapping[str, CalibrationSums]) -> None:
        """Move the folder to its place; on rank zero, once all ranks have written.

        Args:
            place: A folder that is not there.
            means: The mean Dice of every case of the stage.
            bins: What each label's probabilities come to, where they were measured.
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
        """Remove everything; the stage did not end well."""
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
        """Decide whether a case is pictured, and remove the picture of another that no longer is."""
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
    """Remove the folders of stages that were killed; nobody has the locks of these."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FolderLockedError), FolderLocks() as locks:
            locks.acquire(left)
            shutil.rmtree(left, ignore_errors=True)


def _to_lists(sums: CalibrationSums) -> dict[str, list[float]]:
    kept = {"voxels": sums.voxels, "positives": sums.positives, "probability": sums.probability}
    return {name: values.tolist() for name, values in kept.items()}


def average_dice(dice: Sequence[float]) -> float:
    """Average the labels of a case that have a score; NaN where none has.

    >>> average_dice([0.5, float("nan"), 1.0])
    0.75
    """
    known = [value for value in dice if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
