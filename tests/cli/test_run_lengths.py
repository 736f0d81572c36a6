"""A submission of run lengths beside the data set that it is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.cli.run_lengths import holds_run_lengths, pair_tables
from medseg_pl.core.errors import MissingDataError
from medseg_pl.io.scores import read_rows

LABELS = ("large_bowel", "small_bowel", "stomach")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_phantom(tmp_path / "data", "uw_madison", cases=2, seed=0, slices=3, size=(40, 36))
    return tmp_path / "data"


def submit(data: Path, folder: Path, cases: int) -> list[str]:
    """Submit the references of the first cases; returns their names."""
    header, *lines = (data / "train.csv").read_text().splitlines()
    names = sorted({line.rpartition("_slice_")[0] for line in lines})[:cases]
    chosen = [line for line in lines if line.rpartition("_slice_")[0] in names]
    folder.mkdir()
    (folder / "submission.csv").write_text("\n".join([header.replace("segmentation", "predicted"), *chosen]) + "\n")
    return names


def test_cases_of_the_submission_are_paired(data: Path, tmp_path: Path) -> None:
    (name,) = submit(data, tmp_path / "masks", 1)
    assert holds_run_lengths(data)
    assert not holds_run_lengths(tmp_path / "masks")
    pairs, unmatched, left_out = pair_tables(data, tmp_path / "masks", all_cases=False)
    assert ([pair.case_id for pair in pairs], unmatched, left_out) == ([name], [], 1)
    pairs, unmatched, left_out = pair_tables(data, tmp_path / "masks", all_cases=True)
    assert ([pair.complete for pair in pairs], left_out) == ([True, False], 0)


def test_a_submission_of_the_references_is_perfect(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(data, tmp_path / "masks", 1)
    command = ["evaluate", "--reference", str(data), "--prediction", str(tmp_path / "masks"), "--no_distances"]
    assert main([*command, "-o", str(tmp_path / "perfect")]) == 0
    rows = read_rows(tmp_path / "perfect" / "scores_evaluate.csv")
    assert [row["label"] for row in rows] == list(LABELS)
    assert {row["dice"] for row in rows if row["tp"]} == {1.0}
    assert "left out: 1" in capsys.readouterr().out
    assert main([*command, "-o", str(tmp_path / "missed"), "--missing_as_empty"]) == 0
    rows = read_rows(tmp_path / "missed" / "scores_evaluate.csv")
    assert [row["tp"] for row in rows[3:]] == [0.0] * 3
    assert all(row["fn"] for row in rows[3:])


def test_what_does_not_belong_together_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingDataError, match=r"none/submission\.csv does not exist\. Set --prediction"):
        pair_tables(data, tmp_path / "none", all_cases=False)
    submit(data, tmp_path / "masks", 2)
    table = tmp_path / "masks" / "submission.csv"
    table.write_text(table.read_text().replace("case", "scan"))
    with pytest.raises(MissingDataError, match=r"has no case of .*Set --reference"):
        pair_tables(data, tmp_path / "masks", all_cases=False)
    table.write_text(table.read_text().replace("scan", "case"))
    command = ["evaluate", "--reference", str(data), "--prediction", str(tmp_path / "masks"), "-o", str(tmp_path / "o")]
    assert main([*command, "--spacing", "1,1"]) == 2
    assert "--spacing is for files that do not know their own" in capsys.readouterr().err
