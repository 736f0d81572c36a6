"""The queue: what is wrong comes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.synthetic.layouts import LabeledScan
from medseg_pl.inference.review import (
    CaseEvidence,
    Evidence,
    LabelEvidence,
    assess_prediction,
    assess_reference,
    format_ranking,
    rank_cases,
)
from tests.inference.review.simulated_predictions import FAULTS, probabilities_near, with_fault

ORGANS = LabelMap(["large_bowel", "small_bowel", "stomach"], "multilabel")
CASES = 40
FAULTY = CASES // 10


@pytest.fixture(scope="module")
def scans() -> list[LabeledScan]:
    return list(make_scans(CASES, seed=0, slices=8, size=(40, 36)))


def precision(queued: Sequence[str], faulty: Sequence[str]) -> float:
    """How many of the first tenth are faulty."""
    return len(set(queued[:FAULTY]) & set(faulty)) / FAULTY


@pytest.mark.parametrize("noise", [1.0, 2.0], ids=["Dice 0.9", "Dice 0.75"])
def test_wrong_labels_come_first(scans: list[LabeledScan], noise: float) -> None:
    """A tenth of the cases with labels that are shifted, dropped or exchanged; predictions that are good or poor."""
    rng = np.random.default_rng(0)
    faulty = [scans[place].case_id for place in rng.choice(CASES, FAULTY, replace=False)]
    cases = {}
    for scan in scans:
        planes = np.asarray(scan.masks) == 1
        probabilities = probabilities_near(planes, rng, noise * rng.uniform(0.5, 1.5))
        if scan.case_id in faulty:
            planes = with_fault(planes, FAULTS[faulty.index(scan.case_id) % 3], rng)
        mask = (probabilities > 0.5).astype(np.uint8)
        grid = Geometry(planes.shape[1:], scan.spacing_mm)
        cases[scan.case_id] = assess_reference(ORGANS, planes.astype(np.uint8), mask, probabilities, grid)
    queued = rank_cases(cases, ORGANS.names)
    assert len(queued) == CASES
    assert precision([each.case_id for each in queued], faulty) >= 0.8


def test_poor_predictions_come_first(scans: list[LabeledScan]) -> None:
    """A tenth of the cases of which two models are unsure, and disagree, or in which both miss an organ."""
    rng = np.random.default_rng(0)
    faulty = [scans[place].case_id for place in rng.choice(CASES, FAULTY, replace=False)]
    cases = {}
    for scan in scans:
        planes = np.asarray(scan.masks) == 1
        poor = scan.case_id in faulty
        missed = with_fault(planes, "dropped", rng) if poor and faulty.index(scan.case_id) % 2 else planes
        both = [probabilities_near(missed, rng, 3.0 if poor else 1.0, 3.0 if poor else 1.0) for _ in range(2)]
        mean = (both[0] + both[1]) / 2
        votes = [(each > 0.5).astype(np.uint8) for each in both]
        grid = Geometry(planes.shape[1:], scan.spacing_mm)
        cases[scan.case_id] = assess_prediction(ORGANS, (mean > 0.5).astype(np.uint8), mean, votes, grid)
    queued = rank_cases(cases, ORGANS.names)
    assert precision([each.case_id for each in queued], faulty) >= 0.8


class TestQueue:
    def case(self, liver: float, spleen: float = 0.0, size: float = 100.0) -> CaseEvidence:
        return CaseEvidence(
            [
                LabelEvidence({"surprise": Evidence(liver, "is odd")}, size, f"{size:g} ml"),
                LabelEvidence({"surprise": Evidence(spleen, "is strange")}, 100.0, "100 ml"),
            ],
            0,
        )

    def test_a_case_counts_by_its_worst_label(self) -> None:
        queued = rank_cases({"a": self.case(0.1, 0.2), "b": self.case(0.5), "c": self.case(0.1)}, ["liver", "spleen"])
        assert [(each.case_id, each.label, round(each.score, 6), each.reason) for each in queued] == [
            ("b", "liver", 0.5, "liver: is odd"),
            ("a", "spleen", 0.2, "spleen: is strange"),
            ("c", "liver", 0.1, "liver: is odd"),
        ]

    def test_a_label_that_is_hard_in_all_cases_hides_no_other(self) -> None:
        cases = {f"case{number}": self.case(0.6) for number in range(20)}
        cases["odd"] = self.case(0.6, 0.3)
        first, second, *_ = rank_cases(cases, ["liver", "spleen"])
        assert (first.case_id, first.label) == ("odd", "spleen")
        assert second.score == 0

    def test_an_unusual_size_is_a_reason(self) -> None:
        cases = {f"case{number}": self.case(0.0, size=100 + number) for number in range(20)}
        cases["small"] = self.case(0.02, size=5)
        first, second, *_ = rank_cases(cases, ["liver", "spleen"])
        assert (first.case_id, first.reason) == ("small", "liver: 5 ml of it, where 109 ml are usual")
        assert (second.score, second.reason) == (0, "")

    def test_equal_cases_stand_in_the_order_of_their_names(self) -> None:
        cases = {name: self.case(0.25) for name in ("b", "c", "a")}
        assert [row["case_id"] for row in format_ranking(rank_cases(cases, ["liver", "spleen"]))] == ["a", "b", "c"]
