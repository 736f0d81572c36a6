"""Names of structures, as people write them."""

from __future__ import annotations

import pytest

from medseg_pl.io.dicom.structures import Structure, matching

HELD = [Structure(1, "Liver"), Structure(2, "left kidney"), Structure(3, "LEFT_KIDNEY"), Structure(7, "2")]


@pytest.mark.parametrize("key", ["Liver", "liver", "LIVER", " liver "])
def test_case_and_padding_do_not_matter(key: str) -> None:
    assert matching(HELD, [key]) == [1]


@pytest.mark.parametrize("key", ["Left Kidney", "left_kidney", "left  kidney", "left _ kidney"])
def test_spaces_and_underscores_are_the_same(key: str) -> None:
    assert matching(HELD, [key]) == [2, 3]


def test_a_number_is_the_files_own_and_not_a_name() -> None:
    assert matching(HELD, [2]) == [2]
    assert matching(HELD, ["2"]) == [7]


def test_several_keys_are_united_in_the_order_of_the_file() -> None:
    assert matching(HELD, [7, "liver", 1]) == [1, 7]


@pytest.mark.parametrize("key", ["live", "liver 1", "kidney", "left-kidney", "", 9])
def test_nothing_else_is_meant(key: str | int) -> None:
    assert matching(HELD, [key]) == []
