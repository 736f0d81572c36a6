"""The few numbers that a paper reports, by hand."""

from __future__ import annotations

import json
import math

import pytest

from medseg_pl.functional.statistics import bootstrap_interval
from medseg_pl.metrics import Score, summarise
from medseg_pl.metrics.case_metric import status_of, with_empty_rule
from medseg_pl.metrics.overlap import FORMULAS, OverlapCounts

NAMES = ["liver", "tumour", "cyst"]


def row(case: str, label: str, tp: int, fp: int, fn: int, **extra: float) -> Score:
    counts = OverlapCounts(tp, fp, fn)
    values = {name: with_empty_rule(formula(counts), counts) for name, formula in FORMULAS.items()}
    return Score(case, case[0], label, {**counts._asdict(), **values, **extra}, status_of(counts))


TABLE = [
    row("A1", "liver", 6, 2, 2),  # Dice 12 / 16
    row("A1", "tumour", 0, 0, 4),  # missed
    row("A1", "cyst", 0, 0, 0),
    row("A2", "liver", 1, 0, 0),  # 1
    row("A2", "tumour", 0, 0, 0),  # undefined
    row("A2", "cyst", 0, 0, 0),
    row("B1", "liver", 1, 2, 0),  # 2 / 4
    row("B1", "tumour", 3, 2, 0),  # 6 / 8
    row("B1", "cyst", 0, 0, 0),
    row("C1", "liver", 0, 5, 0),  # false alarm
    row("C1", "tumour", 1, 0, 0),  # 1
    row("C1", "cyst", 0, 0, 0),
]
SUMMARY = summarise(TABLE, NAMES)


def test_a_label_is_described_over_its_cases() -> None:
    described = SUMMARY["labels"]["liver"]["dice"]
    values = [0.75, 1.0, 0.5, 0.0]
    assert described == {
        "mean": 0.5625,
        "median": 0.625,
        "std": pytest.approx(math.sqrt(sum((v - 0.5625) ** 2 for v in values) / 3)),
        "ci95": list(bootstrap_interval(values, ["A", "A", "B", "C"])),
        "n": 4,
    }


def test_undefined_cases_are_left_out_and_counted() -> None:
    tumour = SUMMARY["labels"]["tumour"]
    assert tumour["dice"]["mean"] == pytest.approx((0 + 0.75 + 1) / 3)
    assert tumour["dice"]["n"] == 3
    assert tumour["counts"] == {"n_undefined": 1, "n_missed": 1, "n_false_alarm": 0}
    assert SUMMARY["labels"]["liver"]["counts"] == {"n_undefined": 0, "n_missed": 0, "n_false_alarm": 1}


def test_a_label_that_no_case_has_is_described_as_unknown() -> None:
    cyst = SUMMARY["labels"]["cyst"]
    assert cyst["dice"] == {"mean": None, "median": None, "std": None, "ci95": None, "n": 0}
    assert cyst["counts"] == {"n_undefined": 4, "n_missed": 0, "n_false_alarm": 0}


def test_the_foreground_mean_is_the_mean_of_the_labels_that_are_known() -> None:
    assert SUMMARY["foreground_mean"]["dice"] == pytest.approx((0.5625 + 1.75 / 3) / 2)
    # Not the mean over all rows, which would weigh a label by the cases that show it.
    assert SUMMARY["foreground_mean"]["dice"] != pytest.approx((0.75 + 1 + 0.5 + 0 + 0 + 0.75 + 1) / 7)
    assert list(SUMMARY["foreground_mean"]) == ["dice", "iou", "precision", "recall"]


def test_pooled_dice_comes_from_summed_voxels() -> None:
    assert SUMMARY["pooled"] == {
        "liver": {"dice": 2 * 8 / (2 * 8 + 9 + 2)},
        "tumour": {"dice": 2 * 4 / (2 * 4 + 2 + 4)},
        "cyst": {"dice": None},
    }


def test_cases_and_patients_are_counted() -> None:
    assert (SUMMARY["n_cases"], SUMMARY["n_groups"]) == (4, 3)


def test_without_intervals_all_else_is_the_same() -> None:
    bare = summarise(TABLE, NAMES, intervals=False)
    for described in bare["labels"].values():
        assert {described[metric]["ci95"] for metric in FORMULAS} == {None}
    assert SUMMARY["labels"]["liver"]["iou"]["ci95"] is not None
    for name in NAMES:
        for metric in FORMULAS:
            bare["labels"][name][metric]["ci95"] = SUMMARY["labels"][name][metric]["ci95"]
    assert bare == SUMMARY


def test_labels_come_in_their_order() -> None:
    assert list(summarise(TABLE, ["cyst", "liver", "tumour"])["labels"]) == ["cyst", "liver", "tumour"]


def test_any_parser_reads_it() -> None:
    assert json.loads(json.dumps(SUMMARY, allow_nan=False)) == SUMMARY


def test_columns_of_other_metrics_are_described_and_averaged() -> None:
    table = [row("A1", "liver", 1, 0, 0, hd95_mm=2.0), row("B1", "liver", 1, 0, 0, hd95_mm=math.nan)]
    summary = summarise(table, ["liver"])
    assert (summary["labels"]["liver"]["hd95_mm"]["mean"], summary["labels"]["liver"]["hd95_mm"]["n"]) == (2.0, 1)
    assert summary["foreground_mean"]["hd95_mm"] == 2.0


def test_volumes_are_described_but_not_averaged_over_labels() -> None:
    summary = summarise([row("A1", "liver", 1, 0, 0, volume_reference_ml=1.5)], ["liver"])
    assert summary["labels"]["liver"]["volume_reference_ml"]["mean"] == 1.5
    assert "volume_reference_ml" not in summary["foreground_mean"]


@pytest.mark.parametrize("flip", [False, True])
def test_only_some_cases_may_know_their_spacing(flip: bool) -> None:
    table = [row("A1", "liver", 1, 0, 0), row("B1", "liver", 1, 1, 0, volume_reference_ml=1.5)]
    summary = summarise(table[::-1] if flip else table, ["liver"])
    assert summary["labels"]["liver"]["volume_reference_ml"]["n"] == 1
    assert summary["labels"]["liver"]["dice"]["n"] == 2


def test_one_patient_has_no_interval_and_one_case_no_deviation() -> None:
    summary = summarise([row("A1", "liver", 1, 1, 0), row("A2", "liver", 1, 0, 0)], ["liver"])
    assert summary["labels"]["liver"]["dice"]["ci95"] is None
    assert summary["labels"]["liver"]["dice"]["std"] is not None
    assert summarise([row("A1", "liver", 1, 1, 0)], ["liver"])["labels"]["liver"]["dice"]["std"] is None


def test_no_cases_at_all() -> None:
    summary = summarise([], ["liver"])
    assert summary["foreground_mean"]["dice"] is None
    assert (summary["n_cases"], summary["pooled"]) == (0, {"liver": {"dice": None}})
