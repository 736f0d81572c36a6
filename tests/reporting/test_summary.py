"""Whether a split can be trusted, and where scores differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.reporting import Run
from medseg_pl.reporting.run import read_run
from medseg_pl.reporting.summary import (
    FEWEST_CASES,
    SplitAudit,
    Subgroup,
    assess_quality,
    audit_split,
    find_weakest,
    find_weaknesses,
    list_limitations,
    list_size_thirds,
    list_strata,
)
from tests.reporting.run_folders import ENVIRONMENT, score, some_scores, write_run


def proof_of(folder: Path, **splits: Any) -> SplitAudit:
    return audit_split(read_run(write_run(folder, some_scores(6, seed=0), splits=splits), None))


def test_sides_without_a_common_patient_are_trusted(tmp_path: Path) -> None:
    proof = proof_of(tmp_path)
    assert proof.verdict == "yes"
    assert [(side.name, side.cases, side.groups) for side in proof.sides] == [
        ("training", 2, 2),
        ("validation", 1, 1),
        ("test", 6, 3),
    ]
    assert "Scored were the test cases." in proof.sentences


def test_one_patient_on_two_sides_is_found(tmp_path: Path) -> None:
    groups = {"trained_1": "patient01", "trained_2": "b", "watched": "c"}
    groups |= {row.case_id: row.group for row in some_scores(6, seed=0)}
    proof = proof_of(tmp_path, groups=groups)
    assert (proof.verdict, proof.sentences[0]) == ("no", "1 patient or case is on two sides of the split.")


def test_a_scored_case_that_was_trained_on_is_found(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, train=["case003"], test=["case000"])
    assert (proof.verdict, proof.sentences[0]) == ("no", "1 scored case was trained on.")


def test_a_split_that_names_no_patients_is_doubtful(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, groups=None)
    assert proof.verdict == "unknown"
    assert "of 3 cases the run did not record the patient" in proof.sentences[0]
    assert [side.groups for side in proof.sides] == [None, None, 3]


def test_where_every_case_is_a_patient_the_reader_is_asked(tmp_path: Path) -> None:
    names = [row.case_id for row in some_scores(6, seed=0)]
    proof = proof_of(tmp_path, groups={name: name for name in (*names, "trained_1", "trained_2", "watched")})
    assert (proof.verdict, proof.headline) == ("yes", "yes, if no patient has two cases")
    assert any("a patient of its own" in sentence for sentence in proof.sentences)


def test_without_a_split_nothing_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_scores(4, seed=0))
    (run / "splits.json").unlink()
    assert audit_split(read_run(run, None)).verdict == "unknown"


def test_thirds_by_size_are_means_of_the_cases_in_them(tmp_path: Path) -> None:
    dice = [0.2, 0.4, 0.6, 0.6, 0.9, 0.8]
    table = [score(f"c{i}", f"p{i}", "liver", each, size=100 * (i + 1)) for i, each in enumerate(dice)]
    sizes = list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None))
    assert [(each.cases, each.mean) for each in sizes] == [(2, pytest.approx(m)) for m in (0.3, 0.6, 0.85)]
    assert sizes[0].value == "smallest third, 1.00 to 2.00 ml"


@pytest.mark.parametrize(
    ("sizes", "value"),
    [
        ((154, 160), "smallest third, 1.54 to 1.60 ml"),
        ((162, 162), "smallest third, 1.62 ml"),
        ((2, 1530), "smallest third, 0.02 to 15.30 ml"),
        ((987, 12345), "smallest third, 10 to 123 ml"),
        ((100, 123456), "smallest third, 1 to 1235 ml"),
    ],
)
def test_both_ends_of_a_third_have_the_same_digits(tmp_path: Path, sizes: tuple[int, int], value: str) -> None:
    volumes = [*sizes, *[10**6] * 4]
    table = [score(f"c{i}", f"p{i}", "liver", 0.8, size) for i, size in enumerate(volumes)]
    assert list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None))[0].value == value


def test_two_cases_are_no_finding() -> None:
    weak, strong, tiny, alone = (
        Subgroup(kind, value, cases, mean, {})
        for kind, value, cases, mean in (
            ("site", "south", FEWEST_CASES, 0.7),
            ("site", "north", 20, 0.9),
            ("site", "west", FEWEST_CASES - 1, 0.2),
            ("scanner", "old", 30, 0.1),
        )
    )
    assert FEWEST_CASES == 5
    assert find_weakest([strong, tiny, weak, alone]) == weak
    assert find_weakest([strong, tiny, alone]) is None


def test_few_cases_are_not_told_apart_by_size(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", 0.5) for i in range(5)]
    assert list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None)) == []


def score_sites(dice: list[float]) -> list[CaseScore]:
    """Scores of cases, by turns of the sites north and south."""
    return [score(f"c{i}", f"p{i}", "liver", each) for i, each in enumerate(dice)]


def test_strata_are_those_of_the_summary(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, score_sites([0.9, 0.5, 0.8, 0.4]), ["liver"]), None)
    found = {each.value: (each.kind, each.cases, each.mean) for each in list_strata(run)}
    assert found == {"north": ("site", 2, pytest.approx(0.85)), "south": ("site", 2, pytest.approx(0.45))}
    assert not any("Weakest by" in sentence for sentence in find_weaknesses(run).sentences)


def test_the_weakest_subgroup_is_named_with_its_cases(tmp_path: Path) -> None:
    table = [replace(row, values={**row.values, "volume_reference_ml": 0.0}) for row in score_sites([0.9, 0.4] * 5)]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    assert "Weakest by site: south (5 cases, Dice 0.400)." in find_weaknesses(run).sentences
    strata = run.summary["strata"]["site"]
    smaller = {**strata, "west": {**strata["south"], "n_cases": 4, "foreground_mean": {"dice": 0.1}}}
    run = replace(run, summary={**run.summary, "strata": {"site": smaller}})
    weakest = "Weakest by site with at least 5 cases: south (5 cases, Dice 0.400)."
    assert weakest in find_weaknesses(run).sentences


def run_of(folder: Path, dice: list[float], **survey: Any) -> Run:
    write_run(folder, [score(f"c{i}", f"p{i}", "liver", value) for i, value in enumerate(dice)], ["liver"])
    record = {**ENVIRONMENT, "data": {**ENVIRONMENT["data"], "survey": survey}}
    (folder / "environment.json").write_text(json.dumps(record))
    return read_run(folder, None)


def test_one_label_has_no_mean_over_labels(tmp_path: Path) -> None:
    assert assess_quality(run_of(tmp_path, [0.8] * 3)).sentences[0] == "The Dice of liver in 3 cases of 3 patients."


def test_a_share_of_the_outline_is_not_rounded_up(tmp_path: Path) -> None:
    # The square root of 0.9996, whose NSD is that number: not 100 %.
    run = run_of(tmp_path, [0.9998] * 3)
    assert "On average, 99.9 % of the outline is within the tolerance (NSD)." in assess_quality(run).sentences
    known = replace(run, summary={**run.summary, "nsd_tolerance": {"liver": 1.0}})
    assert "On average, 99.9 % of the outline is within 1 mm (NSD)." in assess_quality(known).sentences


def test_a_far_outlier_does_not_speak_for_all_outlines(tmp_path: Path) -> None:
    # HD95 is 40 mm times what Dice lacks to 1: 4, 8 and 40 mm for 0.9, 0.8 and a miss, of which the mean is 17.3.
    run = run_of(tmp_path / "one", [0.9, 0.8, 0.0])
    assert "In half of the cases, 95 % of the outline is within 8.0 mm (HD95, median)." in assess_quality(run).sentences
    both = [score(f"c{i}", f"p{i}", label, dice) for i in range(3) for label, dice in (("a", 0.9), ("b", 0.8))]
    run = read_run(write_run(tmp_path / "two", both, ["a", "b"]), None)
    assert (
        "In half of the cases, 95 % of each label's outline is within 8.0 mm (HD95, median)."
        in assess_quality(run).sentences
    )


def test_cases_in_which_a_label_was_missed_are_counted_once(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", [0.9, 0.0, 0.8])
    assert "Entirely missed: 1 case; invented: 0 cases." in find_weaknesses(run).sentences
    table = [score("c0", "p0", label, 0.0) for label in ("a", "b")]
    run = read_run(write_run(tmp_path / "two", table, ["a", "b"]), None)
    assert "A label entirely missed: 1 case; invented: 0 cases." in find_weaknesses(run).sentences


def test_a_good_model_on_many_patients_has_none(tmp_path: Path) -> None:
    assert list_limitations(run_of(tmp_path, [0.9, 0.91] * 30)) == []


def test_an_evaluation_of_training_cases_is_not_trusted(tmp_path: Path) -> None:
    run = run_of(tmp_path, [0.9, 0.91])
    assert audit_split(run).verdict != "no"
    proof = audit_split(replace(run, summary={**run.summary, "n_trained": 2}))
    assert (proof.verdict, proof.headline) == ("no", "no: the scores are too good")
    assert proof.sentences == ["Scores are too good: 2 masks are of cases with the names of training cases."]


def test_few_cases_a_miss_and_a_wide_interval(tmp_path: Path) -> None:
    few, wide, missed, caution, cut = list_limitations(run_of(tmp_path, [0.9, 0.8, 0.0, 0.7, 0.9]))
    assert few == "liver: scored on 5 cases only."
    assert wide.startswith("liver: the mean Dice lies anywhere from 0.")
    assert missed == "liver: entirely missed in 1 case."
    assert caution.startswith("liver: with 5 patients an interval holds the true mean less often than 95 times in 100")
    assert cut == "liver: the intervals of Dice and HD95 are cut off at the best or the worst case. Quote a range."


def test_misses_that_were_not_seen(tmp_path: Path) -> None:
    (caution,) = list_limitations(run_of(tmp_path, [0.9, 0.91] * 10))
    assert caution.startswith("liver: found, if only in part, in each of 20 ")


@pytest.mark.parametrize(("spacing", "said"), [([3.0, 0.5, 0.75], 1), (None, 0)])
def test_pixels_of_one_size(tmp_path: Path, spacing: list[float] | None, said: int) -> None:
    found = list_limitations(run_of(tmp_path, [0.9, 0.91] * 30, spacing_mm=spacing))
    assert (
        found
        == ["It was trained on pixels of about 0.5 × 0.75 mm and does not resample: others were not tried."] * said
    )


def test_a_run_without_scores(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("experiment: demo\n")
    run = read_run(tmp_path, None, labels=["liver"])
    assert (run.stage, run.labels, run.rows) == ("none", ["liver"], [])
    assert list_limitations(run) == ["No score of this model is known."]
