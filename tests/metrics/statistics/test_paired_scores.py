"""Which rows belong together, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from medseg_pl.core.errors import DataError
from medseg_pl.metrics.statistics.paired_scores import HIGHER_IS_BETTER, PairedScores, Table, match, pair_scores

NAN = math.nan


def row(case_id: str = "c1", label: str = "liver", **changes: Any) -> dict[str, Any]:
    ok = {"group": "p1", "tp": 80, "fp": 10, "fn": 20, "dice": 0.8, "hd95": 3.0, "status": "ok", "unit": "mm"}
    return {"case_id": case_id, "label": label, **ok, **changes}


def undefined(case_id: str = "c1", **changes: Any) -> dict[str, Any]:
    empty = {"tp": 0, "fp": 0, "fn": 0, "dice": NAN, "hd95": NAN, "status": "undefined"}
    return row(case_id, **{**empty, **changes})


def false_alarm(case_id: str = "c1") -> dict[str, Any]:
    return row(case_id, tp=0, fp=9, fn=0, dice=0.0, hd95=120.0, status="false_alarm")


def tables(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> tuple[Table, Table]:
    return Table("a.csv", a), Table("b.csv", b)


def scores(a: dict[str, Any], b: dict[str, Any], metric: str = "dice") -> PairedScores:
    (paired,) = pair_scores(match(*tables([a], [b])), metric, "a.csv", "b.csv").values()
    return paired


def test_rows_are_paired_by_case_and_label_whatever_their_order() -> None:
    a = [row("c2", "liver"), row("c1", "spleen"), row("c1", "liver")]
    matched = match(*tables(a, [{**each, "dice": 0.9} for each in reversed(a)]))
    names = [(pair[0]["label"], pair[0]["case_id"]) for pair in matched.pairs]
    assert names == [("liver", "c1"), ("liver", "c2"), ("spleen", "c1")]
    assert all((x["case_id"], x["label"]) == (y["case_id"], y["label"]) for x, y in matched.pairs)
    assert (matched.only_a, matched.only_b) == (0, 0)


def test_what_only_one_run_has_is_named_and_counted() -> None:
    a = [row(f"c{i}") for i in range(5)]
    expected = (
        "The runs were not scored on the same cases and labels: b.csv lacks 4 rows (c1 liver, c2 liver, c3 liver …); "
        "a.csv lacks 1 row (c0 spleen). Score both on the same cases, or leave these out with --allow_unpaired."
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        match(*tables(a, [row("c0"), row("c0", "spleen")]))


def test_what_only_one_run_has_can_be_left_out() -> None:
    a = [row(f"c{i}") for i in range(5)]
    matched = match(*tables(a, [row("c0"), row("c0", "spleen")]), allow_unpaired=True)
    assert (len(matched.pairs), matched.only_a, matched.only_b) == (1, 4, 1)


def test_nothing_in_common_is_an_error_even_then() -> None:
    with pytest.raises(DataError, match=r"^a\.csv and b\.csv have no case and label in common"):
        match(*tables([row("c1")], [row("c2")]), allow_unpaired=True)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            [row(), row()],
            [row()],
            r"^a\.csv has case c1, label liver more than once\. Case ids must be unique\.$",
        ),
        (
            [row()],
            [row(group="p2")],
            r"^Case c1, label liver: its patient \(group\) is 'p1' in a\.csv and 'p2' in b\.csv\. One patient must",
        ),
        (
            [row()],
            [row(fn=21)],
            r"^Case c1, label liver: the reference has 100 voxels in a\.csv and 101 in b\.csv, so the runs were scored "
            r"against different references\. Score both against the same one\.$",
        ),
        (
            [row(tp=2**24, fn=1)],
            [row(tp=2**24, fn=0)],
            "has 16777217 voxels in a.csv and 16777216 in b.csv",
        ),
        ([row(tp=NAN)], [row()], r"^a\.csv: case c1, label liver has no number in tp or fn"),
        ([row()], [row(tp="many")], r"^b\.csv: case c1, label liver has no number in tp or fn"),
    ],
)
def test_rows_that_cannot_be_of_one_case(a: list[dict[str, Any]], b: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        match(*tables(a, b))


def test_scores_of_both_runs() -> None:
    assert scores(row(), row(tp=70, fn=30, dice=0.7)) == PairedScores(["c1"], ["p1"], [0.8], [0.7], 0, 0, 0)


def test_where_both_are_rightly_empty_there_is_nothing_to_compare() -> None:
    assert scores(undefined(), undefined()) == PairedScores([], [], [], [], 1, 0, 0)


@pytest.mark.parametrize(("metric", "best", "worst"), [("dice", 1.0, 0.0), ("hd95", 0.0, 120.0)])
def test_a_false_alarm_costs_its_run(metric: str, best: float, worst: float) -> None:
    assert scores(undefined(), false_alarm(), metric) == PairedScores(["c1"], ["p1"], [best], [worst], 0, 0, 1)
    assert scores(false_alarm(), undefined(), metric) == PairedScores(["c1"], ["p1"], [worst], [best], 0, 1, 0)


def test_two_false_alarms_are_compared_as_they_are() -> None:
    assert scores(false_alarm(), false_alarm()) == PairedScores(["c1"], ["p1"], [0.0], [0.0], 0, 0, 0)


@pytest.mark.parametrize(
    ("b", "metric", "message"),
    [
        (
            row(hd95=NAN),
            "hd95",
            r"^b\.csv: hd95 of case c1, label liver, is empty although its status is ok: it was not measured\. "
            r"Score the run again with this metric, or compare another one with --metric\.$",
        ),
        (row(dice="0,8"), "dice", r"^b\.csv: dice of case c1, label liver, is '0,8', which is no score\."),
        (row(hd95=math.inf), "hd95", r"^b\.csv: hd95 of case c1, label liver, is inf, which is no score\."),
        (row(status="undefined", dice=NAN), "dice", "is empty although its status is undefined"),
        (row(unit="px"), "hd95", r"^Case c1, label liver: hd95 is in mm in a\.csv and in px in b\.csv\."),
    ],
)
def test_scores_that_are_none(b: dict[str, Any], metric: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scores(row(), b, metric)


def test_the_unit_matters_to_distances_alone() -> None:
    assert scores(row(), row(unit="px")).b == [0.8]


def test_millimeters_and_pixels_are_not_averaged() -> None:
    rows = [row(), row("c2", unit="px")]
    matched = match(*tables(rows, rows))
    with pytest.raises(DataError, match=r"^hd95 is in mm in case c1 and in px in case c2\. Give all cases a spacing"):
        pair_scores(matched, "hd95", "a.csv", "b.csv")
    assert pair_scores(matched, "dice", "a.csv", "b.csv")["liver"].a == [0.8, 0.8]


def test_every_column_of_the_table_that_can_win() -> None:
    higher = [name for name, better in HIGHER_IS_BETTER.items() if better and not name.startswith("object_")]
    assert higher[:6] == ["dice", "iou", "precision", "recall", "nsd", "uw_madison"]
    assert higher[6:] == ["cl_dice", "topology_precision", "topology_sensitivity", "boundary_iou", "lesion_dice"]
    lower = {name for name, better in HIGHER_IS_BETTER.items() if not better}
    assert lower == {"hd", "hd95", "assd", "brier", "ece", "lesion_hd95", "count_error"}
    assert (
        len(HIGHER_IS_BETTER) == len(higher) + len(lower) + 5 * 101
    )  # five scores of objects at each percent, and at none
