"""Every case of a data set beside the prediction of models that were not trained on its patient."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from numpy.typing import NDArray

from medseg_pl.cli.parser import split_names
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.core.visualization import draw_side_by_side
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.sources.from_settings import open_source
from medseg_pl.inference.predictor import Predictor
from medseg_pl.inference.review.evidence import assess_reference
from medseg_pl.io.atomic_files import hash_file
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.output_folder import OutputFolder
from medseg_pl.io.progress import show_progress
from medseg_pl.training.callbacks import ReviewQueue
from medseg_pl.training.callbacks.overlay_writer import rgb_of
from medseg_pl.training.checkpoints import CheckpointInfo, read_checkpoint


def review(arguments: Namespace) -> None:
    """Review the cases that some checkpoint was not trained on, and write the queue.

    Raises:
        SettingError: A checkpoint does not say whom it was trained on.
        DataError: There is no case to review; or some could not be read, and the others were reviewed.
    """
    trained = [read_checkpoint(path) for path in arguments.ckpt_path]
    plugins = split_names(arguments.plugins)
    jury = CrossFoldPredictor(trained, arguments.device, plugins)
    source = open_source(trained[0].settings, arguments.data_root, plugins)
    cases = reviewable(source.cases(), jury)
    with FolderLocks() as locks:
        output = OutputFolder(arguments.output, _record(trained, source), locks)
        output.begin()
        queue = ReviewQueue(output, cases, jury.labels.names, arguments.top)
        faults = _review_all(cases, source, jury, queue)
        where = queue.write()
        if arguments.json:
            table = arguments.output / "review.csv"
            rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))) if table.is_file() else []
            sys.stdout.write(f"{json.dumps(rows, indent=1)}\n")
        else:
            sys.stdout.write(f"{where}\n")
    if faults:
        raise DataError(f"{len(faults)} cases could not be reviewed; the others were. {' '.join(faults)}")


class CrossFoldPredictor:
    """Models, and for each patient those that may judge.

    Args:
        trained: The checkpoints.
        device: Where to compute; a GPU by default, where there is one.
        plugins: Packages that the checkpoints' settings may name.

    Raises:
        SettingError: A checkpoint does not say whom it was trained on, or the models do not go together.
    """

    def __init__(self, trained: Sequence[CheckpointInfo], device: str | None, plugins: Sequence[str]) -> None:
        silent = [each.path for each in trained if "groups" not in each.data]
        if silent:
            raise SettingError(
                f"{abbreviate(silent)} does not say whom it was trained on, so nobody knows whom it may judge. Give "
                "checkpoints of medseg fit."
            )
        self.all = Predictor.from_checkpoint([each.path for each in trained], device=device, plugins=plugins)
        self.labels = self.all.labels
        self.groups = [frozenset(each.data["groups"]) for each in trained]

    def of(self, group: str) -> Predictor | None:
        """Those that were not trained on a patient, `None` where there are none."""
        indices = [index for index, groups in enumerate(self.groups) if group not in groups]
        return self.all.select_models(indices) if indices else None


def reviewable(cases: Sequence[Case], jury: CrossFoldPredictor) -> list[Case]:
    """The cases that have labels and somebody to judge them; says how many have not.

    Raises:
        DataError: There are none.
    """
    chosen = [case for case in cases if case.masks and jury.of(case.group) is not None]
    if not chosen:
        raise DataError(
            f"None of the {len(cases)} cases can be reviewed: every checkpoint was trained on all of their patients. "
            "Give the checkpoints of several folds."
        )
    if len(chosen) < len(cases):
        sys.stdout.write(
            f"{len(cases) - len(chosen)} of {len(cases)} cases are left out: they have no labels, or every checkpoint "
            "was trained on their patients. Checkpoints of all folds review every case.\n"
        )
    return chosen


def _review_all(cases: Sequence[Case], source: Source, jury: CrossFoldPredictor, queue: ReviewQueue) -> list[str]:
    """Returns what is wrong with the cases that could not be reviewed."""
    faults = []
    with show_progress("Reviewing", len(cases)) as advance:
        for case in cases:
            try:
                _review(case, source, jury, queue)
            except DataError as error:
                faults.append(str(error))
            advance()
    return faults


def _review(case: Case, source: Source, jury: CrossFoldPredictor, queue: ReviewQueue) -> None:
    """Compare the labels of a case with its prediction, unless that was done before."""
    if queue.is_finished(case):
        return
    predictor = jury.of(case.group)
    assert predictor is not None, "only such cases are chosen"
    volume = source.read(case, jury.labels)
    assert volume.mask is not None, "only such cases are chosen"
    what = f"Case {case.case_id} ({case.images[0]})"
    found = predictor.predict_volume(replace(volume, mask=None), what, probabilities=True)
    assert found.probabilities is not None, "asked for"
    signs = assess_reference(jury.labels, volume.mask, found.mask, found.probabilities, volume.geometry)
    with queue.open_case(case) as stage:
        queue.note(stage, case.case_id, signs, _picture(volume, volume.mask, found.mask, jury.labels, signs.slice))


def _picture(
    volume: Volume, reference: NDArray[np.uint8], mask: NDArray[np.uint8], labels: LabelMap, depth: int
) -> NDArray[np.uint8]:
    """A slice, and what was drawn and predicted on it."""
    rgb = rgb_of(volume.image, compute_channel_statistics(volume.image), depth)
    drawn, predicted = (labels.planes(each)[:, depth] for each in (reference, mask))
    return draw_side_by_side(rgb, drawn, predicted)


def _record(trained: Sequence[CheckpointInfo], source: Source) -> dict[str, Any]:
    """What a review follows from: where it is taken up again, it has to be the same."""
    return {
        "review": [hash_file(Path(each.path)) for each in trained],
        "source": [repr(part) for part in source.reading_settings()],
    }
