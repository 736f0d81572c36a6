"""The registry of findings: what documentation, JSON and exit codes rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg_pl.checks.codes import KINDS, LEVELS
from medseg_pl.checks.findings import finding, worst_first


@pytest.mark.parametrize("code", KINDS)
def test_every_kind_can_be_read(code: str) -> None:
    kind = KINDS[code]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert kind.level in LEVELS
    assert not kind.meaning.endswith(".")
    assert kind.remedy.endswith(".")
    assert len(kind.meaning) <= 90


def test_a_finding_takes_level_and_remedy_from_the_registry() -> None:
    found = finding("mask-0-255", "It is so.", "a", Path("a.png"))
    assert (found.level, found.remedy) == (KINDS["mask-0-255"].level, KINDS["mask-0-255"].remedy)


def test_a_code_that_is_not_declared_is_our_own_mistake() -> None:
    with pytest.raises(KeyError):
        finding("nonsense", "It is so.")


def test_order_is_level_then_registry_then_case() -> None:
    found = [finding(code, "x.", case) for code in ("mask-empty", "clipped", "empty-file") for case in ("b", "a")]
    ordered = [(f.code, f.case_id) for f in worst_first(found)]
    assert ordered == [(code, case) for code in ("empty-file", "clipped", "mask-empty") for case in ("a", "b")]
