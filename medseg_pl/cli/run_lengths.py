"""Run lengths in two tables, references beside a submission: the masks of the UW-Madison layout.

```
reference/train.csv, reference/train/…      the data set: id, class, segmentation
prediction/submission.csv                   as `medseg test` and `predict` write it: id, class, predicted
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_pl.cli.mask_pairs import MaskPair
from medseg_pl.core.errors import MissingDataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Prediction
from medseg_pl.data.sources.uw_madison import RunTable, UWMadisonSource

_REFERENCES, _SUBMISSION = "train.csv", "submission.csv"


@dataclass(frozen=True)
class RunLengthPair(MaskPair):
    """One case by its rows in both tables.

    Args:
        case: The slices that the masks lie on.
        source: Has the references.
        submission: Has the predictions; without rows of the case where it is incomplete.
    """

    case: Case
    source: UWMadisonSource
    submission: RunTable

    @property
    def knows_spacing(self) -> bool:
        """Always: names of slices say it."""
        return True

    @property
    def group(self) -> str:
        """The patient, as names of cases say."""
        return self.case.group

    @property
    def classes(self) -> list[str]:
        """The classes of the submission, in its order."""
        return self.submission.classes

    def read(self, labels: LabelMap, group: str, spacing_mm: tuple[float, float, float] | None = None) -> Prediction:
        """Draw both sides; a missing prediction is empty.

        Raises:
            DataError: A slice or a row is missing, or a row does not fit its slice.
        """
        volume = self.source.read(self.case, labels)
        assert volume.mask is not None, "cases of the source have masks"
        drawn = self.submission.draw(self.case, labels) if self.complete else np.zeros_like(volume.mask)
        return Prediction(self.case_id, group, volume.geometry, mask=drawn, reference=volume.mask)


def holds_run_lengths(reference: Path) -> bool:
    """Tell whether a reference folder is in the UW-Madison layout."""
    return (reference / _REFERENCES).is_file()


def pair_tables(reference: Path, prediction: Path, *, all_cases: bool) -> tuple[list[RunLengthPair], list[str], int]:
    """Pair the cases of a data set with those of a submission.

    Args:
        reference: The data set.
        prediction: The folder that holds `submission.csv`.
        all_cases: Whether cases that the submission lacks are paired with nothing; otherwise they are left out, since
            one table holds the references of all sides of a split.

    Returns:
        The pairs by name, the cases of the submission that the data set lacks, and how many cases were left out.

    Raises:
        MissingDataError: There is no submission, or it has none of the data set's cases.
    """
    table = prediction / _SUBMISSION
    if not table.is_file():
        raise MissingDataError(
            f"{reference / _REFERENCES} holds run lengths, but {table} does not exist. Set --prediction to a folder "
            "that medseg wrote for this data set, or --reference to a folder of masks."
        )
    source, submission = UWMadisonSource(str(reference)), RunTable(table, "predicted")
    cases = {case.case_id: case for case in source.cases()}
    predicted = set(submission.case_ids)
    chosen = [case for name, case in sorted(cases.items()) if all_cases or name in predicted]
    if predicted.isdisjoint(cases):
        raise MissingDataError(
            f"{table} has no case of {reference}: it is of {submission.case_ids[0]}, not of {next(iter(cases))} or "
            "others. Set --reference to the data set that was predicted."
        )
    pairs = []
    for case in chosen:
        found = table if case.case_id in predicted else None
        sides = (reference / _REFERENCES,), (found,)
        pairs.append(RunLengthPair(case.case_id, *sides, case=case, source=source, submission=submission))
    return pairs, sorted(predicted - set(cases)), len(cases) - len(chosen)
