"""Intervals that know less than they seem to are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseScore, OverlapMetric, summarize
from medseg_pl.metrics.cautions import interval_cautions

FOUND, MISSED, ABSENT = ([1, 1], [1, 1]), ([0, 0], [1, 1]), ([0, 0], [0, 0])


def score_patients(
    count: int, masks: tuple[list[int], list[int]], label: str = "liver", first: int = 0
) -> list[CaseScore]:
    """One case of each patient, all alike."""
    metric = OverlapMetric(LabelMap([label], "binary"))
    metric.update(Prediction.from_masks("a", *(np.array([mask], np.uint8) for mask in masks)))
    (score,) = metric.table()
    return [replace(score, case_id=f"c{n}", group=f"p{n}") for n in range(first, first + count)]


def test_ten_patients_of_whom_none_was_missed_know_of_no_misses() -> None:
    (caution,) = interval_cautions(score_patients(10, FOUND), ["liver"])
    assert caution.startswith("liver: none of 10 patients was missed")
    assert "up to 26 % of patients may be missed" in caution  # 1 - 0.05 ** (1 / 10)


def test_one_miss_is_enough_to_know_of_misses() -> None:
    assert interval_cautions([*score_patients(9, FOUND), *score_patients(1, MISSED, first=9)], ["liver"]) == []


def test_many_patients_without_a_miss_are_enough() -> None:
    assert len(interval_cautions(score_patients(58, FOUND), ["liver"])) == 1
    assert interval_cautions(score_patients(59, FOUND), ["liver"]) == []


def test_fewer_than_ten_patients_are_few() -> None:
    scores = [*score_patients(8, FOUND), *score_patients(1, MISSED, first=8)]
    (caution,) = interval_cautions(scores, ["liver"])
    assert caution.startswith("liver: 9 patients make a 95 % interval too narrow")


def test_cases_of_one_patient_count_once() -> None:
    scores = [replace(score, group=f"p{i % 5}") for i, score in enumerate(score_patients(20, FOUND))]
    assert [caution.split(" patients")[0] for caution in interval_cautions(scores, ["liver"])] == [
        "liver: 5",
        "liver: none of 5",
    ]


def test_patients_without_the_label_do_not_count() -> None:
    scores = [*score_patients(10, FOUND), *score_patients(30, ABSENT, first=10)]
    (caution,) = interval_cautions(scores, ["liver"])
    assert "none of 10 patients" in caution


def test_labels_of_equal_numbers_share_a_sentence() -> None:
    scores = [*score_patients(10, FOUND), *score_patients(10, FOUND, "spleen")]
    (caution,) = interval_cautions(scores, ["liver", "spleen"])
    assert caution.startswith("liver, spleen: none of 10 patients")


def test_one_patient_has_no_interval_to_warn_of() -> None:
    assert interval_cautions(score_patients(1, FOUND), ["liver"]) == []


def test_a_summary_has_them_where_it_has_intervals() -> None:
    scores = score_patients(10, FOUND)
    assert summarize(scores, ["liver"])["cautions"] == interval_cautions(scores, ["liver"])
    assert "cautions" not in summarize(scores, ["liver"], intervals=False)
