"""The queue: what is wrong comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.synthetic.layouts import LabeledScan
from medseg_pl.inference.evidence import (
    CaseEvidence,
    Evidence,
    LabelEvidence,
    assess_prediction,
    assess_reference,
)
from medseg_pl.inference.review_queue import (
    FEWEST_CASES,
    combine_evidence,
    excess_over_median,
    format_ranking,
    implausibility,
    rank_cases,
)
from tests.inference.simulated_predictions import FAULTS, probabilities_near, with_fault

ORGANS = LabelMap(["large_bowel", "small_bowel", "stomach"], "multilabel")
CASES = 40
FAULTY = CASES // 10


@pytest.fixture(scope="module")
def scans() -> list[LabeledScan]:
    return list(make_scans(CASES, seed=0, slices=8, size=(40, 36)))


def precision(queued: Sequence[str], faulty: Sequence[str]) -> float:
    """How many of the first tenth are faulty."""
    return len(set(queued[:FAULTY]) & set(faulty)) / FAULTY


@pytest.mark.trainings
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


class TestImplausibleSizes:
    def test_too_few_cases_say_nothing(self) -> None:
        assert implausibility([1.0] * (FEWEST_CASES - 2) + [1000.0]).tolist() == [0] * (FEWEST_CASES - 1)

    def test_it_does_not_depend_on_the_unit(self) -> None:
        sizes = np.random.default_rng(0).lognormal(3, 0.3, 40)
        sizes[0] *= 8
        np.testing.assert_allclose(implausibility(list(sizes)), implausibility(list(1000 * sizes)), atol=1e-12)
        assert implausibility(list(sizes)).argmax() == 0

    def test_twice_and_half_are_as_unusual(self) -> None:
        sizes = [100.0] * 18 + [50.0, 200.0]
        unusual = implausibility(sizes)
        assert unusual[18] == pytest.approx(unusual[19])
        assert unusual[18] == pytest.approx(1 - 3 * math.log(1.1) / math.log(2))

    def test_a_label_that_is_often_absent_may_be_absent(self) -> None:
        sizes = [0.0] * 10 + [100.0] * 10
        assert implausibility(sizes).tolist() == [0] * 20

    def test_what_nobody_has_and_what_everybody_has(self) -> None:
        assert implausibility([100.0] * 39 + [0.0])[-1] == 0.75
        assert implausibility([0.0] * 39 + [100.0])[-1] == 0.75


def test_signs_add_up_to_no_more_than_one() -> None:
    assert combine_evidence([]) == 0
    assert combine_evidence([0.25]) == 0.25
    assert combine_evidence([1.0, 0.5]) == 1
    assert combine_evidence([math.nan, math.nan]) == 0


def test_what_all_cases_have_is_no_sign() -> None:
    assert excess_over_median([0.75] * FEWEST_CASES).tolist() == [0] * FEWEST_CASES
    assert excess_over_median([0.75] * (FEWEST_CASES - 1)).tolist() == [0.75] * (FEWEST_CASES - 1)
