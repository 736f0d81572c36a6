"""Whether a split can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_pl.reporting.run import read_run
from medseg_pl.reporting.split_audit import SplitAudit, audit_split
from tests.reporting.run_folders import some_scores, write_run


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
    assert (proof.verdict, proof.sentences[0]) == ("no", "1 patients or cases are on two sides of the split.")


def test_a_scored_case_that_was_trained_on_is_found(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, train=["case003"], test=["case000"])
    assert (proof.verdict, proof.sentences[0]) == ("no", "1 of the cases that were scored were trained on.")


def test_a_split_that_names_no_patients_is_doubtful(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, groups=None)
    assert proof.verdict == "unknown"
    assert "of 3 cases the run did not record the patient" in proof.sentences[0]
    assert [side.groups for side in proof.sides] == [None, None, 3]


def test_where_every_case_is_a_patient_the_reader_is_asked(tmp_path: Path) -> None:
    names = [row.case_id for row in some_scores(6, seed=0)]
    proof = proof_of(tmp_path, groups={name: name for name in (*names, "trained_1", "trained_2", "watched")})
    assert proof.verdict == "yes"
    assert any("a patient of its own" in sentence for sentence in proof.sentences)


def test_without_a_split_nothing_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_scores(4, seed=0))
    (run / "splits.json").unlink()
    assert audit_split(read_run(run, None)).verdict == "unknown"
