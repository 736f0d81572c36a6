"""State keyed by case, and the one place where the rule for empty masks is written."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from medseg_pl.core.errors import DataError, SettingError, count_noun, count_part
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.io.scores import DISTANCES
from medseg_pl.metrics.functional.overlap import OverlapCounts, count

T = TypeVar("T")
OK, UNDEFINED, MISSED, FALSE_ALARM = "ok", "undefined", "missed", "false_alarm"
NOT_ANNOTATED = "not_annotated"


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case and label: a row of the table.

    Args:
        case_id: The case.
        group: Its patient.
        label: The label's name.
        values: Columns of the table, in its order.
        status: `ok`; `undefined` where both masks are empty; `missed` or `false_alarm` where only the prediction or
            only the reference is; `not_annotated` where the label was not annotated, and no column has a value.
        unit: The unit of distances: `mm`, or `px` where the spacing is unknown.
    """

    case_id: str
    group: str
    label: str
    values: Mapping[str, float | int]
    status: str
    unit: str


@dataclass(frozen=True)
class LabelPair:
    """Prediction and reference of one label as boolean masks, whatever the task.

    Voxels that the reference ignores (255) are in neither mask, nor are any of a label that was not annotated.

    Args:
        case: The case, which has a reference.
        labels: The labels that are scored.
        index: The label, counted from 0.
    """

    case: Prediction
    labels: LabelMap
    index: int

    @property
    def label(self) -> str:
        """The label's name."""
        return self.labels.names[self.index]

    @property
    def is_annotated(self) -> bool:
        """Whether the label was looked for in the case."""
        return self.labels.find_annotated(self.case.annotated_labels)[self.index]

    @cached_property
    def annotated(self) -> Bool[np.ndarray, "d h w"]:
        """The voxels that count."""
        assert self.case.reference is not None, "CaseMetric.update has checked it"
        counted = self.labels.find_unannotated(self.case.reference, self.index)
        np.logical_not(counted, out=counted)
        return counted if self.is_annotated else np.zeros_like(counted)

    @cached_property
    def reference(self) -> Bool[np.ndarray, "d h w"]:
        """The voxels that were annotated as the label."""
        assert self.case.reference is not None, "CaseMetric.update has checked it"
        marked = self.labels.plane(self.case.reference, self.index)
        return marked if self.is_annotated else np.zeros_like(marked)

    @cached_property
    def prediction(self) -> Bool[np.ndarray, "d h w"]:
        """The voxels that were predicted as the label."""
        found = self.labels.plane(self.case.mask, self.index)
        np.logical_and(found, self.annotated, out=found)
        return found

    @property
    def probability(self) -> Float[np.ndarray, "d h w"]:
        """Probability of the label at each voxel.

        Raises:
            DataError: The case was made without probabilities.
        """
        if self.case.probabilities is None:
            raise DataError(f"Case {self.case.case_id} has no probabilities; only its decided mask is known.")
        return self.labels.probability(self.case.probabilities, self.index)

    @cached_property
    def counts(self) -> OverlapCounts:
        """The voxels of both masks."""
        return count(self.prediction, self.reference)

    @property
    def status(self) -> str:
        """Say which mask is empty, or that nobody looked."""
        if not self.is_annotated:
            return NOT_ANNOTATED
        if not self.counts.reference:
            return FALSE_ALARM if self.counts.prediction else UNDEFINED
        return OK if self.counts.prediction else MISSED


def apply_empty_mask_rule(
    pair: LabelPair, worst: Mapping[str, float], compute: Callable[[], Mapping[str, float]]
) -> dict[str, float]:
    """Apply the rule for empty masks to scores.

    Scores are NaN where both masks are empty, and the worst where exactly one is. So a prediction is never better off
    empty when the reference is not.

    Args:
        pair: The two masks.
        worst: The worst value of each score.
        compute: Gives the same scores where neither mask is empty.
    """
    if pair.status in (UNDEFINED, NOT_ANNOTATED):
        return dict.fromkeys(worst, math.nan)
    return dict(compute() if pair.status == OK else worst)


