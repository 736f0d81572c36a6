"""`medseg evaluate`: any masks in, the table of `medseg test` out."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.cli import mask_pairs
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Prediction
from medseg_pl.data.sources import FolderSource
from medseg_pl.metrics import MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

SHAPE = (9, 12)
BAR = blocks(SHAPE, 1)  # rows 1 and 2
LOWER = np.roll(BAR, 1, axis=0)  # rows 2 and 3: half of each bar is in both
OVERLAPPING = LabelMap(["stomach", "bowel"], "multilabel")

Evaluate = Callable[..., tuple[list[dict[str, str]], dict[str, Any]]]
Refused = Callable[..., str]


def command(root: Path, *options: object, output: str = "out") -> list[str]:
    folders = ["--reference", root / "reference", "--prediction", root / "prediction", "-o", root / output]
    return ["evaluate", *map(str, folders), *map(str, options)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(root: Path, name: str, reference: np.ndarray | None, prediction: np.ndarray | None, other: str = "") -> None:
    """Both masks of a case, the prediction under another name if you like."""
    for side, mask, file in (("reference", reference, name), ("prediction", prediction, other or name)):
        if mask is not None:
            (save_volume if ".nii" in file else save_raster)(root / side / file, mask)


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Run the command, and give its table and its summary."""

    def run(*options: object, output: str = "out") -> tuple[list[dict[str, str]], dict[str, Any]]:
        assert main(command(tmp_path, *options, output=output)) == 0
        assert sorted(tree(tmp_path / output)) == ["scores_evaluate.csv", "summary_evaluate.json"]
        summary = json.loads((tmp_path / output / "summary_evaluate.json").read_text())
        return rows_of(tmp_path / output / "scores_evaluate.csv"), summary

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail and leave nothing, and give its paragraph."""

    def run(*options: object, code: int = 1) -> str:
        before = tree(tmp_path)
        assert main(command(tmp_path, *options)) == code
        assert tree(tmp_path) == before
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err.strip()
        assert error.startswith("medseg: ")
        assert "\n" not in error
        return error.removeprefix("medseg: ")

    return run


def columns(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_it_tells_what_the_prediction_marked(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    rows = ["input,case_id,status,reason", "x/a.png,a,marked,F105 Inverted.", "x/b.png,b,written,"]
    (tmp_path / "prediction" / "predictions.csv").write_text("\n".join(rows) + "\n")
    _, summary = evaluate("--labels", "lesion")
    assert summary["n_marked"] == 1
    assert "scored as the others: 1. x/a.png: F105 Inverted." in capsys.readouterr().out


@pytest.mark.parametrize(("trained", "told"), [("yes", True), ("", False)])
def test_it_tells_of_training_cases_among_the_predicted(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str], trained: str, told: bool
) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    rows = ["input,case_id,status,reason,trained", f"x/a.png,a,written,,{trained}", "x/b.png,b,written,,"]
    (tmp_path / "prediction" / "predictions.csv").write_text("\n".join(rows) + "\n")
    _, summary = evaluate("--labels", "lesion")
    assert summary["n_trained"] == int(told)
    said = "Scores are too good: 1 mask is of a case with the name of a training case.\n"
    assert (said in capsys.readouterr().out) == told


def test_scores_as_counted_on_paper(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    save(tmp_path, "b.png", BAR, BAR)
    (a, b), summary = evaluate("--labels", "lesion")
    assert (a["case_id"], a["group"], a["label"], a["status"], a["unit"]) == ("a", "a", "lesion", "ok", "px")
    assert (a["tp"], a["fp"], a["fn"], a["dice"], float(a["iou"])) == ("12", "12", "12", "0.5", pytest.approx(1 / 3))
    assert (a["hd"], a["hd95"], a["assd"], a["nsd"]) == ("1.0", "1.0", "0.5", "1.0")
    assert (b["dice"], b["hd95"], b["volume_reference_ml"]) == ("1.0", "0.0", "")
    assert summary["foreground_mean"]["dice"] == 0.75
    assert (summary["n_cases"], summary["n_groups"], summary["nsd_tolerance"]) == (2, 2, {"lesion": 1.0})
    assert (summary["n_unmatched_predictions"], summary["n_missing_as_empty"]) == (0, 0)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == (
        "Every case is taken for a patient of its own, so intervals assume that no patient has two cases; --group or "
        "--cases name the patients."
    )
    assert "evaluate: 2 cases" in printed.out
    assert f"Scores of every case: {tmp_path / 'out' / 'scores_evaluate.csv'}\n" in printed.out
    assert printed.err == ""  # no bar where there is no terminal


def test_a_pattern_of_too_few_patients_is_noted(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (f"p{patient}_{side}" for patient in range(10) for side in "ab"):
        save(tmp_path, f"{name}.png", BAR, LOWER)
    evaluate("--labels=lesion", "--group=_([ab])")
    note = r"--group '_([ab])' finds 2 patients in 20 cases; perhaps --group '(p\d+)_' is meant, which finds 10."
    assert capsys.readouterr().out.splitlines()[0] == note


def test_formats_mix_and_suffixes_differ(tmp_path: Path, evaluate: Evaluate) -> None:
    volume = np.repeat(BAR.T[..., None], 3, axis=2)
    save(tmp_path, "a.tif", BAR, LOWER, other="a.png")
    save(tmp_path, "b.png", BAR, LOWER, other="b.bmp")
    save(tmp_path, "c.nii", volume, np.roll(volume, 1, axis=1), other="c.nii.gz")
    save(tmp_path, "site1/p.v2.TIFF", BAR, LOWER, other="site1/p.v2.tif")
    rows, summary = evaluate("--labels=lesion")
    assert columns(rows, "case_id", "dice", "unit") == [
        ("a", "0.5", "px"),
        ("b", "0.5", "px"),
        ("c", "0.5", "mm"),
        ("site1/p.v2", "0.5", "px"),
    ]
    assert [float(row["hd"]) for row in rows] == pytest.approx([1, 1, 1, 1])
    assert float(rows[2]["volume_reference_ml"]) == pytest.approx(0.072)  # 3 slices of 24 voxels of a cubic millimeter
    assert summary["units"] == ["mm", "px"]
    assert "hd95" not in summary["foreground_mean"]  # millimeters and pixels have no mean


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, evaluate: Evaluate, workers: int) -> None:
    rng = np.random.default_rng(3)
    for number in range(7):
        masks = rng.integers(0, 4, (2, 6 + number, 7, 5)).astype(np.uint8)
        save(tmp_path, f"case{6 - number}.nii.gz", *masks)
    for run in ([], ["--labels=a,b,c", "--group=case([0-3])?"]):
        options = [*run, "--tolerance=0.5"]
        evaluate(*options, "--num_workers=1", output=f"alone{len(run)}")
        evaluate(*options, f"--num_workers={workers}", output=f"several{len(run)}")
        assert tree(tmp_path / f"alone{len(run)}") == tree(tmp_path / f"several{len(run)}")


def test_one_label_may_be_1_on_one_side_and_255_on_the_other(tmp_path: Path, evaluate: Evaluate) -> None:
    save(tmp_path, "a.png", BAR * 255, LOWER)
    save(tmp_path, "b.png", BAR, LOWER * 255)
    save(tmp_path, "c.tif", BAR > 0, LOWER, other="c.png")  # 1-bit
    rows, _ = evaluate("--labels=lesion")
    assert columns(rows, "label", "dice") == [("lesion", "0.5")] * 3


def test_named_labels_with_their_values(tmp_path: Path, evaluate: Evaluate) -> None:
    save(tmp_path, "a.png", blocks(SHAPE, 4, 1), blocks(SHAPE, 4, 0, 1))
    rows, summary = evaluate("--labels", "1=liver, 4=tumour", "--tolerance", "liver=2,tumour=0")
    assert columns(rows, "label", "dice", "nsd", "status") == [
        ("liver", "0.0", "1.0", "ok"),  # two rows apart, all border voxels are within 2
        ("tumour", "1.0", "1.0", "ok"),
    ]
    assert summary["nsd_tolerance"] == {"liver": 2.0, "tumour": 0.0}


def test_voxels_that_nobody_annotated_do_not_count(tmp_path: Path, evaluate: Evaluate) -> None:
    reference = BAR.copy()
    reference[3:] = 255
    save(tmp_path, "a.png", reference, LOWER)
    rows, _ = evaluate("--labels=liver,spleen", "--ignore_value=255")
    assert columns(rows, "tp", "fp", "fn", "status") == [("12", "0", "12", "ok"), ("0", "0", "0", "undefined")]
    rows, _ = evaluate("--ignore_value=255", output="found")
    assert columns(rows, "label", "tp", "fp", "fn") == [("1", "12", "0", "12")]


def test_labels_found_in_the_files(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "a.png", blocks(SHAPE, 1, 2), blocks(SHAPE, 1, 0))
    save(tmp_path, "b.png", blocks(SHAPE, 0, 0), blocks(SHAPE, 0, 0))
    save(tmp_path, "c.png", blocks(SHAPE, 1, 0), blocks(SHAPE, 1, 7))
    save(tmp_path, "d.png", blocks(SHAPE, 0, 0), blocks(SHAPE, 1, 0))
    rows, summary = evaluate()
    assert (
        "Labels, by the values in the files: 1, 2 (in no prediction), 7 (in no reference).\n" in capsys.readouterr().out
    )
    assert columns(rows, "case_id", "label", "status") == [
        *(("a", "1", "ok"), ("a", "2", "missed"), ("a", "7", "undefined")),
        *(("b", "1", "undefined"), ("b", "2", "undefined"), ("b", "7", "undefined")),
        *(("c", "1", "ok"), ("c", "2", "undefined"), ("c", "7", "false_alarm")),
        *(("d", "1", "false_alarm"), ("d", "2", "undefined"), ("d", "7", "undefined")),
    ]
    assert summary["labels"]["1"]["dice"]["mean"] == pytest.approx(2 / 3)  # 1, 1, 0; b is left out
    assert summary["labels"]["1"]["counts"] == {"n_undefined": 1, "n_missed": 0, "n_false_alarm": 1}
    assert [rows[1][name] for name in ("dice", "hd", "nsd")] == ["0.0", repr(math.hypot(*SHAPE)), "0.0"]


@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
@pytest.mark.parametrize("values", [None, (4, 9)])
def test_overlapping_labels_as_predict_writes_them(
    tmp_path: Path, evaluate: Evaluate, suffix: str, values: tuple[int, int] | None
) -> None:
    labels = LabelMap(OVERLAPPING.names, "multilabel", values=values)
    rng = np.random.default_rng(1)
    ledger = MetricTable([OverlapMetric(labels), SurfaceMetric(labels), VolumeMetric(labels)])
    for name in ("p1", "day2/p1"):
        image = tmp_path / "images" / f"{name}{suffix}"
        save_raster(image, noise((9, 12))) if suffix == ".png" else save_volume(image, noise((12, 9, 1)))
        masks = rng.integers(0, 2, (2, 2, 1, 9, 12)).astype(np.uint8)
        source = FolderSource(str(tmp_path / "images"), images=".", masks=None)
        for side, mask in zip(("reference", "prediction"), masks, strict=True):
            source.write(tmp_path / side, Case(name, name, (image,)), mask, labels)
        geometry = source.read(Case(name, name, (image,)), labels).geometry
        ledger.add(Prediction(name, name, geometry, mask=masks[1], reference=masks[0]))
    named = "stomach,bowel" if values is None else "4=stomach,9=bowel"
    rows, _ = evaluate("--labels", named, "--task=multilabel")
    expected = [(s.case_id, s.label, *(repr(s.values[key]) for key in ("tp", "dice", "hd95"))) for s in ledger.table()]
    assert columns(rows, "case_id", "label", "tp", "dice", "hd95") == expected
    assert len(expected) == 4


def test_patients_by_a_pattern(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p1_a", "p1_b", "p2_a"):
        save(tmp_path, f"{name}.png", BAR, LOWER)
    rows, summary = evaluate("--labels=lesion", "--group", "^(p[0-9]+)_")
    assert columns(rows, "case_id", "group") == [("p1_a", "p1"), ("p1_b", "p1"), ("p2_a", "p2")]
    assert (summary["n_cases"], summary["n_groups"]) == (3, 2)
    assert "of its own" not in capsys.readouterr().out


def table_of_cases(root: Path, *lines: str) -> Path:
    (root / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "cases.csv"


def test_patients_and_strata_by_a_table(tmp_path: Path, evaluate: Evaluate) -> None:
    save(tmp_path, "a.png", BAR, BAR)
    save(tmp_path, "sub/b.png", BAR, LOWER)
    save(tmp_path, "c.png", BAR, LOWER)
    rows = ["case_id,group,image,site,vendor", "a,p1,a.jpg,north,X", "sub/b,p1,,south,", "c,p2,,,X", "elsewhere,p9,,,"]
    cases = table_of_cases(tmp_path, *rows)
    found, summary = evaluate("--labels=lesion", "--cases", cases)
    assert columns(found, "case_id", "group", "site") == [
        ("a", "p1", "north"),
        ("c", "p2", ""),
        ("sub/b", "p1", "south"),
    ]
    assert "vendor" not in found[0]
    strata = summary["strata"]["site"]
    assert {site: part["foreground_mean"]["dice"] for site, part in strata.items()} == {"north": 1.0, "south": 0.5}
    found, summary = evaluate("--labels=lesion", "--cases", cases, "--strata=vendor", output="vendors")
    assert columns(found, "vendor") == [("X",), ("X",), ("",)]
    assert list(summary["strata"]) == ["vendor"]
    assert summary["strata"]["vendor"]["X"]["n_cases"] == 2


def test_spacing_of_raster_files(tmp_path: Path, evaluate: Evaluate) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    (flat,), _ = evaluate("--labels=lesion", "--spacing=0.5,0.25", "--tolerance=0.25", output="flat")
    assert columns([flat], "hd", "assd", "nsd", "unit") == [("0.5", "0.25", "0.5", "mm")]
    assert columns([flat], "volume_reference_ml", "volume_prediction_ml", "volume_difference_ml") == [("", "", "")]
    (thick,), _ = evaluate("--labels=lesion", "--spacing=4,0.5,0.25", "--tolerance=0.25", output="thick")
    assert {name: value for name, value in thick.items() if "volume" not in name} == {
        name: value for name, value in flat.items() if "volume" not in name
    }
    assert thick["volume_reference_ml"] == repr(24 * (4 * 0.5 * 0.25 / 1000))


def test_without_distances(tmp_path: Path, evaluate: Evaluate) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    (row,), summary = evaluate("--labels=lesion", "--no_distances")
    assert columns([row], "dice", "hd", "hd95", "assd", "nsd") == [("0.5", "", "", "", "")]
    assert "nsd_tolerance" not in summary
    assert "nsd" not in summary["foreground_mean"]


def test_predictions_without_a_reference_are_left_out_and_counted(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    for name in "bcdef":
        save(tmp_path, f"{name}.png", None, BAR)
    rows, summary = evaluate("--labels=lesion")
    assert columns(rows, "case_id") == [("a",)]
    assert summary["n_unmatched_predictions"] == 5
    assert "Predictions without a reference, left out: 5 (b, c, d and 2 more).\n" in capsys.readouterr().out


def test_a_reference_without_a_prediction(
    tmp_path: Path, evaluate: Evaluate, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    save(tmp_path, "b.png", BAR, None)
    save(tmp_path, "c.png", BAR * 0, None)
    assert refused("--labels=lesion") == (
        f"2 of 3 references have no prediction in {tmp_path / 'prediction'}: b, c. Add them, or set "
        "--missing_as_empty, which scores them as missed. To score the others alone, copy their references to a folder "
        "of their own."
    )
    rows, summary = evaluate("--missing_as_empty")
    assert columns(rows, "label", "dice", "status") == [
        ("1", "0.5", "ok"),
        ("1", "0.0", "missed"),
        ("1", "", "undefined"),
    ]
    assert summary["n_missing_as_empty"] == 2
    assert "References without a prediction, scored as missed: 2 (b, c).\n" in capsys.readouterr().out


def test_one_label_of_a_prediction_may_be_missing(tmp_path: Path, evaluate: Evaluate, refused: Refused) -> None:
    for name in ("p1.png", "p2.png"):
        save(tmp_path, f"stomach/{name}", BAR, BAR)
    save(tmp_path, "bowel/p1.png", LOWER, LOWER)
    save(tmp_path, "bowel/p2.png", LOWER, None)
    options = ["--labels=stomach,bowel", "--task=multilabel"]
    assert "1 of 2 references has no prediction in" in refused(*options)
    rows, summary = evaluate(*options, "--missing_as_empty")
    assert columns(rows, "case_id", "label", "dice", "status") == [
        ("p1", "stomach", "1.0", "ok"),
        ("p1", "bowel", "1.0", "ok"),
        ("p2", "stomach", "1.0", "ok"),
        ("p2", "bowel", "0.0", "missed"),
    ]
    assert summary["n_missing_as_empty"] == 1


def test_one_folder_for_both_sides_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "a.png", BAR, None)
    folder = str(tmp_path / "reference")
    assert main(["evaluate", "--reference", folder, "--prediction", f"{folder}/", "-o", str(tmp_path / "out")]) == 0
    assert rows_of(tmp_path / "out" / "scores_evaluate.csv")[0]["dice"] == "1.0"
    printed = capsys.readouterr().out
    assert "--reference and --prediction are one folder, so every prediction is perfect.\n" in printed


def test_nothing_that_is_there_is_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert main(command(tmp_path)) == 1  # before the folders, which are not there
    assert "is not empty; nothing was written" in capsys.readouterr().err
    assert tree(tmp_path) == {"out/mine.txt": b"keep"}


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        save(tmp_path, f"{name}.png", BAR, LOWER)
    read: list[str] = []

    def interrupted(pair: Any, *arguments: Any) -> Prediction:
        read.append(pair.case_id)
        if pair.case_id == "b":
            os.kill(os.getpid(), signal.SIGINT)
        return whole(pair, *arguments)

    whole = mask_pairs.read_pair
    monkeypatch.setattr(mask_pairs, "read_pair", interrupted)
    assert main(command(tmp_path, "--labels=lesion", "--num_workers=1")) == 130
    assert "nothing is half written" in capsys.readouterr().err
    assert read[:2] == ["a", "b"]
    assert not (tmp_path / "out").exists()


def test_every_bad_case_is_told_at_once(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        save(tmp_path, f"bad{number}.png", BAR, BAR[:, : number + 1])
    save(tmp_path, "good.png", BAR, LOWER)
    (tmp_path / "reference" / "bad1.png").write_bytes(b"no image")
    save(tmp_path, "bad2.png", BAR * 9, BAR)
    error = refused("--labels=lesion", "--num_workers=2")
    reference, prediction = tmp_path / "reference", tmp_path / "prediction"
    assert error.startswith(
        f"7 of 8 cases cannot be scored, and nothing was written. Case bad0: {prediction / 'bad0.png'} is 1 x 9 x 1 "
        f"(depth, height, width), but the reference {reference / 'bad0.png'} is 1 x 9 x 12 (depth, height, width). "
        "They must share one grid: write the prediction on the grid of its reference, or remove the case. "
        f"{reference / 'bad1.png'} (8 bytes) cannot be decoded as an image: "
    )
    assert f" {reference / 'bad2.png'} holds the value 9, which no label claims" in error
    assert "Case bad4: " in error
    assert " file values as in --labels 9=lesion, or set --ignore_value. " in error
    assert error.endswith(" And 2 more.")


def test_a_damaged_file_is_told_while_labels_are_looked_for(tmp_path: Path, refused: Refused) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    save(tmp_path, "b.png", BAR, LOWER)
    (tmp_path / "prediction" / "b.png").write_bytes(b"")
    error = refused()
    assert error.startswith("1 of 2 cases cannot be scored, and nothing was written. ")
    assert f"{tmp_path / 'prediction' / 'b.png'} (0 bytes) cannot be decoded" in error


def test_a_prediction_that_lies_elsewhere_is_refused(tmp_path: Path, refused: Refused) -> None:
    moved = np.eye(4)
    moved[0, 3] = 2
    reference = save_volume(tmp_path / "reference" / "a.nii.gz", blocks((6, 7, 5), 1))
    prediction = save_volume(tmp_path / "prediction" / "a.nii.gz", blocks((6, 7, 5), 1), moved=moved)
    assert refused("--labels=lesion") == (
        f"1 of 1 case cannot be scored, and nothing was written. Case a: {prediction} lies elsewhere in space "
        f"(flipped, shifted, or of another spacing): a corner is 2.0 voxels from where the reference {reference} has "
        "it. Write the prediction on the grid of its reference, or correct the affine."
    )


def test_nothing_paired_shows_a_name_of_each_side(tmp_path: Path, refused: Refused) -> None:
    save(tmp_path, "liver/p1.png", BAR, LOWER, other="p1_pred.png")
    for options in ([], ["--missing_as_empty"]):
        assert refused(*options) == (
            f"No reference in {tmp_path / 'reference'} has a prediction of its name in {tmp_path / 'prediction'}: "
            "one is 'liver/p1', the other 'p1_pred'. Rename the files of one side, or name the folder above or below."
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--strata=site"],
            "--strata names columns of the table that --cases gives. Give it too, or leave --strata out.",
        ),
        (
            ["--tolerance=2", "--no_distances"],
            "--tolerance sets NSD's tolerance, but --no_distances skips NSD. Give one of",
        ),
        (["--task=multilabel"], "--task multilabel needs --labels: the sub-folders that hold the masks are named like"),
        (["--labels=a,b", "--task=binary"], "A binary task has one label; got 2: a, b."),
        (
            ["--labels=a", "--ignore_value=255"],
            "--ignore_value 255 is the value of the background or of a label too",
        ),
        (
            ["--labels=a,b", "--tolerance=a=2"],
            "The tolerance of NSD names a; expected one number, or one for each of the",
        ),
        (["--labels=a", "--tolerance=a=2,a=3"], "argument --tolerance: expected one number, or liver=2,tumour=1"),
        (["--labels=a", "--tolerance=-1"], "The tolerance of NSD must be"),
        (["--labels=a", "--tolerance=nan"], "The tolerance of NSD must be"),
    ],
)
def test_options_that_cannot_work_together(tmp_path: Path, refused: Refused, options: list[str], message: str) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    assert refused(*options, code=2).startswith(message)


def test_a_spacing_for_files_that_know_theirs_is_refused(tmp_path: Path, refused: Refused) -> None:
    save(tmp_path, "a.png", BAR, LOWER)
    save(tmp_path, "b.nii.gz", blocks((6, 7, 5), 1), blocks((6, 7, 5), 1))
    assert refused("--labels=lesion", "--spacing=1,1", code=2) == (
        "--spacing is for files that do not know their own, but 1 reference does: "
        f"{tmp_path / 'reference' / 'b.nii.gz'}. Leave it out, or score the raster files apart."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels=1=a,b"], "expected different names as in liver,tumour, or each with its value as in 1=liver,4=tum"),
        (["--labels=a,a"], "or each with its value as in 1=liver,4=tumour, got 'a,a'"),
        (["--labels=x=liver"], "got 'x=liver'"),
        (["--labels=a,"], "got 'a,'"),
        (["--task=regression"], "invalid choice: 'regression'"),
        (
            [
                "--group=(",
            ],
            "argument --group: '(' is not a regular expression: ",
        ),
        (["--group=p"], "argument --group: p has no parentheses around the patient. Write '(p)'"),
        (["--group=(p)", "--cases=x.csv"], "argument --cases: not allowed with argument --group"),
        (["--cases=x.csv", "--strata=site,"], "expected names such as site,scanner, got 'site,'"),
        (["--tolerance=wide"], "expected one number, or liver=2,tumour=1, got 'wide'"),
        (["--tolerance=a=1,2"], "got 'a=1,2'"),
        (["--spacing=1"], "expected y,x or z,y,x in mm, such as 0.5,0.5, got '1'"),
        (["--spacing=0,1"], "got '0,1'"),
        (["--spacing=a,b"], "got 'a,b'"),
        (["--num_workers=0"], "--num_workers: expected a whole number from 1 to 1024; 0 does not conform"),
        (["--num_workers=many"], "'many'"),
    ],
)
def test_options_that_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(command(tmp_path, *options)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_value_below_zero_can_be_a_label(tmp_path: Path, evaluate: Evaluate) -> None:
    volume = blocks((6, 7, 5), 1).astype(np.int16)
    save(tmp_path, "a.nii", -volume, -volume)
    rows, _ = evaluate("--labels=-1=lesion")
    assert columns(rows, "label", "dice") == [("lesion", "1.0")]


def test_help_waits_for_no_torch() -> None:
    code = "import sys; from medseg_pl.__main__ import main\ntry: main(['evaluate', '--help'])\n"
    code += "finally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--missing_as_empty" in done.stdout
    assert {"torch", "lightning", "numpy"}.isdisjoint(done.stderr.split())


def test_a_label_that_was_not_looked_for_has_no_score(tmp_path: Path, evaluate: Evaluate, refused: Refused) -> None:
    save(tmp_path, "a.png", (BAR + 2 * (LOWER > BAR)).astype(np.uint8), LOWER)
    save(tmp_path, "b.png", BAR, BAR)
    table = tmp_path / "cases.csv"
    table.write_text("case_id,group,annotated_labels\na,p1,tumour\nb,p2,\n")
    assert "annotated_labels of a names tumour; the labels are one, two" in refused(
        "--labels=one,two", "--cases", table
    )
    rows, summary = evaluate("--labels", "liver,tumour", "--cases", table)
    assert columns(rows, "case_id", "label", "status", "tp", "dice") == [
        ("a", "liver", "not_annotated", "", ""),
        ("a", "tumour", "missed", "0", "0.0"),
        ("b", "liver", "ok", "24", "1.0"),
        ("b", "tumour", "undefined", "0", ""),
    ]
    assert summary["labels"]["liver"]["dice"]["n"] == 1
    assert summary["labels"]["liver"]["counts"] == {
        **{"n_undefined": 0, "n_missed": 0, "n_false_alarm": 0},
        "n_not_annotated": 1,
    }
    assert summary["pooled"]["liver"]["dice"] == 1.0


def test_a_prediction_is_compared_with_raters_and_these_with_each_other(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"second": (LOWER, BAR), "third": (BAR, BAR)}
    for number, name in enumerate(("a.png", "b.png")):
        save(tmp_path, name, BAR, LOWER)
        for rater, masks in others.items():
            save_raster(tmp_path / rater / name, masks[number])
    folders = [str(tmp_path / rater) for rater in others]
    assert "name of their own each" in refused("--labels=lesion", "--raters", str(tmp_path / "reference"), code=2)
    (tmp_path / "third" / "b.png").unlink()
    assert "1 of 2 cases has no mask in" in refused("--labels=lesion", "--raters", *folders)
    save_raster(tmp_path / "third" / "b.png", BAR)
    assert main(command(tmp_path, "--labels=lesion", "--raters", *folders)) == 0
    dice = json.loads((tmp_path / "out" / "summary_evaluate.json").read_text())["raters"]["lesion"]["dice"]
    assert {pair: fields["mean"] for pair, fields in dice["pairs"].items()} == {
        "prediction – reference": 0.5,
        "prediction – second": 0.75,
        "reference – second": 0.75,
        "prediction – third": 0.5,
        "reference – third": 1.0,
        "second – third": 0.75,
    }
    assert dice["difference"]["mean"] == pytest.approx((2 / 3 + 0.5) / 2 - (2 / 3 + 1) / 2)
    assert "lesion, dice:\n  prediction – reference" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out" / "raters_evaluate.csv")
    assert len(rows) == 12
    assert columns(rows[:1], "first", "second", "case_id", "label", "dice", "hd95") == [
        ("prediction", "reference", "a", "lesion", "0.5", "1.0")
    ]
