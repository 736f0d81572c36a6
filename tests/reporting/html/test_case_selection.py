"""Which cases get pictures."""

from __future__ import annotations

from medseg_pl.reporting.html.case_selection import chosen_cases, galleries
from medseg_pl.reporting.html.cases import CaseEntry


def entries(scored: int, unscored: int = 0) -> list[CaseEntry]:
    """The worst first, as `list_case_entries` has them; those without a score last."""
    means = [*(place / scored for place in range(scored)), *[None] * unscored]
    return [CaseEntry(place, f"c{place}", f"c{place}", "p", [{}], [mean]) for place, mean in enumerate(means)]


def numbers(chosen: list[CaseEntry]) -> list[int]:
    return [entry.number for entry in chosen]


def test_few_cases_are_all_chosen() -> None:
    assert numbers(chosen_cases(entries(3, 1), 50)) == [0, 1, 2, 3]


def test_of_many_the_worst_are_chosen_and_some_of_the_best() -> None:
    assert numbers(chosen_cases(entries(100, 9), 12)) == [*range(9), 97, 98, 99]
    assert numbers(chosen_cases(entries(100), 1)) == [0]
    assert chosen_cases(entries(5), 0) == []


def test_no_case_is_chosen_twice_where_few_have_a_score() -> None:
    assert numbers(chosen_cases(entries(5, 20), 8)) == [0, 1, 2, 3, 4]


def test_galleries_have_no_case_in_common() -> None:
    assert numbers(galleries(entries(20))) == [0, 1, 2, 3, 4, 5, 19, 18, 17, 16, 15, 14]
    assert numbers(galleries(entries(5, 3))) == [0, 1, 2, 4, 3]
    assert galleries(entries(0, 2)) == []
