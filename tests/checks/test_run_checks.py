"""All findings of a data set, from what is known of its cases."""

from __future__ import annotations

import numpy as np

from medseg_pl.checks.findings import finding
from medseg_pl.checks.run_checks import report_on
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.transforms.resize import Resize
from tests.checks.facts_of import codes, facts_of, image_of, mask_of, textured

MASK = np.array([[[0, 1, 2, 0]] * 8], np.uint8).repeat(10, axis=2)
LABELS = LabelMap(["organ", "lesion"], "multiclass")


def cases(number: int = 3) -> list:
    return [facts_of(image_of(textured(seed, MASK.shape)), mask_of(MASK), name=str(seed)) for seed in range(number)]


def test_a_data_set_in_order() -> None:
    report = report_on(cases(), [], LABELS)
    assert (report.findings, report.labels, report.notes) == ((), LABELS, ())
    assert report.counts() == {"error": 0, "warning": 0, "note": 0}


def test_findings_of_all_kinds_come_together_once_and_the_worst_first() -> None:
    early = finding("missing-mask", "It has none.", "x")
    odd = facts_of(image_of(textured(9, MASK.shape)), mask_of(MASK * 3), name="odd", findings=(early,))
    report = report_on([*cases(), odd], [early], LABELS, patch=Resize("none", (19, 19)))
    assert codes(report.findings) == ["missing-mask", "mask-unknown-value", *["smaller-than-patch"] * 4]
    assert report.counts() == {"error": 2, "warning": 4, "note": 0}


def test_splits_are_drawn_knowing_the_labels() -> None:
    given = {}

    def split(voxels: object) -> tuple:
        given["voxels"] = voxels
        return [{"train": ["0", "1", "2"], "val": []}], [finding("split-invalid", "No.")]

    report = report_on(cases(), [], LABELS, split=split)
    assert given["voxels"] == {name: [80, 80] for name in "012"}
    assert codes(report.findings) == ["empty-side", "split-invalid"]


def test_masks_that_nobody_understands_are_not_called_empty() -> None:
    strange = [facts_of(None, mask_of(MASK * 7), name=str(number)) for number in range(3)]
    assert codes(report_on(strange, [], LABELS).findings) == ["mask-unknown-value"] * 3


def test_no_case() -> None:
    assert report_on([], [], LABELS).findings == ()
