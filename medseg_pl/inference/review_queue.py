"""Ranking of cases by their evidence, and the files that tell a person where to look first.

References:
    Iglewicz and Hoaglin, "How to detect and handle outliers", 1993, for the spread of `implausibility`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from medseg_pl.core.types import Case
from medseg_pl.inference.evidence import CaseEvidence, Evidence, LabelEvidence
from medseg_pl.io.atomic_files import write_atomically, write_text
from medseg_pl.io.folders import OutputFolder
from medseg_pl.io.raster import write_png
from medseg_pl.io.scores import write_rows

FEWEST_CASES = 8
"""With fewer cases nothing is known of what is usual."""

_LEAST_WORTH_SAYING = 0.05

_USUAL_DEVIATIONS = 3.0

_RARE_SHARE = 0.1

_LEAST_SPREAD = math.log(1.1)

_MAD_TO_STANDARD_DEVIATION = 1.4826


class RankedCase(NamedTuple):
    """A case in the ranking.

    Attributes:
        case_id: The case.
        score: From 0 to 1, of the label for which it is highest.
        label: That label.
        strengths: Its evidence by kind; NaN if unknown.
        reason: The evidence that counts, in words.
    """

    case_id: str
    score: float
    label: str
    strengths: dict[str, float]
    reason: str


def rank_cases(cases: Mapping[str, CaseEvidence], names: Sequence[str]) -> list[RankedCase]:
    """Rank all cases, with the one to review first on top.

    The evidence against a label, that of its size among all cases with it, counts by how much it exceeds what is usual
    for the label, and a case counts by its worst label.

    Args:
        cases: The evidence of at least one case.
        names: The names of the labels.
    """
    ids = sorted(cases)
    columns = [_add_implausibility([cases[name].labels[index] for name in ids]) for index in range(len(names))]
    scores = np.array(
        [
            excess_over_median([combine_evidence([each.strength for each in kinds.values()]) for kinds in column])
            for column in columns
        ]
    )
    ranked = []
    for index, name in enumerate(ids):
        worst = int(scores[:, index].argmax())
        evidence = columns[worst][index]
        strengths = {kind: each.strength for kind, each in evidence.items()}
        reason = _explain(names[worst], evidence)
        ranked.append(RankedCase(name, float(scores[worst, index]), names[worst], strengths, reason))
    return sorted(ranked, key=lambda case: (-case.score, case.case_id))


def format_ranking(ranked: Sequence[RankedCase]) -> list[dict[str, str | int | float]]:
    """Format a ranking as rows of a table."""
    return [
        {
            "rank": rank,
            "case_id": case.case_id,
            "score": round(case.score, 4),
            "label": case.label,
            **{name: round(strength, 4) for name, strength in case.strengths.items()},
            "reason": case.reason,
        }
        for rank, case in enumerate(ranked, start=1)
    ]


def name_picture(rank: int, case_id: str) -> str:
    """Name a picture so that pictures sort as the ranking does.

    >>> name_picture(7, "patient3/ct")
    '0007_patient3_ct.png'
    """
    return f"{rank:04d}_{case_id.replace('/', '_')}.png"


class ReviewQueue:
    """Write `review.csv`, and pictures of the first cases in `review/`.

    An interrupted review can be resumed.

    Args:
        output: The folder of the predictions.
        cases: All cases that are, or will be, predicted.
        labels: The names of the labels.
        top: The number of pictures.
    """

    def __init__(self, output: OutputFolder, cases: Sequence[Case], labels: Sequence[str], top: int) -> None:
        self.output = output
        self.cases = cases
        self.labels = labels
        self.top = top

    def note(self, stage: Path, case_id: str, evidence: CaseEvidence, picture: NDArray[np.uint8]) -> None:
        """Write a case's evidence and `(H, W, 3)` picture beside its files."""
        write_text(stage / self.output.note(case_id, ".json"), json.dumps(evidence.as_dict(), allow_nan=False) + "\n")
        write_png(stage / self.output.note(case_id, ".png"), picture)

    def is_finished(self, case: Case) -> bool:
        """Tell whether a case was noted before and its files are unchanged."""
        return self.output.is_finished(case.case_id, (*case.images, *case.masks))

    def open_case(self, case: Case) -> AbstractContextManager[Path]:
        """Open a folder for the files of a case, see `OutputFolder.case`."""
        return self.output.case(case.case_id, (*case.images, *case.masks))

    def write(self) -> str:
        """Rank all finished cases, and return a line that says where."""
        finished = [case.case_id for case in self.cases if self.is_finished(case)]
        if not finished:
            return "No case is there to be reviewed."
        notes = {name: self.output.directory / self.output.note(name, ".json") for name in finished}
        evidence = {name: CaseEvidence.from_dict(json.loads(path.read_text())) for name, path in notes.items()}
        ranked = rank_cases(evidence, self.labels)
        table = self.output.directory / "review.csv"
        write_rows(table, format_ranking(ranked), replace=True)
        folder = self.output.directory / "review"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, when cases were missing
        for rank, case in enumerate(ranked[: self.top], start=1):
            with write_atomically(folder / name_picture(rank, case.case_id)) as temporary:
                shutil.copyfile(self.output.directory / self.output.note(case.case_id, ".png"), temporary)
        return f"Where to look first: {table}"


