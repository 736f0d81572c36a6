"""What a comparison says in plain words."""

from __future__ import annotations

from medseg_pl.metrics.statistics.conclusions import empty_masks, narrow_intervals, too_few


def test_the_least_corrected_p() -> None:
    labels = {name: {"groups": 6} for name in ("liver", "spleen")}
    assert too_few(labels).startswith("With 6 groups the corrected p is at least 0.0625:")
    assert not too_few({"liver": {"groups": 6}})


def test_what_became_of_empty_references_is_told_only_where_there_are_some() -> None:
    none = {"undefined": 0, "false_alarms_a": 0, "false_alarms_b": 0}
    assert not empty_masks({"liver": none})
    said = empty_masks({"liver": none, "spleen": {"undefined": 2, "false_alarms_a": 1, "false_alarms_b": 0}})
    assert said.startswith("Empty references: 2 rows without a score")
    assert "(false alarms: 1 of A, 0 of B)" in said


def test_intervals_over_few_groups_are_said_to_be_too_narrow() -> None:
    assert narrow_intervals({"a": {"groups": 1}, "b": {"groups": 9}}).startswith("9 groups make a 95 % interval")
    assert narrow_intervals({"a": {"groups": 1}}) == ""
    assert narrow_intervals({"a": {"groups": 4}, "b": {"groups": 10}}) == ""
