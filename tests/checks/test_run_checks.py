"""All findings of a data set, from measurements or from what the cache knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.checks import CODES, LEVELS, LabelCounts, run_quick_checks, summarize_findings
from medseg_pl.checks.run_checks import run_checks, sort_by_severity
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Case
from medseg_pl.data.transforms.resize import Resize
from tests.checks.samples import LABELS, codes, make_case, make_facts, measure, measure_values, textured

MASK = np.array([[[0, 1, 2, 0]] * 8], np.uint8).repeat(10, axis=2)


def cases(number: int = 3) -> list:
    return [
        make_facts(measure(textured(seed, MASK.shape)), measure_values(MASK), name=str(seed)) for seed in range(number)
    ]


def test_a_data_set_in_order() -> None:
    report = run_checks(cases(), [], LABELS)
    assert (report.findings, report.labels, report.notes) == ((), LABELS, ())
    assert report.counts() == {"error": 0, "warning": 0, "note": 0}


def test_findings_of_all_kinds_come_together_once_and_the_sort_by_severity() -> None:
    early = CODES.find("missing-mask", "It has none.", "x")
    odd = make_facts(measure(textured(9, MASK.shape)), measure_values(MASK * 3), name="odd", findings=(early,))
    report = run_checks([*cases(), odd], [early], LABELS, patch=Resize("none", (19, 19)))
    assert codes(report.findings) == ["missing-mask", "mask-unknown-value", *["smaller-than-patch"] * 4]
    assert report.counts() == {"error": 2, "warning": 4, "note": 0}


def test_splits_are_drawn_knowing_the_labels() -> None:
    given = {}

    def split(voxels: object) -> tuple:
        given["voxels"] = voxels
        return [{"train": ["0", "1", "2"], "val": []}], [CODES.find("split-invalid", "No.")]

    report = run_checks(cases(), [], LABELS, choose_splits=split)
    assert given["voxels"] == {name: [80, 80] for name in "012"}
    assert codes(report.findings) == ["empty-side", "split-invalid"]


def test_masks_that_nobody_understands_are_not_called_empty() -> None:
    strange = [make_facts(None, measure_values(MASK * 7), name=str(number)) for number in range(3)]
    assert codes(run_checks(strange, [], LABELS).findings) == ["mask-unknown-value"] * 3


def test_no_case() -> None:
    assert run_checks([], [], LABELS).findings == ()


GRID = Geometry((1, 32, 40))


def counted(voxels: Sequence[int]) -> LabelCounts:
    return LabelCounts(GRID, tuple(voxels))


def found(
    *voxels: Sequence[int], train: str = "012", val: str = "3", groups: str = "0123", patch: Resize | None = None
) -> list[str]:
    cases = [make_case(str(number), group) for number, group in zip(range(len(voxels)), groups, strict=True)]
    entries = {str(number): counted(counts) for number, counts in enumerate(voxels)}
    return codes(run_quick_checks(cases, entries, LABELS, {"train": list(train), "val": list(val), "test": []}, patch))


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
    bare = Case("bare", "bare", make_case("a").images)
    with_mask = [make_case(str(number)) for number in range(2)]
    entries = {"bare": LabelCounts(GRID, None), "0": counted((9, 3)), "1": counted((9, 3))}
    sides = {"train": ["0", "bare"], "val": ["1"]}
    assert codes(run_quick_checks([bare, *with_mask], entries, LABELS, sides)) == []


def test_findings_of_a_kind_are_told_once() -> None:
    cases = [make_case(str(number)) for number in range(4)]
    entries = {case.case_id: counted((9, 0)) for case in cases}
    sides = {"train": ["0", "1", "2"], "val": ["3"], "test": []}
    assert summarize_findings(run_quick_checks(cases, entries, LABELS, sides, Resize("none", (64, 50)))) == [
        "label-never-present: The label 'lesion' is in none of 4 masks. Correct the label's name or value, or leave "
        "the label out.",
        "smaller-than-patch: Case 0: A slice of 32 x 40 pixels fills 40% of a patch of 64 x 50. The same of 3 more. "
        "Choose a smaller patch, or expect padding.",
    ]


def test_what_may_be_right_is_called_fine() -> None:
    doubtful = [code for code, kind in CODES.items() if kind.level != "error" and "far from" in kind.meaning]
    doubtful += ["data-types-differ", "constant-channel", "mask-full"]
    assert {"intensity-outlier", "spacing-outlier", "size-outlier"} < set(doubtful)
    for code in doubtful:
        assert re.search(r"[Ff]ine if .+; else \w+", CODES[code].remedy), code
    assert not [code for code, kind in CODES.items() if kind.level != "error" and kind.remedy.startswith("Check")]


@pytest.mark.parametrize("code", CODES)
def test_every_kind_can_be_read(code: str) -> None:
    kind = CODES[code]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert kind.level in LEVELS
    assert not kind.meaning.endswith(".")
    assert kind.remedy.endswith(".")
    assert len(kind.meaning) <= 90


def test_a_finding_takes_level_and_remedy_from_the_registry() -> None:
    found = CODES.find("mask-0-255", "It is so.", "a", Path("a.png"))
    assert (found.level, found.remedy) == (CODES["mask-0-255"].level, CODES["mask-0-255"].remedy)


def test_a_code_that_is_not_declared_is_our_own_mistake() -> None:
    with pytest.raises(KeyError):
        CODES.find("nonsense", "It is so.")


def test_order_is_level_then_registry_then_case() -> None:
    found = [CODES.find(code, "x.", case) for code in ("mask-empty", "clipped", "empty-file") for case in ("b", "a")]
    ordered = [(f.code, f.case_id) for f in sort_by_severity(found)]
    assert ordered == [(code, case) for code in ("empty-file", "clipped", "mask-empty") for case in ("a", "b")]
