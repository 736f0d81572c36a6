"""Masks that were moved, against those that lie on edges."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.checks.alignment_check import align, shift_findings
from medseg_pl.checks.measurements import Alignment, CaseFacts
from tests.checks.facts_of import codes, facts_of
from tests.end_to_end.clean_sets import picture, scan

SHAPE = (80, 96)


def aligned(seed: int, shift: tuple[int, int] = (0, 0)) -> Alignment | None:
    image, mask = picture(seed, SHAPE)
    return align(image[None, None], np.roll(mask, shift, (0, 1))[None])


def cases(shifts: list[tuple[int, int]]) -> list[CaseFacts]:
    return [facts_of(name=str(seed), alignment=aligned(seed, shift)) for seed, shift in enumerate(shifts)]


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (-7, 0), (0, 8)])
def test_the_shift_that_was_made_is_taken_back(shift: tuple[int, int]) -> None:
    found = aligned(0, shift)
    assert found is not None
    assert found.shift == (-shift[0], -shift[1])
    assert found.distance == pytest.approx(np.hypot(*shift))
    assert (found.best > 2 * found.here) == (shift != (0, 0))


def test_a_volume_is_judged_by_all_its_slices() -> None:
    image, mask = scan(3, (8, *SHAPE))
    found = align(image[None], np.roll(mask, (4, 5), (1, 2)))
    assert found is not None
    assert found.shift == (-4, -5)


def test_large_images_are_shrunk_and_shifts_told_in_their_own_pixels() -> None:
    image, mask = picture(0, SHAPE)
    large = np.kron(image, np.ones((16, 16), np.uint8))
    moved = np.roll(np.kron(mask, np.ones((16, 16), np.uint8)), 24, 0)
    found = align(large[None, None], moved[None])
    assert found is not None
    assert found.shift[0] == pytest.approx(-24, abs=2)
    assert found.distance == pytest.approx(8, abs=1)


def test_one_moved_mask_among_others() -> None:
    (found,) = shift_findings(cases([(0, 0)] * 6 + [(5, -6)]))
    assert (found.code, found.case_id) == ("image-mask-shift", "6")
    assert "moved by -5 rows and 6 columns" in found.message


def test_all_masks_moved_alike() -> None:
    assert codes(shift_findings(cases([(4, 4)] * 6))) == ["image-mask-shift"] * 6


def test_a_pixel_or_two_are_no_fault() -> None:
    assert codes(shift_findings(cases([(0, 0)] * 6 + [(1, 1), (0, 2)]))) == []


def test_masks_that_follow_no_edge_are_not_judged() -> None:
    off = [Alignment((5, 5), 7.1, 1.0, 2.0), Alignment((-3, 6), 6.7, 1.1, 2.0)]
    facts = [facts_of(name=str(number), alignment=off[number % 2]) for number in range(10)]
    assert codes(shift_findings(facts)) == []


def test_three_cases_are_too_few() -> None:
    assert codes(shift_findings(cases([(0, 0), (0, 0), (5, -6)]))) == []


def test_nothing_to_fit() -> None:
    image, mask = picture(0, SHAPE)
    assert align(image[None, None], np.zeros_like(mask)[None]) is None
    assert align(np.full((1, 1, *SHAPE), 7, np.uint8), mask[None]) is None
    assert align(image[None, None, :15, :15], mask[None, :15, :15]) is None
    assert align(np.full((1, 1, *SHAPE), np.nan, np.float32), mask[None]) is None