class CaseMetric(Metric):
    """A metric that scores whole cases and keeps each score.

    Processes are merged by case id: no padding, no duplicates, and the order in which cases came does not matter. A
    subclass implements `score`. It is a `torchmetrics.Metric`: it works alone, in a `MetricCollection` and in any
    `LightningModule`, on one process or many:

    ```python
    self.metric = OverlapMetric(LabelMap(["liver", "tumour"], "multiclass"))        # in the constructor
    self.metric.update(Prediction.from_masks(case_id, prediction, reference))   # for each case, in a step
    self.log_dict(self.metric.compute())                                            # at the epoch's end
    self.metric.reset()
    ```

    Args:
        labels: The labels that are scored.
    """

    full_state_update = False
    in_training = True
    """Whether the validations of a training are scored too; false for what takes long."""
    needs_probabilities = False
    """Whether cases must come with their probabilities, which are many times larger than masks."""

    def __init__(self, labels: LabelMap) -> None:
        # Scores are no tensors: `table` collects them from all processes, so torchmetrics need not.
        super().__init__(sync_on_compute=False)
        self.labels = labels
        self._scores: list[list[CaseScore]] = []

    @abstractmethod
    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute the columns of one label of one case."""

    def update(self, case: Prediction) -> None:
        """Score one whole case.

        Args:
            case: The case with its reference.

        Raises:
            DataError: The case has no reference, or its masks do not fit the labels and each other.
        """
        if case.reference is None:
            raise DataError(
                f"Case {case.case_id} has no reference, so it cannot be scored. Use predict for such cases."
            )
        self._check_shapes(case, case.reference)
        self._check_values(case, case.reference)
        pairs = (LabelPair(case, self.labels, index) for index in range(len(self.labels.names)))
        self._scores.append([self._score_label(pair) for pair in pairs])

    def table(self) -> list[CaseScore]:
        """Collect the scores of all processes, sorted by case.

        Raises:
            DataError: A case was scored twice.
        """
        merged: dict[str, list[CaseScore]] = {}
        for scores in gather_from_ranks(self._scores):
            if scores[0].case_id in merged:
                raise DataError(f"Case {scores[0].case_id} was scored twice. Case ids must be unique.")
            merged[scores[0].case_id] = scores
        return [score for case_id in sorted(merged) for score in merged[case_id]]

    def rows(self, case_id: str) -> list[CaseScore]:
        """Return the scores of a case from this process.

        The latest cases are found fastest.
        """
        return next(scores for scores in reversed(self._scores) if scores[0].case_id == case_id)

    def compute(self) -> dict[str, Tensor]:
        """Average each column and label over cases, as `<column>/<label>`.

        An average is NaN without any case.
        """
        return _average_columns(self.table())

    def forward(self, case: Prediction) -> dict[str, Tensor]:
        """Score one whole case; return its scores, named as by `compute`."""
        # The base class would reset and restore the states it knows, which the table is none of.
        self.update(case)
        return _average_columns(self._scores[-1])

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self._scores = []

    def _check_shapes(self, case: Prediction, reference: NDArray[np.uint8]) -> None:
        """Check shapes: numpy would stretch a mask of one row."""
        expected = (self.labels.mask_channels, *case.geometry.shape)
        if case.mask.shape != expected or reference.shape != expected:
            raise DataError(
                f"Case {case.case_id}: the prediction has the shape {case.mask.shape} and the reference "
                f"{reference.shape}; expected {expected} for both: the mask channels of the task {self.labels.task}, "
                "then the case's grid."
            )

    def _check_values(self, case: Prediction, reference: NDArray[np.uint8]) -> None:
        """Refuse values without a label, which would silently count as background."""
        highest = 1 if self.labels.overlapping else len(self.labels.names)
        annotated = reference[reference != IGNORE]
        for what, values in (("prediction", case.mask), ("reference", annotated)):
            if values.max(initial=0) > highest:
                raise DataError(
                    f"Case {case.case_id}: the {what} holds the value {values.max()}; expected 0 to {highest} for the "
                    f"labels {', '.join(self.labels.names)}, task {self.labels.task}."
                )

    def _score_label(self, pair: LabelPair) -> CaseScore:
        case, values = pair.case, dict(self.score(pair))
        # Counts too: a 0 would say that nothing was there, and nobody knows.
        values = values if pair.is_annotated else dict.fromkeys(values, math.nan)
        return CaseScore(case.case_id, case.group, pair.label, values, pair.status, case.geometry.unit)


def _average_columns(table: list[CaseScore]) -> dict[str, Tensor]:
    """Average each column, with NaN for distances in mixed units."""
    mixed = DISTANCES if len({score.unit for score in table}) > 1 else ()
    columns: dict[tuple[str, str], list[float]] = {(name, score.label): [] for score in table for name in score.values}
    for score in table:
        for name, value in score.values.items():
            columns[name, score.label].append(math.nan if name in mixed else float(value))
    return {
        f"{name}/{label}": torch.tensor(values, dtype=torch.float64).nanmean()
        for (name, label), values in columns.items()
    }


def gather_from_ranks(entries: list[T]) -> list[T]:
    """Gather the entries of all processes by rank; each must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return entries
    gathered: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, entries)
    return [entry for part in gathered for entry in part]


