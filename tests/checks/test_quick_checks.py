"""What `fit` can tell from the store alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from medseg_pl.checks import Counted, cheap_findings, in_brief
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.transforms.resize import Resize
from tests.checks.facts_of import case_of, codes

LABELS = LabelMap(["organ", "lesion"], "multiclass")
GRID = Geometry((1, 32, 40))


def counted(voxels: Sequence[int]) -> Counted:
    return Counted(GRID, tuple(voxels))


def found(
    *voxels: Sequence[int], train: str = "012", val: str = "3", groups: str = "0123", patch: Resize | None = None
) -> list[str]:
    cases = [case_of(str(number), group) for number, group in zip(range(len(voxels)), groups, strict=True)]
    entries = {str(number): counted(counts) for number, counts in enumerate(voxels)}
    return codes(cheap_findings(cases, entries, LABELS, {"train": list(train), "val": list(val), "test": []}, patch))


@pytest.mark.parametrize(
    ("voxels", "options", "codes"),
    [
        ([(9, 3)] * 4, {}, []),
        ([(0, 0)] * 4, {}, ["masks-all-empty"]),
        ([(9, 0)] * 4, {}, ["label-never-present"]),
        ([(9, 0), (9, 0), (9, 0), (9, 3)], {}, ["label-missing-from-training", "label-in-one-case"]),
        ([(9, 3)] * 4, {"train": "0123", "val": ""}, ["empty-side"]),
        ([(9, 3)] * 4, {"groups": "0120"}, ["patient-on-both-sides"]),
        ([(9, 3)] * 4, {"patch": Resize("none", (64, 50))}, ["smaller-than-patch"] * 4),
    ],
)
def test_findings(voxels: list[tuple[int, int]], options: dict[str, object], codes: list[str]) -> None:
    assert found(*voxels, **options) == codes  # type: ignore[arg-type]


def test_cases_without_masks_hold_no_label() -> None:
    bare = Case("bare", "bare", case_of("a").images)
    with_mask = [case_of(str(number)) for number in range(2)]
    entries = {"bare": Counted(GRID, None), "0": counted((9, 3)), "1": counted((9, 3))}
    sides = {"train": ["0", "bare"], "val": ["1"]}
    assert codes(cheap_findings([bare, *with_mask], entries, LABELS, sides)) == []


def test_findings_of_a_kind_are_told_once() -> None:
    cases = [case_of(str(number)) for number in range(4)]
    entries = {case.case_id: counted((9, 0)) for case in cases}
    sides = {"train": ["0", "1", "2"], "val": ["3"], "test": []}
    assert in_brief(cheap_findings(cases, entries, LABELS, sides, Resize("none", (64, 50)))) == [
        "label-never-present: The label 'lesion' is in none of 4 masks. Correct the label's name or value, or leave "
        "the label out.",
        "smaller-than-patch: Case 0: A slice of 32 x 40 pixels fills 40% of a patch of 64 x 50. The same of 3 more. "
        "Choose a smaller patch, or expect padding.",
    ]
