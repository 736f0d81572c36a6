"""`medseg compare`: what it refuses, what it finds, and what it says of it."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.compare import comparison_table
from medseg_pl.io.scores import write_rows
from tests.printed_json import run_json

PATIENTS = [f"p{i}" for i in range(8)]
Rows = list[dict[str, Any]]


def score(case_id: str, label: str, found: int, size: int = 100, **changes: Any) -> dict[str, Any]:
    """A row in which `found` of `size` voxels were found and no others; of an empty reference all are too many."""
    tp, fp = (found, 0) if size else (0, found)
    status = "ok" if size and found else "missed" if size else "false_alarm" if found else "undefined"
    dice = 2 * tp / (tp + fp + size) if size or found else math.nan
    distance = math.nan if status == "undefined" else 10 * (1 - dice) if status == "ok" else 200.0
    return {
        "case_id": case_id,
        "group": case_id.partition("_")[0],
        "label": label,
        "tp": tp,
        "fp": fp,
        "fn": size - tp,
        "dice": dice,
        "hd95": distance,
        "volume_prediction_ml": float(tp + fp),
        "status": status,
        "unit": "mm",
    } | changes


def liver(*found: int, **changes: Any) -> Rows:
    """One case of each of eight patients."""
    return [score(patient, "liver", voxels, **changes) for patient, voxels in zip(PATIENTS, found, strict=True)]


FAIR = liver(70, 72, 65, 80, 75, 71, 69, 77)
BETTER = liver(80, 81, 77, 88, 85, 80, 80, 86)


def save(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)
    return str(path)


def compare(tmp_path: Path, a: Rows, b: Rows, *options: str) -> dict[str, Any]:
    """What the command prints as JSON; its text is printed, too."""
    number = len(list(tmp_path.glob("*.csv")))
    paths = [save(tmp_path / f"{name}{number}.csv", rows) for name, rows in (("a", a), ("b", b))]
    code, result = run_json("compare", *paths, *options)
    assert code == 0
    assert main(["compare", *paths, *(option for option in options if not option.startswith("--csv"))]) == 0
    return dict(result)


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], a: Rows, b: Rows, *options: str) -> tuple[int, str]:
    """The exit code, and the one paragraph that was said, with short names of the files."""
    paths = [save(tmp_path / f"{name}.csv", rows) for name, rows in (("a", a), ("b", b))]
    code = main(["compare", *paths, *options])
    return code, capsys.readouterr().err.replace(f"{tmp_path}/", "")


def test_a_run_that_is_better_in_every_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(tmp_path, FAIR, BETTER)
    liver = result["metrics"]["dice"]["labels"]["liver"]
    assert liver["mean_a"] == pytest.approx(np.mean([row["dice"] for row in FAIR]))
    assert liver["difference"] == pytest.approx(liver["mean_b"] - liver["mean_a"])
    assert liver["interval"][0] > 0
    assert liver["p"] == liver["p_holm"] == 2 / 2**8
    assert (liver["wins"], liver["ties"], liver["losses"]) == (8, 0, 0)
    assert (liver["cases"], liver["groups"], liver["better"]) == (8, 8, "b")
    printed = capsys.readouterr().out
    assert "dice (higher is better): 8 cases\n" in printed
    assert "\ndice: B is better for liver.\n" in printed
    assert re.search(
        r"\nliver +0\.\d{3} +0\.\d{3} +0\.\d{3} +0\.\d{3} to 0\.\d{3} +0\.008 +0\.008 +8/0/0 +\d+\n", printed
    )


def test_what_the_json_holds(tmp_path: Path) -> None:
    result = compare(tmp_path, FAIR, BETTER, "--metric", "dice", "--metric", "hd95", "--resamples", "500")
    numbers = {"cases", "groups", "mean_a", "mean_b", "difference", "interval", "p", "p_holm", "wins", "ties", "losses"}
    mean = numbers | {"cases_needed"}
    assert result.keys() == {"a", "b", "resamples", "seed", "metrics"}
    assert result["a"] == {"file": str(tmp_path / "a0.csv"), "stage": None, "unpaired": 0}
    assert (result["resamples"], result["seed"]) == (500, 0)
    assert list(result["metrics"]) == ["dice", "hd95"]
    for name, higher in (("dice", True), ("hd95", False)):
        compared = result["metrics"][name]
        assert compared.keys() == {"higher_is_better", "unit", "labels", "mean", "patients_known"}
        assert (compared["higher_is_better"], compared["unit"]) == (higher, None if higher else "mm")
        assert compared["mean"].keys() == mean
        assert compared["labels"]["liver"].keys() == mean | {"undefined", "false_alarms_a", "false_alarms_b", "better"}
        assert compared["labels"]["liver"]["better"] == "b"


def test_the_csv_is_the_json_in_rows(tmp_path: Path) -> None:
    a, b = [*FAIR, score("p0", "spleen", 50)], [*BETTER, score("p0", "spleen", 60)]
    target = tmp_path / "table.csv"
    compared = compare(tmp_path, a, b, f"--csv={target}")["metrics"]["dice"]
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], row["row"], row["label"]) for row in rows] == [
        ("dice", "label", "liver"),
        ("dice", "label", "spleen"),
        ("dice", "mean", ""),
    ]
    for row, fields in zip(rows, [*compared["labels"].values(), compared["mean"]], strict=True):
        low, high = fields.pop("interval") or (None, None)
        assert row["unit"] == ""
        for name, value in {**fields, "interval_low": low, "interval_high": high}.items():
            assert row[name] == ("" if value is None else str(value)), name


def test_equal_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = compare(tmp_path, FAIR, FAIR)["metrics"]["dice"]
    for fields in (compared["labels"]["liver"], compared["mean"]):
        assert (fields["difference"], fields["interval"], fields["p"]) == (0.0, None, 1.0)
        assert fields["cases_needed"] is None
    assert (compared["labels"]["liver"]["ties"], compared["labels"]["liver"]["better"]) == (8, None)
    assert "\ndice: no difference is shown for liver.\n" in capsys.readouterr().out


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows: list[Rows] = [
        [
            score(f"p{patient}_{day}", label, int(rng.integers(1, 100)))
            for patient in range(15)
            for day in range(1 + patient % 3)
            for label in ("spleen", "liver")
        ]
        for _ in range(2)
    ]
    expected = compare(tmp_path, *rows, "--metric", "dice", "--metric", "hd95")
    printed = capsys.readouterr().out.partition("dice")[2]
    for table in rows:
        random.Random(0).shuffle(table)
    rows[0] = [dict(reversed(row.items())) for row in rows[0]]
    shuffled = compare(tmp_path, *rows, "--metric", "dice", "--metric", "hd95")
    assert shuffled["metrics"] == expected["metrics"], "to the last digit"
    assert capsys.readouterr().out.partition("dice")[2] == printed


def test_the_first_run_can_be_the_better_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = compare(tmp_path, BETTER, FAIR, "--metric", "hd95")["metrics"]["hd95"]["labels"]["liver"]
    assert compared["difference"] > 0
    assert (compared["better"], compared["losses"]) == ("a", 8)
    printed = capsys.readouterr().out
    assert "\nhd95 in mm (lower is better): 8 cases\n" in printed
    assert "\nhd95: A is better for liver.\n" in printed


def test_each_label_is_corrected_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = [*FAIR, *({**row, "label": "spleen"} for row in FAIR)]
    b = [*BETTER, *({**row, "label": "spleen"} for row in FAIR)]
    compared = compare(tmp_path, a, b)["metrics"]["dice"]
    assert [compared["labels"][name]["p_holm"] for name in ("liver", "spleen")] == [4 / 2**8, 1.0]
    assert (compared["mean"]["p"], compared["mean"]["p_holm"]) == (2 / 2**8, None)
    assert compared["mean"]["difference"] == pytest.approx(compared["labels"]["liver"]["difference"] / 2)
    assert "\ndice: B is better for liver; no difference is shown for spleen.\n" in capsys.readouterr().out


def test_images_of_one_patient_count_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = ([score(f"p{i % 2}_{i}", "liver", voxels) for i in range(20)] for voxels in (60, 70))
    compared = compare(tmp_path, a, b)["metrics"]["dice"]["labels"]["liver"]
    assert (compared["cases"], compared["groups"], compared["p"], compared["better"]) == (20, 2, 2 / 4, None)
    expected = "With 2 patients p is at least 0.500: no difference can be shown, however large.\n"
    assert expected in capsys.readouterr().out


def test_of_one_patient_nothing_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = ([score(f"p_{i}", "liver", voxels) for i in range(5)] for voxels in (60, 70))
    compared = compare(tmp_path, a, b)["metrics"]["dice"]
    for fields in (compared["labels"]["liver"], compared["mean"]):
        assert [fields[name] for name in ("interval", "p", "p_holm", "cases_needed")] == [None] * 4
    printed = capsys.readouterr().out
    assert re.search(r"\nliver +0\.750 +0\.824 +0\.074 +– +– +– +5/0/0 +–\n", printed)
    assert "\nWith fewer than two patients there is neither an interval nor a p.\n" in printed


def test_a_false_alarm_costs_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, alarm = score("p9", "liver", 0, size=0), score("p9", "liver", 40, size=0)
    for metric, difference in (("dice", -1 / 9), ("hd95", 200 / 9)):
        compared = compare(tmp_path, [*FAIR, empty], [*FAIR, alarm], "--metric", metric)["metrics"][metric]
        fields = compared["labels"]["liver"]
        assert (fields["cases"], fields["wins"], fields["ties"], fields["losses"]) == (9, 0, 8, 1)
        assert fields["difference"] == pytest.approx(difference)
        assert (fields["undefined"], fields["false_alarms_a"], fields["false_alarms_b"]) == (0, 0, 1)
    assert (
        "Empty references: where one run alone found what the reference has not, the other got the best score (false "
        "alarms: 0 of A, 1 of B).\n"
    ) in capsys.readouterr().out


def test_cases_without_the_label_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [score("p9", "liver", 0, size=0), score("p9", "spleen", 0, size=0)]
    compared = compare(tmp_path, [*FAIR, *empty], [*BETTER, *empty], "--metric", "hd95")["metrics"]["hd95"]
    assert (compared["labels"]["liver"]["cases"], compared["labels"]["liver"]["undefined"]) == (8, 1)
    assert (compared["labels"]["spleen"]["cases"], compared["labels"]["spleen"]["mean_a"]) == (0, None)
    assert compared["mean"]["difference"] == compared["labels"]["liver"]["difference"]
    printed = capsys.readouterr().out
    assert "Empty references: 2 rows without a score in either run are left out.\n" in printed
    assert re.search(r"\nspleen( +–){6} +0/0/0 +–\n", printed)


def test_runs_on_different_cases_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(tmp_path, capsys, FAIR, BETTER[2:]) == (
        1,
        "medseg: The runs were not scored on the same cases and labels: b.csv lacks 2 rows (p0 liver, p1 liver). Score "
        "both on the same cases, or leave these out with --allow_unpaired.\n",
    )


def test_unless_that_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(tmp_path, FAIR, [*BETTER[2:], score("p9", "liver", 50)], "--allow_unpaired")
    assert (result["a"]["unpaired"], result["b"]["unpaired"]) == (2, 1)
    assert result["metrics"]["dice"]["mean"]["cases"] == 6
    assert "Left out: 2 rows that only A has, 1 that only B has.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fn": 40}, "Case p0, label liver: the reference has 100 voxels in a.csv and 120 in b.csv, so the runs were"),
        ({"group": "p1"}, "Case p0, label liver: its patient (group) is 'p0' in a.csv and 'p1' in b.csv."),
        ({"unit": "px"}, "Case p0, label liver: hd95 is in mm in a.csv and in px in b.csv."),
        ({"hd95": math.nan}, "b.csv: hd95 of case p0, label liver, is empty although its status is ok: it was"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [{**BETTER[0], **changes}, *BETTER[1:]]
    code, said = refusal(tmp_path, capsys, FAIR, other, "--metric", "hd95")
    assert code == 1
    assert said.startswith(f"medseg: {message}")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("dise", "there is no such column in a.csv and b.csv. Did you mean dice?"),
        ("nsd", "there is no such column in a.csv and b.csv. Choose from dice, hd95."),
        ("iou", "there is no such column in b.csv. Choose from dice, hd95."),
        (
            "volume_prediction_ml",
            "neither higher nor lower is better, so it cannot rank runs. Choose from dice, hd95.",
        ),
        ("tp", "neither higher nor lower is better, so it cannot rank runs. Choose from dice, hd95."),
    ],
)
def test_a_metric_that_cannot_be_compared(
    metric: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_iou = [{**row, "iou": 0.5} for row in FAIR]
    code, said = refusal(tmp_path, capsys, with_iou, BETTER, "--metric", "dice", "--metric", metric)
    assert (code, said) == (2, f"medseg: --metric {metric}: {message}\n")


def test_a_column_that_was_never_filled_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = ([{**row, "hd95": math.nan} for row in rows] for rows in (FAIR, BETTER))
    code, said = refusal(tmp_path, capsys, a, b, "--metric", "hd95")
    assert code == 1
    assert said.startswith(
        "medseg: a.csv: hd95 of case p0, label liver, is empty although its status is ok: it was not"
    )


def test_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("scores_test.csv", "scores_test_2.csv", "scores_val.csv"):
        save(tmp_path / "a" / name, FAIR)
    save(tmp_path / "b" / "scores_val.csv", BETTER)
    _, result = run_json("compare", tmp_path / "a", tmp_path / "b")
    assert result["a"] == {"file": str(tmp_path / "a" / "scores_test_2.csv"), "stage": "test", "unpaired": 0}
    assert result["b"] == {"file": str(tmp_path / "b" / "scores_val.csv"), "stage": "val", "unpaired": 0}
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        f"A  {tmp_path / 'a' / 'scores_test_2.csv'}",
        f"B  {tmp_path / 'b' / 'scores_val.csv'}",
        "Note: A holds scores of test cases, B of validation cases.",
        "Note: scores_test_2.csv of A is the newest of several, beside scores_test.csv; name a file to compare it.",
    ]


def test_a_test_of_validation_cases_is_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, stage in (("a", "test"), ("b", "val"), ("c", "test")):
        save(tmp_path / run / f"scores_{stage}.csv", FAIR)
    (tmp_path / "a" / "summary_test.json").write_text('{"scored": {"side": "val"}}')
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "Note: " not in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "c")]) == 0
    assert "Note: A holds scores of validation cases, B of test cases." in capsys.readouterr().out


def test_runs_of_other_lengths_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, steps in (("a", 190), ("b", 144)):
        save(tmp_path / run / "scores_val.csv", FAIR)
        (tmp_path / run / "complete.json").write_text(json.dumps({"steps": steps}))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "Note: A was trained for 190 steps, B for 144.\n" in capsys.readouterr().out
    (tmp_path / "b" / "complete.json").write_text('{"steps": ')
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "complete.json is not valid JSON" in capsys.readouterr().err


def test_runs_without_a_case_in_common_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [{**row, "case_id": f"other {row['case_id']}"} for row in FAIR]
    code, said = refusal(tmp_path, capsys, FAIR, others)
    assert code == 1
    assert said == (
        "medseg: a.csv and b.csv have no case and label in common. Train both with one split, or score the masks of "
        "both on other cases with medseg evaluate.\n"
    )


def test_labels_of_other_names_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refusal(tmp_path, capsys, FAIR, [{**row, "label": "tumor"} for row in FAIR])
    assert code == 1
    assert said == (
        "medseg: The labels have no name in common: liver in a.csv and tumor in b.csv. Score both with the same "
        "names.\n"
    )


def test_an_experiment_means_its_newest_run_with_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("a/version_2", "a/version_10", "b/version_0"):
        save(tmp_path / run / "scores_test.csv", FAIR)
        (tmp_path / run / "summary_test.json").write_text("{}")
    (tmp_path / "a/version_11/checkpoints").mkdir(parents=True)  # still trains
    save(tmp_path / "a/version_12/scores_test.csv", FAIR)  # was stopped before its summary
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b/version_0")]) == 0
    said = capsys.readouterr()
    assert said.err == f"Using {tmp_path / 'a/version_10'}\n"
    assert said.out.startswith(
        f"A  {tmp_path / 'a/version_10/scores_test.csv'}\nB  {tmp_path / 'b/version_0/scores_test'}"
    )


def test_a_folder_without_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    path = save(tmp_path / "a.csv", FAIR)
    assert main(["compare", path, str(tmp_path / "run")]) == 1
    assert capsys.readouterr() == (
        "",
        f"medseg: Expected scores_test.csv, or one other table of scores, in {tmp_path / 'run'}, found checkpoints/. "
        "Name the file itself, or the folder of a run that was scored.\n",
    )


def test_a_path_to_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "gone"), save(tmp_path / "b.csv", FAIR)]) == 1
    assert capsys.readouterr().err.startswith(f"medseg: There is nothing at {tmp_path / 'gone'}. Name a run folder")


@pytest.mark.parametrize("command", [["compare", "kept", "b.csv"], ["report", "kept"], ["info", "kept"]])
def test_every_command_suggests_a_run_below_runs(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "kept" / "version_0").mkdir(parents=True)
    save(tmp_path / "b.csv", FAIR)
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("medseg: There is nothing at kept. Did you mean runs/kept? Name a ")


def test_what_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("irreplaceable")
    code, said = refusal(tmp_path, capsys, FAIR, BETTER, "--csv", str(tmp_path / "old"))
    assert (code, said) == (
        1,
        "medseg: old exists already and is not overwritten. Choose another name, such as old_2, or move it away.\n",
    )
    assert (tmp_path / "old").read_text() == "irreplaceable"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resamples", "99"], "--resamples: expected a whole number from 100 to 1000000; 99 does not"),
        (["--seed", "-1"], "--seed: expected a whole number from 0 to 4294967295; -1 does not"),
    ],
)
def test_settings_out_of_range_are_wrong_use(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "a", "b", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_seed_and_the_resamples_make_the_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = ([score(f"p{i}", "liver", int(rng.integers(1, 100))) for i in range(20)] for _ in range(2))
    first, again, other, more = (
        compare(tmp_path, a, b, *options)["metrics"]["dice"]["mean"]
        for options in ([], [], ["--seed", "1"], ["--resamples", "20000"])
    )
    assert first == again
    for changed in (other, more):
        assert changed["p"] != first["p"]
        assert changed["interval"] != first["interval"]
        assert changed["difference"] == first["difference"]


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    label = {
        "cases": 1368,
        "groups": 120,
        "mean_a": 0.8123,
        "mean_b": 0.8012,
        "difference": -0.0111,
        "interval": [-0.0182, -0.0043],
        "p": 0.0001,
        "p_holm": 0.0003,
        "wins": 456,
        "ties": 456,
        "losses": 456,
        "cases_needed": 12345,
    }
    compared = {"labels": {"large_bowel": label, "[red]duodenum_and_more": label}, "mean": {**label, "wins": None}}
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(comparison_table(compared, 3, ruled=True))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert re.match(
        r"large_bowe ?l? +0\.812 0\.801 -0\.011 -0\.018 to -0\.004 <0\.001 <0\.001 +456/456/456 +12345", lines[2]
    )
    assert any(line.startswith("[red]duode") for line in lines), "a label is no markup"
    assert lines[-1].startswith("mean ")
    console.print(comparison_table({**compared, "labels": {"large_bowel": label}}, 3, ruled=True))
    assert "mean" not in capsys.readouterr().out, "that of one label is the label's"


def test_a_file_gets_whole_sentences_without_color(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a_label_with_a_name_that_no_terminal_of_eighty_columns_can_hold_beside_numbers"
    compare(tmp_path, *([{**row, "label": long} for row in rows] for rows in (FAIR, BETTER)))
    printed = capsys.readouterr().out
    assert f"\ndice: B is better for {long}.\n" in printed
    table = printed[printed.index("\nlabel ") : printed.index("\ndice: B")].splitlines()
    assert max(len(line) for line in table) <= 80
    assert long in "".join(line.split(" ")[0] for line in table)
    assert "\x1b" not in printed


def test_it_starts_without_torch(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.csv", rows) for name, rows in (("a", FAIR), ("b", BETTER))]
    code = "import sys; from medseg_pl.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "compare", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "dice: B is better for liver." in done.stdout
    assert {"torch", "lightning", "scipy", "pandas"}.isdisjoint(done.stderr.split())


def test_json_stays_alone_where_a_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [save(tmp_path / f"{name}.csv", rows) for name, rows in (("a", FAIR), ("b", BETTER))]
    assert main(["compare", *paths, "--json", "--csv", str(tmp_path / "out.csv")]) == 0
    assert "Wrote" not in capsys.readouterr().out
    assert (tmp_path / "out.csv").is_file()


def test_the_help_names_scores(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "  compare     compare two runs' scores RUN_A RUN_B" in capsys.readouterr().out