def implausibility(sizes: Sequence[float]) -> Float64[np.ndarray, "n"]:
    """Compute how unusual the size of a label is in each case.

    Where a label is present, it is 0 up to 3 robust standard deviations from the median, 0.5 at 6, and rises towards 1.
    Where the label is absent, or present although most cases lack it, it is 0 if a tenth of the cases or more are like
    that, and rises towards 1 if no other is.

    Args:
        sizes: One for each case; 0 is returned for all where there are fewer than `FEWEST_CASES`.

    >>> implausibility([100, 100, 90, 110, 100, 95, 105, 10, 100]).round(2)[[2, 7]]
    array([0.  , 0.88])
    >>> implausibility([*[100.0] * 19, 0]).round(2)[[0, 19]]
    array([0. , 0.5])
    """
    values = np.asarray(sizes, dtype=np.float64)
    present = values > 0
    unusual = np.zeros(len(values))
    if len(values) < FEWEST_CASES:
        return unusual
    if present.sum() >= FEWEST_CASES:
        # Logarithms: twice and half the usual size are as unusual, whatever the unit.
        logarithms = np.log(values[present])
        deviations = np.abs(logarithms - np.median(logarithms))
        # A label that all cases have at one size has no spread; a tenth of the size is taken for one.
        spread = max(_MAD_TO_STANDARD_DEVIATION * float(np.median(deviations)), _LEAST_SPREAD)
        unusual[present] = 1 - _USUAL_DEVIATIONS / np.maximum(deviations / spread, _USUAL_DEVIATIONS)
    for alike in (present, ~present):
        rarity = max(0.0, 1 - float(alike.mean()) / _RARE_SHARE)
        unusual[alike] = np.maximum(unusual[alike], rarity)
    return unusual


def combine_evidence(strengths: Sequence[float]) -> float:
    """Compute the chance that any of independent pieces of evidence is true.

    NaN counts as none.

    >>> combine_evidence([0.5, 0.5, math.nan])
    0.75
    """
    return 1 - math.prod(1 - strength for strength in strengths if not math.isnan(strength))


def excess_over_median(strengths: Sequence[float]) -> Float64[np.ndarray, "n"]:
    """Subtract the median over all cases from evidence.

    Evidence that all cases have is no reason to review one of them. With fewer than `FEWEST_CASES` the strengths are
    returned as they are.

    >>> excess_over_median([0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]).tolist()
    [0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    values = np.asarray(strengths, dtype=np.float64)
    return values if len(values) < FEWEST_CASES else np.maximum(values - np.median(values), 0)


def _add_implausibility(cases: Sequence[LabelEvidence]) -> list[dict[str, Evidence]]:
    """Add the evidence of a label's size compared with all cases."""
    sizes = [case.size for case in cases]
    usual = cases[int(np.argsort(sizes, kind="stable")[len(sizes) // 2])].size_words
    return [
        {**case.evidence, "size": Evidence(float(strength), f"{case.size_words} of it, where {usual} are usual")}
        for case, strength in zip(cases, implausibility(sizes), strict=True)
    ]


def _explain(label: str, evidence: Mapping[str, Evidence]) -> str:
    """Join the words of the evidence that counts, the strongest first."""
    counting = [each for each in evidence.values() if each.strength >= _LEAST_WORTH_SAYING]
    ordered = sorted(counting, key=lambda each: -each.strength)
    return f"{label}: {'; '.join(each.words for each in ordered)}" if ordered else ""
