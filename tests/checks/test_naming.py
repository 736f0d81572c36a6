"""A case of a name that leads out of a folder is a finding, and stops no other case."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.checks.findings import Finding
from medseg_pl.checks.naming import make_case


@pytest.mark.parametrize("name", ["../x", "/abs", "a\x1b[2J", ""])
def test_a_name_that_leads_out_is_a_finding(name: str) -> None:
    found: list[Finding] = []
    assert make_case(found, Path("list.csv"), name, "p", (Path("a.png"),)) == []
    (fault,) = found
    assert (fault.code, fault.file) == ("bad-name", Path("list.csv"))
    assert (fault.case_id + fault.message).isprintable()


def test_other_names_are_cases() -> None:
    found: list[Finding] = []
    (case,) = make_case(found, Path("list.csv"), "p/1", "p", (Path("a.png"),), (), "val", None)
    assert (case.case_id, case.split, found) == ("p/1", "val", [])
