"""What every metric of cases keeps to. A metric's test inherits it with one line and says how the metric is made."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics import MetricCollection

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, CaseScore

BINARY = LabelMap(["lesion"], "binary")
MULTICLASS = LabelMap(["liver", "spleen", "kidney"], "multiclass")
MULTILABEL = LabelMap(["stomach", "bowel"], "multilabel")
TASKS = pytest.mark.parametrize("labels", [BINARY, MULTICLASS, MULTILABEL], ids=lambda labels: labels.task)


def random_case(labels: LabelMap, number: int, *, ignore: bool = False) -> Prediction:
    """A case in which every label is in both masks, somewhat at the same places."""
    rng = np.random.default_rng((number, 17))
    shape = (labels.mask_channels, 1 + number % 3, 9, 11)
    highest = 1 if labels.overlapping else len(labels.names)
    reference = rng.integers(0, highest + 1, shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, reference, rng.integers(0, highest + 1, shape)).astype(np.uint8)
    if ignore:
        reference[:, :, :2] = IGNORE
    geometry = Geometry((shape[1], shape[2], shape[3]), (3.0, 1.5, 1.25))
    return Prediction(f"case{number}", f"patient{number // 2}", geometry, prediction, reference)


def with_masks(
    case: Prediction, prediction: NDArray[np.uint8] | None = None, reference: NDArray[np.uint8] | None = None
) -> Prediction:
    """The same case with another prediction or reference."""
    return Prediction(
        case.case_id,
        case.group,
        case.geometry,
        case.mask if prediction is None else prediction,
        case.reference if reference is None else reference,
    )


def comparable(table: list[CaseScore]) -> list[tuple[Any, ...]]:
    """Rows to the last digit, NaN equal to itself."""
    return [
        (s.case_id, s.group, s.label, s.status, s.unit, *((name, repr(v)) for name, v in s.values.items()))
        for s in table
    ]


class CaseMetricContract(ABC):
    """Scores are kept by case, and the rule for empty masks holds."""

    best_is_one: tuple[str, ...] = ()
    """Columns of which 1 is the best and 0 the worst value."""
    best_is_zero: tuple[str, ...] = ()
    """Columns of which 0 is the best value, such as distances."""
    others: tuple[str, ...] = ()
    """Columns for which no value is the best or the worst; they are there, and NaN where both masks are empty."""

    @abstractmethod
    def make(self, labels: LabelMap) -> CaseMetric:
        """The metric under test."""

    def table(self, labels: LabelMap, *cases: Prediction) -> list[CaseScore]:
        metric = self.make(labels)
        for case in cases:
            metric.update(case)
        return metric.table()

    @property
    def columns(self) -> tuple[str, ...]:
        columns = (*self.best_is_one, *self.best_is_zero, *self.others)
        assert columns, "name the columns of the metric"
        return columns

    @TASKS
    def test_one_row_for_each_case_and_label_in_order(self, labels: LabelMap) -> None:
        table = self.table(labels, *(random_case(labels, number) for number in (2, 0, 1)))
        assert [(score.case_id, score.group, score.label) for score in table] == [
            (f"case{number}", f"patient{number // 2}", name) for number in range(3) for name in labels.names
        ]
        assert all(set(self.columns) <= set(score.values) for score in table)
        assert {score.status for score in table} == {"ok"}

    @TASKS
    def test_a_row_says_what_distances_are_in(self, labels: LabelMap) -> None:
        known = random_case(labels, 0)
        unknown = replace(random_case(labels, 1), geometry=Geometry(random_case(labels, 1).geometry.shape))
        n = len(labels.names)
        assert [score.unit for score in self.table(labels, known, unknown)] == ["mm"] * n + ["px"] * n

    @TASKS
    def test_the_order_of_the_cases_does_not_matter(self, labels: LabelMap) -> None:
        cases = [random_case(labels, number) for number in range(4)]
        assert comparable(self.table(labels, *cases)) == comparable(self.table(labels, *reversed(cases)))

    @TASKS
    def test_a_perfect_prediction_has_the_best_scores(self, labels: LabelMap) -> None:
        case = random_case(labels, 0)
        for score in self.table(labels, with_masks(case, prediction=case.reference)):
            assert [score.values[name] for name in self.best_is_one] == [1.0] * len(self.best_is_one)
            assert [score.values[name] for name in self.best_is_zero] == [0.0] * len(self.best_is_zero)

    @TASKS
    def test_both_empty_is_undefined(self, labels: LabelMap) -> None:
        case = random_case(labels, 0)
        nothing = np.zeros_like(case.mask)
        for score in self.table(labels, with_masks(case, nothing, nothing)):
            assert score.status == "undefined"
            assert all(math.isnan(score.values[name]) for name in self.columns)

    @pytest.mark.parametrize("labels", [MULTICLASS, MULTILABEL], ids=lambda labels: labels.task)
    def test_a_label_that_nobody_looked_for_has_no_value(self, labels: LabelMap) -> None:
        case = replace(random_case(labels, 0), annotated_labels=(labels.names[1],))
        whole = comparable(self.table(labels, random_case(labels, 0)))
        for index, score in enumerate(self.table(labels, case)):
            if index == 1:
                assert comparable([score]) == whole[1:2]
            else:
                assert score.status == "not_annotated"
                assert all(math.isnan(value) for value in score.values.values())

    @TASKS
    @pytest.mark.parametrize(("empty", "status"), [("prediction", "missed"), ("reference", "false_alarm")])
    def test_exactly_one_empty_is_the_worst(self, labels: LabelMap, empty: str, status: str) -> None:
        case = random_case(labels, 0)
        emptied = with_masks(case, **{empty: np.zeros_like(case.mask)})
        for score, full in zip(self.table(labels, emptied), self.table(labels, case), strict=True):
            assert score.status == status
            assert [score.values[name] for name in self.best_is_one] == [0.0] * len(self.best_is_one)
            assert all(score.values[name] >= full.values[name] for name in self.best_is_zero)
            assert all(0 < score.values[name] < math.inf for name in self.best_is_zero)

    @TASKS
    @pytest.mark.parametrize("ignore", [False, True])
    def test_emptying_a_prediction_never_improves_anything(self, labels: LabelMap, ignore: bool) -> None:
        cases = [random_case(labels, number, ignore=ignore) for number in range(5)]
        full, emptied = self.make(labels), self.make(labels)
        for number, case in enumerate(cases):
            full.update(case)
            emptied.update(with_masks(case, np.zeros_like(case.mask)) if number % 2 else case)
        for before, after in zip(full.table(), emptied.table(), strict=True):
            self._check_no_better(before.values, after.values)
        means = [{key: float(value) for key, value in metric.compute().items()} for metric in (full, emptied)]
        for name in labels.names:
            self._check_no_better(*({column: mean[f"{column}/{name}"] for column in self.columns} for mean in means))

    def _check_no_better(self, before: Any, after: Any) -> None:
        assert all(after[name] <= before[name] for name in self.best_is_one)
        assert all(after[name] >= before[name] for name in self.best_is_zero)

    def test_a_case_without_a_reference_is_refused(self) -> None:
        case = random_case(BINARY, 0)
        metric = self.make(BINARY)
        with pytest.raises(DataError) as error:
            metric.update(Prediction(case.case_id, case.group, case.geometry, case.mask))
        assert str(error.value) == ("Case case0 has no reference, so it cannot be scored. Use predict for such cases.")
        assert metric.table() == []

    def test_a_case_that_comes_twice_is_refused(self) -> None:
        metric = self.make(BINARY)
        metric.update(random_case(BINARY, 0))
        metric.update(random_case(BINARY, 0))
        with pytest.raises(DataError, match=r"Case case0 was scored twice\. Case ids must be unique\."):
            metric.table()

    def test_reset_forgets_all_cases(self) -> None:
        metric = self.make(BINARY)
        metric.update(random_case(BINARY, 0))
        metric.reset()
        assert metric.table() == []
        metric.update(random_case(BINARY, 1))
        assert comparable(metric.table()) == comparable(self.table(BINARY, random_case(BINARY, 1)))

    def test_a_copy_has_a_state_of_its_own(self) -> None:
        metric = self.make(BINARY)
        metric.update(random_case(BINARY, 0))
        other = copy.deepcopy(metric)
        other.update(random_case(BINARY, 1))
        assert ([len(metric.table()), len(other.table())]) == [1, 2]

    @TASKS
    def test_it_survives_what_is_done_to_metrics(self, labels: LabelMap) -> None:
        metric = self.make(labels)
        metric.update(random_case(labels, 0))
        expected = comparable(self.table(labels, random_case(labels, 0), random_case(labels, 1)))
        for copied in (metric.clone(), pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric).to("cpu").double()):
            copied.update(random_case(labels, 1))
            assert comparable(copied.table()) == expected
            means = {key: float(value) for key, value in copied.compute().items()}
            assert {f"{column}/{name}" for column in self.columns for name in labels.names} <= set(means)
        assert len(metric.table()) == len(labels.names)

    def test_calling_it_keeps_the_cases_before(self) -> None:
        metric = self.make(MULTICLASS)
        cases = [random_case(MULTICLASS, number) for number in range(3)]
        for case in cases:
            returned = metric(case)
            alone = self.make(MULTICLASS)
            alone.update(case)
            assert {key: float(value) for key, value in returned.items()} == pytest.approx(
                {key: float(value) for key, value in alone.compute().items()}, nan_ok=True
            )
        assert comparable(metric.table()) == comparable(self.table(MULTICLASS, *cases))

    def test_it_works_in_a_collection(self) -> None:
        collection = MetricCollection({"first": self.make(MULTICLASS), "second": self.make(MULTICLASS)})
        cases = [random_case(MULTICLASS, number) for number in range(3)]
        for case in cases:
            collection.update(case)
        expected = comparable(self.table(MULTICLASS, *cases))
        assert [comparable(metric.table()) for metric in collection.values()] == [expected, expected]
        assert {f"{self.columns[0]}/{name}" for name in MULTICLASS.names} <= {
            key.removeprefix("first_").removeprefix("second_") for key in collection.compute()
        }
        collection.reset()
        assert [metric.table() for metric in collection.values()] == [[], []]

    def test_the_mean_over_cases_is_computed_for_every_column(self) -> None:
        cases = [random_case(MULTILABEL, number) for number in range(4)]
        metric = self.make(MULTILABEL)
        for case in cases:
            metric.update(case)
        table = metric.table()
        for (key, value), column in zip(metric.compute().items(), _columns(table), strict=True):
            assert key == f"{column[0]}/{column[1]}"
            of_label = [score.values[column[0]] for score in table if score.label == column[1]]
            known = [value for value in of_label if not math.isnan(value)]
            assert len(known) == 4 or column[0] in self.others
            assert float(value) == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)
            assert value.dtype == torch.float64

    @pytest.mark.parametrize("shares", [[(3, 0), (1, 4, 2)], [(0, 1, 2, 3, 4), ()]], ids=["uneven", "one rank empty"])
    def test_two_processes_give_the_table_of_one(self, shares: list[tuple[int, ...]], tmp_path: Path) -> None:
        expected = comparable(self.table(MULTICLASS, *(random_case(MULTICLASS, number) for number in range(5))))
        context = multiprocessing.get_context("fork")
        results = context.Queue()

        def work(rank: int) -> None:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", rank=rank, world_size=2)
            metric = self.make(MULTICLASS)
            for number in shares[rank]:
                metric.update(random_case(MULTICLASS, number))
            results.put(comparable(metric.table()))
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

        processes = [context.Process(target=work, args=(rank,)) for rank in (0, 1)]
        for process in processes:
            process.start()
        try:
            tables = [results.get(timeout=60) for _ in processes]
        finally:
            for process in processes:
                process.join(30)
                process.kill()
        assert tables == [expected, expected]


def _columns(table: list[CaseScore]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((name, score.label) for score in table for name in score.values))
