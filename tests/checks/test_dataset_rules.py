"""Sides of splits as they are declared and as they are, and the same image under two names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.findings import AnnotatedCase, CaseFacts
from medseg_pl.checks.run_checks import check_splits, find_duplicates, read_declared_splits, read_split_file
from medseg_pl.core.types import Case
from tests.checks.samples import codes, make_case, make_dataset, make_facts, measure
from tests.end_to_end.clean_sets import picture


def annotated(*voxels: Sequence[int], groups: Sequence[str] = ()) -> list[AnnotatedCase]:
    names = [str(number) for number in range(len(voxels))]
    return [AnnotatedCase(make_case(n, g), v) for n, g, v in zip(names, groups or names, voxels, strict=True)]


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
    assert codes(check_splits(make_dataset(annotated=cases, splits=[split]))) == found


def test_a_patient_on_two_sides_is_named_once() -> None:
    cases = annotated(*[(5, 3)] * 5, groups=["p", "p", "p", "q", "r"])
    (found,) = check_splits(make_dataset(annotated=cases, splits=[sides("03", "14", "2")]))
    assert found.message == "The patient p is in test and train and val."


def test_a_label_that_nobody_has_is_not_missing_from_training_alone() -> None:
    dataset = make_dataset(annotated=annotated((5, 0), (5, 0)), splits=[sides("0", "1")])
    assert codes(check_splits(dataset)) == []


def cases(**declared: Any) -> list[Case]:
    return [
        replace(
            make_case(name), split=value if isinstance(value, str) else None, fold=value if value in range(9) else None
        )
        for name, value in declared.items()
    ]


def test_nothing_is_declared() -> None:
    assert read_declared_splits(cases(a=None, b=None)) == ([], [])


def test_a_split() -> None:
    assert read_declared_splits(cases(a="train", b="val", c="test")) == (
        [{"train": ["a"], "val": ["b"], "test": ["c"]}],
        [],
    )


def test_folds() -> None:
    splits, found = read_declared_splits(cases(a=0, b=1, c=1, d="test"))
    assert found == []
    assert splits == [
        {"train": ["b", "c"], "val": ["a"], "test": ["d"]},
        {"train": ["a"], "val": ["b", "c"], "test": ["d"]},
    ]


def test_some_cases_declare_nothing() -> None:
    _, found = read_declared_splits(cases(a="train", b="val", c=None))
    assert codes(found) == ["split-invalid"]
    assert "1 of 3 cases declares neither split nor fold: c." in found[0].message


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    known = cases(a=None, b=None)
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "origin": "x"}))
    assert read_split_file(path, known) == ([{"train": ["a"], "val": ["b"], "test": []}], [])
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    assert len(read_split_file(path, known)[0]) == 2
    path.write_text(json.dumps({"train": ["a"], "val": ["x"]}))
    splits, found = read_split_file(path, known)
    assert (len(splits), codes(found)) == (1, ["split-invalid"])
    assert found[0].message == "The split names 1 case that is not there: x."


@pytest.mark.parametrize("content", ["", "{", "3", "[3]", '{"train": 3}', '"text"'])
def test_files_that_are_no_split(tmp_path: Path, content: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content)
    splits, found = read_split_file(path, [])
    assert (splits, codes(found)) == ([], ["split-invalid"])
    assert codes(read_split_file(tmp_path / "nowhere.json", [])[1]) == ["split-invalid"]


def make(pixels: NDArray[np.uint8], name: str, group: str | None = None) -> CaseFacts:
    return make_facts(measure(pixels[None]), name=name, group=group)


def photograph(seed: int) -> NDArray[np.uint8]:
    return picture(seed, (96, 112))[0]


def test_different_images() -> None:
    assert codes(find_duplicates(make_dataset(*[make(photograph(seed), str(seed)) for seed in range(8)]))) == []


def test_the_same_pixels() -> None:
    images = [make(photograph(0), "a"), make(photograph(1), "b"), make(photograph(0), "c")]
    (found,) = find_duplicates(make_dataset(*images))
    assert (found.code, found.message) == ("exact-duplicate", "a has the same pixels as c.")


def test_the_same_pixels_of_one_patient() -> None:
    images = [make(photograph(0), "a", "p"), make(photograph(0), "b", "p")]
    assert codes(find_duplicates(make_dataset(*images))) == ["repeated-image"]


def test_a_flipped_copy() -> None:
    images = [make(photograph(0), "a"), make(photograph(0)[:, ::-1], "b")]
    (found,) = find_duplicates(make_dataset(*images))
    assert (found.code, found.case_id) == ("near-duplicate", "b")
    assert found.message.startswith("b looks like a: ")


def test_a_copy_of_the_same_patient_cannot_leak() -> None:
    assert (
        codes(find_duplicates(make_dataset(*[make(photograph(0), "a", "p"), make(photograph(0)[:, ::-1], "b", "p")])))
        == []
    )


def test_images_of_one_value_are_copies_of_nothing() -> None:
    assert codes(find_duplicates(make_dataset(*[make(np.full((32, 32), 7, np.uint8), name) for name in "abc"]))) == []