class MetricTable:
    """Scores cases by several metrics, in one table for all processes.

    Args:
        metrics: In the order of their columns.

    Raises:
        SettingError: Two metrics would write the same columns.
    """

    def __init__(self, metrics: Sequence[CaseMetric]) -> None:
        kinds = [type(metric).__name__ for metric in metrics]
        twice = [kind for kind in kinds if kinds.count(kind) > 1]
        if twice:
            raise SettingError(
                f"{twice[0]} is there twice and would write its columns twice. Overlap, distances and volumes are "
                "always measured: leave them out of model.metrics, and name others once."
            )
        self.metrics = list(metrics)

    def add(self, case: Prediction) -> None:
        """Score one whole case."""
        for metric in self.metrics:
            metric.update(case)

    def table(self, expected: Collection[str] | None = None) -> list[CaseScore]:
        """Return the same rows on every process, sorted by case.

        There is one row for each case and label.

        Args:
            expected: The ids of the cases that had to be scored, no more and no fewer; unknown where `None`.

        Raises:
            DataError: A case was scored twice, by nobody, or though nobody expected it.
        """
        rows = _join_tables([metric.table() for metric in self.metrics])
        if expected is not None:
            _require_all({row.case_id for row in rows}, set(expected))
        return rows

    def reset(self) -> None:
        """Forget all cases."""
        for metric in self.metrics:
            metric.reset()


def _require_all(scored: set[str], expected: set[str]) -> None:
    absent, foreign = sorted(expected - scored), sorted(scored - expected)
    if absent:
        raise DataError(
            f"{count_part(len(absent), len(expected), 'case', 'was', 'were')} scored by no process, {absent[0]} among "
            "them, so no score is given. The sampler must serve every case; leave trainer.use_distributed_sampler off."
        )
    if foreign:
        raise DataError(
            f"{count_noun(len(foreign), 'scored case is', 'scored cases are')} none of the {len(expected)} expected, "
            f"{foreign[0]} among them, so no score is given. The loader serves other cases than its data set names."
        )


def _join_tables(tables: Sequence[Sequence[CaseScore]]) -> list[CaseScore]:
    """Join the columns of all metrics."""
    rows = []
    for same in zip(*tables, strict=True):
        first = same[0]
        values = {name: value for score in same for name, value in score.values.items()}
        rows.append(CaseScore(first.case_id, first.group, first.label, values, first.status, first.unit))
    return rows
