"""The order in which to look at predictions, made of what was taken down of each case: it survives an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.types import Case
from medseg_pl.inference.review import CaseEvidence, format_ranking, name_picture, rank_cases
from medseg_pl.io.atomic_files import whole_file, write_text
from medseg_pl.io.output_folder import OutputFolder
from medseg_pl.io.raster import write_png
from medseg_pl.io.scores import write_rows


class ReviewQueue:
    """`review.csv`, and pictures of the first cases in `review/`.

    Args:
        output: Where the predictions are.
        cases: All that are, or will be, predicted.
        labels: What the labels are called.
        top: How many pictures.
    """

    def __init__(self, output: OutputFolder, cases: Sequence[Case], labels: Sequence[str], top: int) -> None:
        self.output = output
        self.cases = cases
        self.labels = labels
        self.top = top

    def note(self, stage: Path, case_id: str, signs: CaseEvidence, picture: NDArray[np.uint8]) -> None:
        """Take down what a case says of itself, among the files that it is written to."""
        write_text(stage / self.output.note(case_id, ".json"), json.dumps(signs.as_dict(), allow_nan=False) + "\n")
        write_png(stage / self.output.note(case_id, ".png"), picture)

    def is_finished(self, case: Case) -> bool:
        """Whether a case was taken down before, and its files are still the same."""
        return self.output.is_finished(case.case_id, _inputs(case))

    def case(self, case: Case) -> AbstractContextManager[Path]:
        """A folder for what is written of a case, see `OutputFolder.case`."""
        return self.output.case(case.case_id, _inputs(case))

    def write(self) -> str:
        """Put all finished cases in order; returns a line that says where."""
        finished = [case.case_id for case in self.cases if self.is_finished(case)]
        if not finished:
            return "No case is there to be reviewed."
        queued = rank_cases({name: self._noted(name) for name in finished}, self.labels)
        table = self.output.directory / "review.csv"
        write_rows(table, format_ranking(queued), replace=True)
        folder = self.output.directory / "review"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, when cases were missing
        for rank, each in enumerate(queued[: self.top], start=1):
            with whole_file(folder / name_picture(rank, each.case_id)) as temporary:
                shutil.copyfile(self.output.directory / self.output.note(each.case_id, ".png"), temporary)
        return f"Where to look first: {table}"

    def _noted(self, case_id: str) -> CaseEvidence:
        return CaseEvidence.from_dict(
            json.loads((self.output.directory / self.output.note(case_id, ".json")).read_text())
        )


def _inputs(case: Case) -> tuple[Path, ...]:
    return (*case.images, *case.masks)
