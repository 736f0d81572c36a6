"""The pixels of the page: cases that are read and predicted again, as far as that is possible here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medseg_pl.core.intensity import channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction, Volume
from medseg_pl.core.visualization import telling_slice
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.progress import progress_bar
from medseg_pl.metrics.case_metric import LabelPair
from medseg_pl.metrics.functional.calibration import CalibrationSums, calibration_sums
from medseg_pl.metrics.functional.overlap import dice
from medseg_pl.reporting.html.case_data import attempt, data_set_of, predictor_of
from medseg_pl.reporting.html.case_images import Masks, case_images, thumbnail
from medseg_pl.reporting.html.case_selection import Pictures, chosen_cases, galleries
from medseg_pl.reporting.html.cases import CaseEntry
from medseg_pl.reporting.run import Run, read_number

PAGE_BYTES = 15_000_000
"""What the pictures of a page may take together."""
_MOST_FOR_A_CASE = 900_000
_BINS = 10
_MOST_PROBABILITIES = 2**28
"""Numbers: a case with more is predicted without its probabilities."""
_SAME = 0.01
"""By how much a Dice may differ from the table: half precision and another device round differently."""


def gather(
    runs: Sequence[Run], entries: Sequence[CaseEntry], most: int, where: Path | None, plugins: Sequence[str]
) -> Pictures:
    """Read and predict cases again; what cannot be is left out, with a note.

    Args:
        runs: The runs.
        entries: The cases, the worst first.
        most: How many cases get pictures.
        where: The folder that the data set is in now; that of the training by default.
        plugins: Packages of code that the checkpoints' settings may name.
    """
    found = Pictures(calibration=[{} for _ in runs])
    chosen = chosen_cases(entries, most)
    if not chosen:
        return found
    predictors = [attempt(partial(predictor_of, run, plugins), found.notes) for run in runs]
    known = [(run, predictor) for run, predictor in zip(runs, predictors, strict=True) if predictor]
    data = attempt(partial(data_set_of, known[0][0], where, plugins), found.notes) if known else None
    if data is None:
        return found
    labels = known[0][1].labels
    found.overlapping = labels.overlapping
    same = [predictor if predictor and _same_labels(predictor.labels, labels) else None for predictor in predictors]
    sorter = _Sorter(found, labels, {entry.number for entry in galleries(chosen)}, PAGE_BYTES // len(chosen))
    with progress_bar("Predicting cases", len(chosen)) as advance:
        for entry in chosen:
            volume = attempt(partial(data.read, entry.case_id, labels), found.notes)
            if volume is not None:
                predictions = [attempt(partial(_predict, each, volume, entry), found.notes) for each in same]
                sorter.add(entry, volume, predictions)
            advance()
    return found


class _Sorter(NamedTuple):
    """Takes one case after the other, and keeps of it what the page needs.

    Attributes:
        found: Where it is kept.
        labels: What the masks hold.
        galleries: The places of the cases that are in a gallery.
        budget: Bytes for each case.
    """

    found: Pictures
    labels: LabelMap
    galleries: set[int]
    budget: int

    def add(self, entry: CaseEntry, volume: Volume, predictions: Sequence[Prediction | None]) -> None:
        """Keep a case."""
        shown = [prediction for prediction in predictions if prediction is not None]
        if not shown:
            return
        assert volume.mask is not None, "the data set has checked it"
        reference = self.labels.planes(volume.mask)
        planes = [self.labels.planes(prediction.mask) for prediction in shown]
        place = telling_slice(reference, planes[0])
        statistics = channel_statistics(volume.image)
        masks = Masks(volume.mask, [prediction.mask if prediction else None for prediction in predictions])
        budget = min(_MOST_FOR_A_CASE, self.budget)
        self.found.cases[entry.number] = case_images(volume.image, statistics, masks, volume.geometry, place, budget)
        if entry.number in self.galleries:
            panels = [each[:, place] for each in (reference, *planes)]
            self.found.thumbnails[entry.number] = thumbnail(volume.image[:, place], statistics, panels)
        for run, prediction in enumerate(predictions):
            if prediction is not None:
                self._judge(run, entry, volume, prediction)

    def _judge(self, run: int, entry: CaseEntry, volume: Volume, prediction: Prediction) -> None:
        """Whether the masks are those that were scored, and whether the probabilities mean what they say."""
        case = Prediction("", "", volume.geometry, prediction.mask, volume.mask, prediction.probabilities)
        for index, label in enumerate(self.labels.names):
            pair = LabelPair(case, self.labels, index)
            row = entry.scores[run].get(label)
            scored = np.nan_to_num(read_number(row, "dice"), nan=-1.0) if row is not None else None
            now = np.nan_to_num(dice(pair.counts), nan=-1.0)
            if scored is not None and abs(scored - now) > _SAME:
                self.found.cases[entry.number]["differs"] = True
            if prediction.probabilities is not None:
                sums = calibration_sums(pair.probability, pair.reference, pair.annotated, _BINS)
                before = self.found.calibration[run].get(label)
                self.found.calibration[run][label] = sums if before is None else _added(before, sums)


def _predict(predictor: Predictor | None, volume: Volume, entry: CaseEntry) -> Prediction | None:
    if predictor is None:
        return None
    few = predictor.labels.classes * volume.image[0].size <= _MOST_PROBABILITIES
    return predictor.predict_volume(volume, f"Case {entry.case_id}", probabilities=few)


def _added(one: CalibrationSums, other: CalibrationSums) -> CalibrationSums:
    return CalibrationSums(
        one.voxels + other.voxels,
        one.positives + other.positives,
        one.probability + other.probability,
        one.squared_error + other.squared_error,
    )


def _same_labels(one: LabelMap, other: LabelMap) -> bool:
    return (list(one.names), one.task) == (list(other.names), other.task)
