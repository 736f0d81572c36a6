"""Labels, sides and ignore values of whole data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from medseg_pl.checks.dataset_checks import Annotated, ignore_findings, label_findings, side_findings
from medseg_pl.core.labels import LabelMap
from tests.checks.facts_of import case_of, codes

LABELS = LabelMap(["organ", "lesion"], "multiclass")


def annotated(*voxels: Sequence[int], groups: Sequence[str] = ()) -> list[Annotated]:
    names = [str(number) for number in range(len(voxels))]
    return [Annotated(case_of(n, g), v) for n, g, v in zip(names, groups or names, voxels, strict=True)]


@pytest.mark.parametrize(
    ("voxels", "found"),
    [
        ([(5, 5)] * 4, []),
        ([(0, 0)] * 4, ["masks-all-empty"]),
        ([(5, 0)] * 4, ["label-never-present"]),
        ([(5, 0), (5, 0), (5, 3)], ["label-in-one-case"]),
        ([(5, 0), (5, 3)], []),  # of two cases one is half of them
        ([], []),
    ],
)
def test_labels(voxels: list[tuple[int, int]], found: list[str]) -> None:
    assert codes(label_findings(annotated(*voxels), LABELS)) == found


def test_a_label_of_one_patient_with_several_cases() -> None:
    cases = annotated((5, 3), (5, 3), (5, 0), (5, 0), groups=["p", "p", "q", "r"])
    (found,) = label_findings(cases, LABELS)
    assert found.code == "label-in-one-patient"
    assert found.message == "The label 'lesion' is in 2 cases, all of them of the patient p."


def sides(train: str, val: str, test: str = "") -> Mapping[str, Sequence[str]]:
    return {"train": list(train), "val": list(val), "test": list(test)}


@pytest.mark.parametrize(
    ("split", "found"),
    [
        (sides("01", "2", "3"), []),
        (sides("01", "23"), []),
        (sides("0123", ""), ["empty-side"]),
        (sides("", "0123"), ["empty-side"]),
        (sides("12", "03"), ["label-missing-from-training"]),
    ],
)
def test_sides(split: Mapping[str, Sequence[str]], found: list[str]) -> None:
    cases = annotated((5, 3), (5, 0), (5, 0), (5, 3))
    assert codes(side_findings(cases, split, LABELS)) == found


def test_a_patient_on_two_sides_is_named_once() -> None:
    cases = annotated(*[(5, 3)] * 5, groups=["p", "p", "p", "q", "r"])
    (found,) = side_findings(cases, sides("03", "14", "2"), LABELS)
    assert found.message == "The patient p is in test and train and val."


def test_a_label_that_nobody_has_is_not_missing_from_training_alone() -> None:
    assert codes(side_findings(annotated((5, 0), (5, 0)), sides("0", "1"), LABELS)) == []


def test_ignore_value() -> None:
    ignoring = LabelMap(["organ", "lesion"], "multiclass", ignore_value=255)
    assert codes(ignore_findings({0.0, 1.0}, ignoring)) == ["ignore-value-absent"]
    assert codes(ignore_findings({0.0, 255.0}, ignoring)) == []
    assert codes(ignore_findings({0.0}, LABELS)) == []
    assert codes(ignore_findings(set(), ignoring)) == []
