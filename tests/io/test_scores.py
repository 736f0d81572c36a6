"""Tables of scores as files, and their cells."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.errors import MissingDataError, OutputExistsError, UnreadableFileError, replace_controls
from medseg_pl.io.scores import (
    choose_numbered_paths,
    choose_run,
    find_scores,
    format_summary,
    note_newest,
    read_cell,
    read_rows,
    suggest_run,
    write_cell,
    write_rows,
)


def test_a_table_as_bytes(tmp_path: Path) -> None:
    rows = [
        {"case_id": "a, b", "dice": 0.1 + 0.2, "tp": 12},
        {"case_id": 'say "c"', "dice": math.nan, "tp": 0},
    ]
    write_rows(tmp_path / "scores.csv", rows)
    assert (tmp_path / "scores.csv").read_bytes() == (
        b'case_id,dice,tp\n"a, b",0.30000000000000004,12\n"say ""c""",,0\n'
    )


def test_floats_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    values = [*np.random.default_rng(0).random(50), 1e-300, 2.0**60, math.inf]
    write_rows(tmp_path / "scores.csv", [{"value": value} for value in values])
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == values


def test_rows_with_different_columns_leave_fields_empty(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.csv", [{"a": 1}, {"b": "x", "a": 2}, {"c": 0.5}])
    assert (tmp_path / "scores.csv").read_text() == "a,b,c\n1,,\n2,x,\n,,0.5\n"


def test_a_table_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    write_rows(target, [{"a": 1}])
    with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
        write_rows(target, [{"a": 2}])
    assert target.read_text() == "a\n1\n"
    write_rows(target, [{"a": 2}], replace=True)
    assert target.read_text() == "a\n2\n"


def test_a_summary_is_plain_json() -> None:
    summary = {"foreground_mean": {"dice": 0.75}, "labels": {"spleen": {"std": None, "ci95": [0.5, 1.0]}}}
    text = format_summary(summary)
    assert json.loads(text, parse_constant=pytest.fail) == summary
    assert text.endswith("}\n")


def test_a_summary_with_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_summary({"dice": math.nan})


def test_taken_names_are_counted_on(tmp_path: Path) -> None:
    taken = []
    for _ in range(3):
        (path,) = choose_numbered_paths(tmp_path, "scores_test.csv")
        path.touch()
        taken.append(path.name)
    assert taken == ["scores_test.csv", "scores_test_2.csv", "scores_test_3.csv"]


@pytest.mark.parametrize("taken", ["scores_val.csv", "summary_val.json"])
def test_files_that_belong_together_share_a_number(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).touch()
    paths = choose_numbered_paths(tmp_path, "scores_val.csv", "summary_val.json")
    assert paths == [tmp_path / "scores_val_2.csv", tmp_path / "summary_val_2.json"]


def test_a_number_must_be_free_for_all_of_them(tmp_path: Path) -> None:
    for name in ("scores.csv", "summary_2.json"):
        (tmp_path / name).touch()
    names = [path.name for path in choose_numbered_paths(tmp_path, "scores.csv", "summary.json")]
    assert names == ["scores_3.csv", "summary_3.json"]


HEADER = "case_id,group,label,status"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rows = [
        {"case_id": "001", "group": "7", "label": "a, b", "tp": 12, "dice": 0.1 + 0.2, "status": "ok", "site": "Ulm"},
        {"case_id": "1e3", "group": "", "label": "ß", "tp": 0, "dice": 1e-300, "status": "ok", "site": ""},
    ]
    write_rows(tmp_path / "scores.csv", rows)
    assert read_rows(tmp_path / "scores.csv") == rows


def test_an_empty_field_is_nan_among_numbers_alone(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(f"{HEADER},dice,site,hd\nc1,p,x,ok,0.5,,\nc2,p,x,ok,,7b,\n")
    first, second = read_rows(tmp_path / "scores.csv")
    assert (first["dice"], first["site"], second["site"]) == (0.5, "", "7b")
    assert all(math.isnan(float(value)) for value in (second["dice"], first["hd"], second["hd"]))


def test_a_spreadsheet_may_have_saved_it(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\r\nc1,p,x,ok\r\n\r\n")
    assert read_rows(tmp_path / "scores.csv") == [{"case_id": "c1", "group": "p", "label": "x", "status": "ok"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no column case_id and no column group and .* found nothing"),
        (b"case_id;group;label;status\n1;2;3;4\n", "found case_id;group;label;status"),
        (b"case_id,group,dice\n1,2,3\n", "it has no column label and no column status"),
        (b"case_id,group,label,status,dice,dice\n", "it has the column dice twice"),
        (b"case_id,group,label,status\n", "has a header and no rows: no case was scored"),
        (b"case_id,group,label,status\nc1,p,x,ok\nc2,p\n", "row 2 has 2 fields where the header has 4"),
        (b"case_id,group,label,status\nM\xfcller,p,x,ok\n", "is not a table in UTF-8 with commas"),
        (b'case_id,group,label,status\n"c1,p,x,ok\n', "is not a table in UTF-8 with commas: unexpected end of data"),
    ],
)
def test_no_table_of_scores(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"scores\.csv.*{message}"):
        read_rows(tmp_path / "scores.csv")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"^There is no table of scores .*scores\.csv\. Name a scores_<stage>\.csv"
    ):
        read_rows(tmp_path / "scores.csv")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["scores_test.csv", "scores_val.csv", "scores_val_2.csv"], "scores_test.csv"),
        (["scores_test.csv", "scores_test_2.csv", "scores_test_10.csv", "scores_val.csv"], "scores_test_10.csv"),
        (["scores_val.csv", "scores_val_2.csv"], "scores_val_2.csv"),
        # A process was killed between the two files of a pair.
        (["scores_val.csv", "summary_val.json", "scores_val_2.csv"], "scores_val.csv"),
        (["scores_evaluate.csv", "metrics.csv", "summary_evaluate.json"], "scores_evaluate.csv"),
    ],
)
def test_the_table_of_a_folder(names: list[str], found: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_scores(tmp_path) == tmp_path / found
    assert find_scores(tmp_path / names[-1]) == tmp_path / names[-1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["scores_evaluate.csv", "scores_val.csv"], r"found scores_evaluate\.csv, scores_val\.csv\. Name the file"),
        (["metrics.csv", "checkpoints/"], r"found checkpoints/, metrics\.csv\. Name"),
        ([], "found nothing"),
        ([f"{i}.ckpt" for i in range(9)], r"found 0\.ckpt, 1\.ckpt, 2\.ckpt …\. Name"),
    ],
)
def test_a_folder_in_which_no_table_is_meant(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(MissingDataError, match=rf"^Expected scores_test\.csv, or one other table .*{message}"):
        find_scores(tmp_path)


def test_the_newest_table_of_a_stage(tmp_path: Path) -> None:
    for name in ("scores_test.csv", "scores_val.csv", "scores_val_2.csv"):
        (tmp_path / name).touch()
    assert find_scores(tmp_path, "val") == tmp_path / "scores_val_2.csv"
    assert note_newest(tmp_path / "scores_val_2.csv") == (
        f"Note: {tmp_path / 'scores_val_2.csv'} is read, the newest scores of val; older ones: scores_val.csv."
    )
    assert note_newest(tmp_path / "scores_test.csv") == ""
    with pytest.raises(MissingDataError, match=r"^Expected scores_evaluate\.csv, in .*found scores_test\.csv"):
        find_scores(tmp_path, "evaluate")


def test_the_newest_run_that_has_what_is_wanted_is_chosen(tmp_path: Path) -> None:
    for name in ("version_2/a.csv", "version_10/a.csv", "version_10/b.csv", "version_11/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert choose_run(tmp_path, "a*.csv") == tmp_path / "version_10"
    assert choose_run(tmp_path, "x.csv", "c.csv") == tmp_path / "version_11"
    assert choose_run(tmp_path, "x.csv") == tmp_path / "version_11"
    assert choose_run(tmp_path / "version_2", "x.csv") == tmp_path / "version_2"
    (tmp_path / "a.csv").touch()  # a cross-validation has scores of its own
    assert choose_run(tmp_path, "a*.csv") == tmp_path


def test_the_highest_number_is_the_newest_though_older_files_went(tmp_path: Path) -> None:
    (tmp_path / "scores_val_3.csv").touch()
    names = [path.name for path in choose_numbered_paths(tmp_path, "scores_val.csv", "summary_val.json")]
    assert names == ["scores_val_4.csv", "summary_val_4.json"]


def test_a_path_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"^There is nothing at .*gone\. Name a run folder"):
        find_scores(tmp_path / "gone")


def test_a_run_is_suggested_without_the_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "kept" / "version_0").mkdir(parents=True)
    assert suggest_run(Path("kept")) == "Did you mean runs/kept? "
    assert suggest_run(Path("kept/version_0")) == "Did you mean runs/kept/version_0? "
    assert suggest_run(Path("kpet")) == "Did you mean runs/kept? "
    assert suggest_run(Path("rums/kept")) == "Did you mean runs/kept? "
    assert suggest_run(Path("nothing")) == ""


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", '=HYPERLINK("http://h","a")', "＝1+1", "'=1"]  # noqa: RUF001


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert write_cell(text)[0] == "'"
    assert read_cell(write_cell(text)) == text


@given(st.text(alphabet=st.sampled_from("'=+-@a1. \t\x1b＝")))  # noqa: RUF001
def test_every_text_comes_back(text: str) -> None:
    assert read_cell(write_cell(text)) == replace_controls(text)


def test_a_table_of_scores_holds_no_formula_and_no_escape_code(tmp_path: Path) -> None:
    row = {"case_id": "=1+1", "group": "@g", "label": "a", "status": "ok", "dice": -0.5, "=site": "no\x1b[2Jrth"}
    write_rows(tmp_path / "scores.csv", [row])
    text = (tmp_path / "scores.csv").read_text()
    assert "\x1b" not in text
    with (tmp_path / "scores.csv").open(newline="") as file:
        fields = [field for line in csv.reader(file) for field in line]
    assert [field for field in fields if field[0] in "=+@"] == []
    (again,) = read_rows(tmp_path / "scores.csv")
    assert again == {**row, "=site": "no�[2Jrth"}
    assert "-0.5" in fields  # numbers stay numbers
