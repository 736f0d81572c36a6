"""State keyed by case, and the one place where the rule for empty masks is written."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from medseg_pl.core.errors import DataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction
from medseg_pl.functional.overlap import OverlapCounts

OK, UNDEFINED, MISSED, FALSE_ALARM = "ok", "undefined", "missed", "false_alarm"


@dataclass(frozen=True)
class Score:
    """What one metric says of one case and label.

    Args:
        case_id: The case.
        group: Its patient.
        label: The label's name.
        values: Columns of the table, in its order.
        status: `ok`; `undefined` where both masks are empty; `missed` or `false_alarm` where only the prediction or
            only the reference is.
    """

    case_id: str
    group: str
    label: str
    values: Mapping[str, float | int]
    status: str


def status_of(counts: OverlapCounts) -> str:
    """Which of the two masks is empty."""
    if not counts.reference:
        return FALSE_ALARM if counts.prediction else UNDEFINED
    return OK if counts.prediction else MISSED


def with_empty_rule(value: float, counts: OverlapCounts) -> float:
    """Apply the rule to a score of which 1 is best: NaN where both masks are empty, 0 where exactly one is.

    So a prediction is never better off empty when the reference is not.

    >>> with_empty_rule(float("nan"), OverlapCounts(tp=0, fp=0, fn=5))
    0.0
    """
    status = status_of(counts)
    if status == UNDEFINED:
        return math.nan
    return value if status == OK else 0.0


class CaseMetric(Metric):
    """A metric that scores whole cases and keeps what it found by case.

    Processes are merged by case id: no padding, no duplicates, and the order in which cases came does not matter. A
    subclass implements `score`.

    Args:
        labels: The labels that are scored.
    """

    full_state_update = False

    def __init__(self, labels: LabelMap) -> None:
        # Scores are no tensors: `table` collects them from all processes, so torchmetrics need not.
        super().__init__(sync_on_compute=False)
        self.labels = labels
        self._scores: list[list[Score]] = []

    @abstractmethod
    def score(self, case: CasePrediction) -> list[Score]:
        """One entry for each label, in the order of the labels."""

    def update(self, case: CasePrediction) -> None:
        """Score one whole case.

        Raises:
            DataError: The case has no reference.
        """
        if case.reference is None:
            raise DataError(
                f"Case {case.case_id} has no reference, so it cannot be scored. Use predict for such cases."
            )
        self._scores.append(self.score(case))

    def table(self) -> list[Score]:
        """The scores of all processes, sorted by case.

        Raises:
            DataError: A case was scored twice.
        """
        merged: dict[str, list[Score]] = {}
        for scores in _from_all_processes(self._scores):
            if scores[0].case_id in merged:
                raise DataError(f"Case {scores[0].case_id} was scored twice. Case ids must be unique.")
            merged[scores[0].case_id] = scores
        return [score for case_id in sorted(merged) for score in merged[case_id]]

    def compute(self) -> dict[str, Tensor]:
        """The mean over cases of every column and label, `<column>/<label>`; NaN where no case defines it."""
        return _means(self.table())

    def forward(self, case: CasePrediction) -> dict[str, Tensor]:
        """Score one whole case and give its own scores, named as by `compute`."""
        # The base class would reset and restore the states it knows, which the table is none of.
        self.update(case)
        return _means(self._scores[-1])

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self._scores = []


def _means(table: list[Score]) -> dict[str, Tensor]:
    columns: dict[tuple[str, str], list[float]] = {(name, score.label): [] for score in table for name in score.values}
    for score in table:
        for name, value in score.values.items():
            columns[name, score.label].append(float(value))
    return {
        f"{name}/{label}": torch.tensor(values, dtype=torch.float64).nanmean()
        for (name, label), values in columns.items()
    }


def _from_all_processes(scores: list[list[Score]]) -> list[list[Score]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return scores
    gathered: list[list[list[Score]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, scores)
    return [entry for part in gathered for entry in part]
