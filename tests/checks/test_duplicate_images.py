"""The same image under two names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg_pl.checks.duplicate_images import duplicate_findings
from medseg_pl.checks.measurements import CaseFacts
from tests.checks.facts_of import codes, facts_of, image_of
from tests.end_to_end.clean_sets import picture


def facts(pixels: NDArray[np.uint8], name: str, group: str | None = None) -> CaseFacts:
    return facts_of(image_of(pixels[None]), name=name, group=group)


def photograph(seed: int) -> NDArray[np.uint8]:
    return picture(seed, (96, 112))[0]


def test_different_images() -> None:
    assert codes(duplicate_findings([facts(photograph(seed), str(seed)) for seed in range(8)])) == []


def test_the_same_pixels() -> None:
    images = [facts(photograph(0), "a"), facts(photograph(1), "b"), facts(photograph(0), "c")]
    (found,) = duplicate_findings(images)
    assert (found.code, found.message) == ("exact-duplicate", "a has the same pixels as c.")


def test_the_same_pixels_of_one_patient() -> None:
    images = [facts(photograph(0), "a", "p"), facts(photograph(0), "b", "p")]
    assert codes(duplicate_findings(images)) == ["repeated-image"]


def test_a_flipped_copy() -> None:
    images = [facts(photograph(0), "a"), facts(photograph(0)[:, ::-1], "b")]
    (found,) = duplicate_findings(images)
    assert (found.code, found.case_id) == ("near-duplicate", "b")
    assert found.message.startswith("b looks like a: ")


def test_a_copy_of_the_same_patient_cannot_leak() -> None:
    assert codes(duplicate_findings([facts(photograph(0), "a", "p"), facts(photograph(0)[:, ::-1], "b", "p")])) == []


def test_images_of_one_value_are_copies_of_nothing() -> None:
    assert codes(duplicate_findings([facts(np.full((32, 32), 7, np.uint8), name) for name in "abc"])) == []
