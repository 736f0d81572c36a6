"""Several metrics make one table, of all cases or of none."""

from __future__ import annotations

from itertools import permutations

import pytest

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.metrics import MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric
from tests.contracts.metric_contract import BINARY, MULTICLASS, TASKS, LabelMap, comparable, random_case


def ledger(labels: LabelMap, *numbers: int) -> MetricTable:
    """One that has scored these cases."""
    book = MetricTable([OverlapMetric(labels), SurfaceMetric(labels), VolumeMetric(labels)])
    for number in numbers:
        book.add(random_case(labels, number))
    return book


@TASKS
def test_a_row_has_the_columns_of_every_metric_in_their_order(labels: LabelMap) -> None:
    book = ledger(labels, 1, 0)
    table = book.table()
    for index, row in enumerate(table):
        parts = [metric.table()[index] for metric in book.metrics]
        assert {(part.case_id, part.group, part.label, part.status, part.unit) for part in parts} == {
            (row.case_id, row.group, row.label, row.status, row.unit)
        }
        assert list(row.values.items()) == [item for part in parts for item in part.values.items()]
    assert [(row.case_id, row.label) for row in table] == [
        (case, label) for case in ("case0", "case1") for label in labels.names
    ]


def test_the_order_in_which_cases_come_does_not_matter() -> None:
    first, *others = (comparable(ledger(MULTICLASS, *order).table()) for order in permutations(range(3)))
    assert others == [first] * 5


def test_a_single_metric_is_its_own_table() -> None:
    metric = OverlapMetric(MULTICLASS)
    book = MetricTable([metric])
    book.add(random_case(MULTICLASS, 0))
    assert comparable(book.table()) == comparable(metric.table())


def test_all_that_were_expected_is_complete() -> None:
    assert len(ledger(BINARY, 2, 0).table(["case0", "case2"])) == 2
    assert ledger(BINARY).table([]) == []


def test_an_absent_case_is_named() -> None:
    with pytest.raises(DataError) as error:
        ledger(BINARY, 1, 3).table(["case3", "case2", "case1", "case0"])
    assert str(error.value) == (
        "2 of 4 cases were scored by no process, case0 among them, so no score is given. The sampler must serve every "
        "case; leave trainer.use_distributed_sampler off."
    )


def test_no_case_at_all_is_not_a_perfect_table() -> None:
    with pytest.raises(DataError, match="1 of 1 case was scored by no process, case0 among them"):
        ledger(BINARY).table(["case0"])


def test_a_case_that_nobody_expected_is_named() -> None:
    with pytest.raises(DataError) as error:
        ledger(BINARY, 1, 0, 2).table(["case1"])
    assert str(error.value) == (
        "2 scored cases are none of the 1 expected, case0 among them, so no score is given. The loader "
        "serves other cases than its data set names."
    )


def test_a_case_that_comes_twice_is_refused() -> None:
    with pytest.raises(DataError) as error:
        ledger(BINARY, 0, 1, 0).table()
    assert str(error.value) == "Case case0 was scored twice. Case ids must be unique."


def test_reset_forgets_all_cases_in_every_metric() -> None:
    book = ledger(BINARY, 0, 1)
    book.reset()
    assert book.table() == []
    assert [metric.table() for metric in book.metrics] == [[], [], []]
    book.add(random_case(BINARY, 0))
    assert comparable(book.table()) == comparable(ledger(BINARY, 0).table())


def test_a_metric_that_is_there_twice_is_refused() -> None:
    labels = LabelMap(["lesion"], "binary")
    with pytest.raises(SettingError) as error:
        MetricTable([OverlapMetric(labels), SurfaceMetric(labels), SurfaceMetric(labels, tolerance=2.0)])
    assert str(error.value) == (
        "SurfaceMetric is there twice and would write its columns twice. Overlap, distances and volumes are always "
        "measured: leave them out of model.metrics, and name others once."
    )
