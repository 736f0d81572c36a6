"""The few numbers that a paper reports, by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.io.scores import DISTANCES, LENGTHS
from medseg_pl.metrics import CaseScore, MetricTable, OverlapMetric, SurfaceMetric, summarize
from medseg_pl.metrics.measures import FORMULAS
from medseg_pl.metrics.summary import list_cautions

NAMES = ["liver", "tumour", "cyst"]
SURFACE = ("hd", "hd95", "assd", "nsd")


def row(case: str, label: str, tp: int, fp: int, fn: int, unit: str = "mm", **extra: float) -> CaseScore:
    """The score of masks with so many voxels, and further columns."""
    prediction = np.repeat([1, 1, 0, 0], [tp, fp, fn, 1])[None]
    reference = np.repeat([1, 0, 1, 0], [tp, fp, fn, 1])[None]
    metric = OverlapMetric(LabelMap([label], "binary"))
    metric.update(Prediction.from_masks(case, prediction, reference, group=case[0]))
    (score,) = metric.table()
    return replace(score, values={**score.values, **extra}, unit=unit)


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
SUMMARY = summarize(TABLE, NAMES)


def test_a_label_is_described_over_its_cases() -> None:
    described = SUMMARY["labels"]["liver"]["dice"]
    values = [0.75, 1.0, 0.5, 0.0]
    assert described == {
        "mean": 0.5625,
        "median": 0.625,
        "std": pytest.approx(math.sqrt(sum((v - 0.5625) ** 2 for v in values) / 3)),
        "ci95": None,  # of three patients
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
    table = [*TABLE, row("D1", "liver", 3, 2, 0)]
    bare = summarize(table, NAMES, intervals=False)
    for described in bare["labels"].values():
        assert {described[metric]["ci95"] for metric in FORMULAS} == {None}
    whole = summarize(table, NAMES)
    assert whole["labels"]["liver"]["iou"]["ci95"] is not None
    for name in NAMES:
        for metric in FORMULAS:
            bare["labels"][name][metric]["ci95"] = whole["labels"][name][metric]["ci95"]
    assert bare == {name: value for name, value in whole.items() if name not in ("foreground_ci95", "cautions")}


def test_labels_come_in_their_order() -> None:
    assert list(summarize(TABLE, ["cyst", "liver", "tumour"])["labels"]) == ["cyst", "liver", "tumour"]


def test_any_parser_reads_it() -> None:
    assert json.loads(json.dumps(SUMMARY, allow_nan=False)) == SUMMARY


def test_columns_of_other_metrics_are_described_and_averaged() -> None:
    table = [row("A1", "liver", 1, 0, 0, hd95=2.0), row("B1", "liver", 1, 0, 0, hd95=math.nan)]
    summary = summarize(table, ["liver"])
    assert (summary["labels"]["liver"]["hd95"]["mean"], summary["labels"]["liver"]["hd95"]["n"]) == (2.0, 1)
    assert summary["foreground_mean"]["hd95"] == 2.0


def test_volumes_are_described_but_not_averaged_over_labels() -> None:
    summary = summarize([row("A1", "liver", 1, 0, 0, volume_reference_ml=1.5)], ["liver"])
    assert summary["labels"]["liver"]["volume_reference_ml"]["mean"] == 1.5
    assert "volume_reference_ml" not in summary["foreground_mean"]


@pytest.mark.parametrize("flip", [False, True])
def test_only_some_cases_may_know_their_spacing(flip: bool) -> None:
    table = [row("A1", "liver", 1, 0, 0), row("B1", "liver", 1, 1, 0, volume_reference_ml=1.5)]
    summary = summarize(table[::-1] if flip else table, ["liver"])
    assert summary["labels"]["liver"]["volume_reference_ml"]["n"] == 1
    assert summary["labels"]["liver"]["dice"]["n"] == 2


def test_one_patient_has_no_interval_and_one_case_no_deviation() -> None:
    summary = summarize([row("A1", "liver", 1, 1, 0), row("A2", "liver", 1, 0, 0)], ["liver"])
    assert summary["labels"]["liver"]["dice"]["ci95"] is None
    assert summary["labels"]["liver"]["dice"]["std"] is not None
    assert summarize([row("A1", "liver", 1, 1, 0)], ["liver"])["labels"]["liver"]["dice"]["std"] is None


def test_no_cases_at_all() -> None:
    summary = summarize([], ["liver"])
    assert summary["foreground_mean"]["dice"] is None
    assert (summary["n_cases"], summary["pooled"]) == (0, {"liver": {"dice": None}})
    assert summary["units"] == []


MIXED = [
    row("A1", "liver", 1, 1, 0, hd=3.0, hd95=3.0, assd=2.0, nsd=0.5, volume_reference_ml=1.5),
    row("B1", "liver", 1, 0, 0, "px", hd=90.0, hd95=80.0, assd=70.0, nsd=0.1),
]


class TestUnits:
    def test_a_summary_says_what_distances_are_in(self) -> None:
        assert SUMMARY["units"] == ["mm"]
        assert summarize(MIXED[1:], ["liver"])["units"] == ["px"]

    def test_pixels_and_millimeters_have_no_mean(self) -> None:
        summary = summarize(MIXED, ["liver"])
        assert summary["units"] == ["mm", "px"]
        assert not {*DISTANCES} & ({*summary["labels"]["liver"]} | {*summary["foreground_mean"]})
        assert summary["foreground_mean"]["dice"] == pytest.approx((2 / 3 + 1) / 2)
        assert summary["labels"]["liver"]["volume_reference_ml"]["n"] == 1

    @pytest.mark.parametrize(("case", "mean"), [(0, 3.0), (1, 80.0)])
    def test_alone_each_of_them_has_one(self, case: int, mean: float) -> None:
        summary = summarize([MIXED[case]], ["liver"])
        assert summary["foreground_mean"]["hd95"] == mean
        assert [summary["labels"]["liver"][name]["n"] for name in SURFACE] == [1] * 4

    def test_a_stratum_of_one_unit_has_a_mean(self) -> None:
        strata = {"A1": {"site": "A"}, "B1": {"site": "B"}}
        sites = summarize(MIXED, ["liver"], strata=strata)["strata"]["site"]
        assert (sites["A"]["units"], sites["A"]["foreground_mean"]["hd"]) == (["mm"], 3.0)
        assert (sites["B"]["units"], sites["B"]["foreground_mean"]["hd"]) == (["px"], 90.0)


STRATA = {
    "A1": {"site": "north", "sex": "f"},
    "A2": {"site": "east"},
    "B1": {"site": "north", "sex": "m"},
    "Z9": {"site": "nowhere", "age": "old"},  # was not scored
}


class TestStrata:
    def test_each_value_is_summarized_as_its_cases_alone(self) -> None:
        summary = summarize(TABLE, NAMES, strata=STRATA)
        assert summary["strata"]["site"] == {
            "east": summarize(_of(["A2"]), NAMES),
            "north": summarize(_of(["A1", "B1"]), NAMES),
        }
        assert summary["strata"]["sex"] == {"f": summarize(_of(["A1"]), NAMES), "m": summarize(_of(["B1"]), NAMES)}
        assert list(summary["strata"]["site"]) == ["east", "north"]

    def test_a_case_of_unknown_stratum_counts_in_the_whole_only(self) -> None:
        summary = summarize(TABLE, NAMES, strata=STRATA)
        assert sum(part["n_cases"] for part in summary["strata"]["site"].values()) == 3
        assert {key: value for key, value in summary.items() if key != "strata"} == SUMMARY

    def test_values_that_no_scored_case_has_are_left_out(self) -> None:
        strata = summarize(TABLE, NAMES, strata=STRATA)["strata"]
        assert "nowhere" not in strata["site"]
        assert strata["age"] == {}

    @pytest.mark.parametrize("strata", [None, {}, {"A1": {}}])
    def test_without_strata_there_is_no_such_part(self, strata: dict[str, dict[str, str]] | None) -> None:
        assert summarize(TABLE, NAMES, strata=strata) == SUMMARY

    def test_intervals_are_left_out_there_too(self) -> None:
        north = summarize(TABLE, NAMES, intervals=False, strata=STRATA)["strata"]["site"]["north"]
        assert north == summarize(_of(["A1", "B1"]), NAMES, intervals=False)


def _of(cases: list[str]) -> list[CaseScore]:
    return [score for score in TABLE if score.case_id in cases]


LABELS = LabelMap(["stomach", "bowel"], "multilabel")
Masks = NDArray[np.uint8]


def averages(predictions: Sequence[Masks], references: Sequence[Masks]) -> dict[str, Any]:
    ledger = MetricTable([OverlapMetric(LABELS), SurfaceMetric(LABELS)])
    for number, masks in enumerate(zip(predictions, references, strict=True)):
        ledger.add(Prediction.from_masks(f"case{number}", *masks, spacing_mm=(2.0, 1.0, 0.5)))
    return summarize(ledger.table(), LABELS.names, intervals=False)


CASES = arrays(np.uint8, (3, 2, 1, 3, 4), elements=st.integers(0, 1))


@given(predictions=CASES, references=CASES, emptied=arrays(np.bool_, (3, 2)))
def test_emptying_predictions_of_what_is_there_never_improves_an_average(
    predictions: Masks, references: Masks, emptied: NDArray[np.bool_]
) -> None:
    emptied &= references.any(axis=(2, 3, 4))
    worse = np.where(emptied[:, :, None, None, None], 0, predictions).astype(np.uint8)
    before, after = averages(predictions, references), averages(worse, references)
    for name in LABELS.names:
        for metric in (*FORMULAS, *SURFACE):
            for average in ("mean", "median"):
                _check_no_better(metric, *(found["labels"][name][metric][average] for found in (before, after)))
    for metric in (*FORMULAS, *SURFACE):
        _check_no_better(metric, *(found["foreground_mean"][metric] for found in (before, after)))


def _check_no_better(metric: str, before: float | None, after: float | None) -> None:
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after >= before if metric in LENGTHS else after <= before, metric


def test_emptying_a_prediction_may_improve_pooled_dice_which_is_no_average() -> None:
    # The false positives of the first case outweigh all that was found in the second.
    astray, found = row("A1", "liver", 0, 96, 2), row("B1", "liver", 2, 0, 0)
    emptied = row("A1", "liver", 0, 0, 2)
    before, after = (summarize([first, found], ["liver"]) for first in (astray, emptied))
    assert before["pooled"]["liver"]["dice"] == 4 / 102
    assert after["pooled"]["liver"]["dice"] == 4 / 6
    assert before["foreground_mean"]["dice"] == after["foreground_mean"]["dice"] == 0.5


FOUND, MISSED, ABSENT = ([1, 1], [1, 1]), ([0, 0], [1, 1]), ([0, 0], [0, 0])
ELSEWHERE = ([1, 0], [0, 1])


def score_patients(
    count: int, masks: tuple[list[int], list[int]], label: str = "liver", first: int = 0
) -> list[CaseScore]:
    """One case of each patient, all alike."""
    metric = OverlapMetric(LabelMap([label], "binary"))
    metric.update(Prediction.from_masks("a", *(np.array([mask], np.uint8) for mask in masks)))
    (score,) = metric.table()
    return [replace(score, case_id=f"c{n}", group=f"p{n}") for n in range(first, first + count)]


def test_ten_patients_of_whom_none_was_missed_know_of_no_misses() -> None:
    (caution,) = list_cautions(score_patients(10, FOUND), ["liver"])
    # 1 - 0.05 ** (1 / 10)
    assert caution == (
        "liver: found, if only in part, in each of 10 patients here; up to 26 % of all patients may still be "
        "missed altogether (upper 95 % limit). Quote it with the scores."
    )


def test_where_patients_are_unknown_cautions_speak_of_cases() -> None:
    few, unseen = list_cautions([replace(score, group=score.case_id) for score in score_patients(9, FOUND)], ["liver"])
    assert few.startswith("liver: with 9 cases an interval") and few.endswith("Quote it with the number of cases.")
    assert "in each of 9 cases here" in unseen and "of all cases may still" in unseen and "patient" not in few + unseen


def test_one_miss_is_enough_to_know_of_misses() -> None:
    for masks in (MISSED, ELSEWHERE):
        assert list_cautions([*score_patients(9, FOUND), *score_patients(1, masks, first=9)], ["liver"]) == []


def test_many_patients_without_a_miss_are_enough() -> None:
    assert len(list_cautions(score_patients(58, FOUND), ["liver"])) == 1
    assert list_cautions(score_patients(59, FOUND), ["liver"]) == []


def test_fewer_than_ten_patients_are_few() -> None:
    scores = [*score_patients(8, FOUND), *score_patients(1, MISSED, first=8)]
    (caution,) = list_cautions(scores, ["liver"])
    assert caution.startswith("liver: with 9 patients an interval holds the true mean less")
    assert caution.endswith(" Quote it with the number of patients.")


def test_every_caution_says_what_to_do() -> None:
    for patients in (2, 3, 9, 10, 40):
        cautions = list_cautions(score_patients(patients, FOUND), ["liver"])
        assert cautions and all(re.search(r"[Qq]uote (it|the single scores)\b", each) for each in cautions), patients


def test_cases_of_one_patient_count_once() -> None:
    scores = [replace(score, group=f"p{i % 5}") for i, score in enumerate(score_patients(20, FOUND))]
    assert [caution.split(" patients")[0] for caution in list_cautions(scores, ["liver"])] == [
        "liver: with 5",
        "liver: found, if only in part, in each of 5",
    ]


def test_patients_without_the_label_do_not_count() -> None:
    scores = [*score_patients(10, FOUND), *score_patients(30, ABSENT, first=10)]
    (caution,) = list_cautions(scores, ["liver"])
    assert "each of 10 patients" in caution


def test_labels_of_equal_numbers_share_a_sentence() -> None:
    scores = [*score_patients(10, FOUND), *score_patients(10, FOUND, "spleen")]
    (caution,) = list_cautions(scores, ["liver", "spleen"])
    assert caution.startswith("liver, spleen: found, if only in part, in each of 10 patients")


def test_one_patient_has_no_interval_to_warn_of() -> None:
    assert list_cautions(score_patients(1, FOUND), ["liver"]) == []


def test_a_summary_has_them_where_it_has_intervals() -> None:
    scores = score_patients(10, FOUND)
    assert summarize(scores, ["liver"])["cautions"] == list_cautions(scores, ["liver"])
    assert "cautions" not in summarize(scores, ["liver"], intervals=False)


@pytest.mark.parametrize(
    ("dice", "cut"),
    [
        ([0.5, 0.6, 0.7, 0.8], True),  # of four patients, both ends
        ([0.5, 0.6, 0.7, 0.8, 0.82, 0.85, 0.7, 0.75, 0.66, 0.81], False),
        ([1.0, 1.0, 0.9, 0.95, 0.97, 1.0, 0.8, 0.99, 0.93, 1.0], False),  # no score is above 1
        ([0.9] * 10, False),  # without width: nothing is cut
    ],
)
def test_an_interval_that_ends_at_a_case_is_told(dice: list[float], cut: bool) -> None:
    (score,) = score_patients(1, FOUND)
    scores = [
        replace(score, case_id=f"c{n}", group=f"p{n}", values={**score.values, "dice": value})
        for n, value in enumerate(dice)
    ]
    told = "liver: the interval of Dice is cut off at the best or the worst case. Quote a range."
    assert (told in summarize(scores, ["liver"])["cautions"]) == cut
