"""`medseg check`: what it prints, writes and answers."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg_pl.__main__ import main
from medseg_pl.checks import CODES
from medseg_pl.checks.report import MOST_EXAMPLES
from tests.end_to_end.clean_sets import (
    LABELS,
    NAMED,
    NAMES,
    write_folder,
    write_labels_apart,
    write_manifest,
    write_volumes,
)
from tests.printed_json import run_json
from tests.sample_files import save_raster, tree

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def faulty(folder: Path) -> Path:
    """One error, and one note."""
    (folder / "images" / f"{NAMES[2]}.png").write_bytes(b"")
    (folder / "images" / "notes.txt").touch()
    return folder


def check(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def test_a_clean_set(folder: Path, capsys: Printed) -> None:
    before = tree(folder)
    assert check(folder, *NAMED) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "Note: every image is taken for a patient of its own; where one has several, find patients in names, as with "
        r"--group '(patient\d+)_'.",
        "Images: 48 x 56 pixels, 1 channel, uint8, spacing unknown.",
        "Labels: organ in 10, lesion in 10 of 10 cases.",
        "10 cases, patients unknown: 0 errors, 0 warnings, 0 notes.",
        "Nothing here keeps it from training.",
    ]
    assert output.err == ""
    assert tree(folder) == before


def test_the_table_names_level_code_file_and_remedy(faulty: Path, capsys: Printed) -> None:
    assert check(faulty, *NAMED) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Note: ")) <= 80
    text = " ".join(" ".join(lines).split())
    assert "1 error empty-file: a file of zero bytes The file has no byte. images/p2_a.png" in text
    assert f"→ {CODES['empty-file'].remedy}" in text
    assert lines[-2] == "10 cases, patients unknown: 1 error, 0 warnings, 1 note."
    assert lines[-1] == "Correct the errors before training."
    assert "\x1b" not in "".join(lines)  # plain where nobody can see colors


def test_what_was_read_is_summed_up(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    names = [folder / kind / f"{NAMES[0]}.png" for kind in ("images", "masks")]
    save_raster(names[0], np.full((40, 60, 3), 90, np.uint8))
    save_raster(names[1], np.full((40, 60), 1, np.uint8))
    check(folder, *NAMED)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4] == "Images: 40–48 x 56–60 pixels, 1 or 3 channels, uint8, spacing unknown."
    assert lines[-3] == "Labels: organ in 10, lesion in 9 of 10 cases."
    write_volumes(tmp_path / "volumes")
    check(tmp_path / "volumes")
    text = " ".join(capsys.readouterr().out.split())
    assert "Images: 8 x 48 x 56 voxels (depth, height, width), 1 channel, int16, spacing 3 x 0.8 x 0.8 mm." in text


def test_a_value_that_is_not_the_place_of_its_label_is_named(folder: Path, capsys: Printed) -> None:
    for name in NAMES:
        save_raster(folder / "masks" / f"{name}.png", np.kron([[0, 255]], np.ones((48, 28))).astype(np.uint8))
    assert check(folder, "--labels", "lesion") == 0
    assert "Labels: lesion (value 255) in 10 of 10 cases." in capsys.readouterr().out


def test_masks_that_are_lacking_are_not_counted_as_read(folder: Path, capsys: Printed) -> None:
    (folder / "masks" / f"{NAMES[0]}.png").write_bytes(b"")
    assert check(folder, *NAMED) == 1
    assert "Labels: organ in 9, lesion in 9 of 9 cases with a mask that can be read." in capsys.readouterr().out


def test_many_files_are_counted(folder: Path, capsys: Printed) -> None:
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    assert check(folder, *NAMED) == 1
    text = capsys.readouterr().out
    assert "First: The file has no byte." in text
    assert "images/p0_a.png" in text
    assert "images/p3_a.png" not in text
    assert "and 7 more" in text


def test_patients_are_counted_where_a_pattern_finds_them(folder: Path, capsys: Printed) -> None:
    assert check(folder, *NAMED, "--group", r"(p\d)_") == 0
    text = capsys.readouterr().out
    assert f"10 cases of {len({name[:2] for name in NAMES})} patients: " in text
    assert "--group" not in text


def test_a_pattern_that_finds_one_patient_is_an_error(folder: Path) -> None:
    code, report = run_json("check", folder, *NAMED, "--group", "(p)")
    assert (code, report["codes"]["split-invalid"]) == (1, 1)
    (found,) = [each for each in report["findings"] if each["code"] == "split-invalid"]
    assert "'(p)' finds 1 patient in 10 cases" in found["message"]
    assert "correct --group" in found["message"]


def test_findings_name_the_options_of_the_command(folder: Path, capsys: Printed) -> None:
    code, report = run_json("check", folder, *NAMED, "--group", r"(p[1-9]\d*)_")
    (found,) = [each for each in report["findings"] if each["code"] == "group-unknown"][:1]
    assert code == 1
    assert r"'(p[1-9]\d*)_' finds no patient in" in found["message"]
    assert found["remedy"] == "Correct --group so that it matches every name, or leave it out."
    check(folder, *NAMED, "--group", r"(p[1-9]\d*)_")
    text = " ".join(capsys.readouterr().out.split())
    assert "→ Correct --group so that it matches every name, or leave it out." in text
    assert "data.source" not in text


def test_a_pattern_that_finds_as_many_patients_as_cases_is_noted(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        for kind in ("images", "masks"):
            (folder / kind / f"{name}.png").rename(folder / kind / f"q{number // 2}_{number % 2}.png")
    code, report = run_json("check", folder, *NAMED, "--group", "(.*)")
    assert code == 0
    assert any("'(.*)'" in note and r"--group '(q\d+)_'" in note for note in report["notes"])
    _, report = run_json("check", folder, *NAMED, "--group", r"(q\d+)_")
    assert not any("--group" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("pattern", "truth"),
    [
        (r"(pat\d+)_", "finds no patient in any name"),
        (r"(patient[0-3])_", "finds a patient in 8 of 10 names"),
        (r"(patient[0-4]_[01])", "finds another patient in each of 10 cases"),
    ],
)
def test_a_note_names_the_pattern_that_is_meant(folder: Path, pattern: str, truth: str, capsys: Printed) -> None:
    for number, name in enumerate(NAMES):
        for kind in ("images", "masks"):
            (folder / kind / f"{name}.png").rename(folder / kind / f"patient{number // 2}_{number % 2}.png")
    check(folder, *NAMED, "--group", pattern)
    text = capsys.readouterr().out
    assert rf"Note: --group '{pattern}' {truth}; perhaps --group '(patient\d+)_' is meant, which finds 5." in text
    assert ("10 cases, patients unknown: " in text) == ("in any name" in truth or "names" in truth)


def test_names_at_random_get_no_pattern(folder: Path, capsys: Printed) -> None:
    names = ["2a9c", "2b4e", "2c6f", "2d5b", "3a1d", "3e8c", "4f0a", "5b7a", "61bc", "7c3d"]
    for old, new in zip(NAMES, names, strict=True):
        for kind in ("images", "masks"):
            (folder / kind / f"{old}.png").rename(folder / kind / f"{new}.png")
    check(folder, *NAMED)
    assert "Note: every image is taken for a patient of its own" in (text := capsys.readouterr().out)
    assert "perhaps" not in text


def test_what_is_concluded_is_said(folder: Path, capsys: Printed) -> None:
    assert check(folder) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Note: the masks' values 1, 2 are taken for labels." in text
    assert "Note: every image is taken for a patient of its own" in text


def test_json(faulty: Path) -> None:
    code, report = run_json("check", faulty, *NAMED)
    assert code == 1
    assert report["counts"] == {"error": 1, "warning": 0, "note": 1}
    assert report["codes"] == {"empty-file": 1, "ignored-file": 1}
    assert report["findings"][0] == {
        "code": "empty-file",
        "level": "error",
        "case_id": "p2_a",
        "file": "images/p2_a.png",
        "message": "The file has no byte.",
        "remedy": CODES["empty-file"].remedy,
    }
    assert report["data"] == {
        "source": "FolderSource",
        "cases": 10,
        "patients": None,
        "labels": {"organ": 1, "lesion": 2},
        "cases_with_label": {"organ": 10, "lesion": 10},
        "channels": [1],
        "types": {"uint8": 9},
        "shapes": {name: [1, 48, 56] for name in ("least", "median", "most")},
        "spacings_mm": {},
    }


def test_page(faulty: Path, tmp_path: Path) -> None:
    (faulty / "images" / f"{NAMES[4]}.png").write_bytes(bytes(range(200, 256)))
    (faulty / "masks" / f"{NAMES[5]}.png").write_bytes((faulty / "images" / f"{NAMES[5]}.png").read_bytes())
    assert check(faulty, *NAMED, "--html", tmp_path / "page.html") == 1
    page = (tmp_path / "page.html").read_text()
    worst, good = page.split("7 of 7 cases without a finding")
    assert worst.count("<figure>") == 3
    assert worst.count("data:image/jpeg;base64,/9j/") == 1  # that of the image which can be read
    assert good.count("data:image/jpeg;base64,/9j/") == 7  # of ten cases three have errors
    assert "cannot be read" in page
    assert "images/p2_a.png" in page
    assert CODES["mask-is-picture"].remedy in page
    # Nothing is fetched and nothing runs, and no path of this machine is in it.
    assert not re.search(r"https?://|<script|<link|url\(", page)
    assert str(tmp_path) not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_which_color_and_value_a_label_has(tmp_path: Path) -> None:
    for index in range(3):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8:20] = 255
        save_raster(tmp_path / "set" / "images" / f"{index}.png", mask // 2 + np.uint8(index))
        save_raster(tmp_path / "set" / "masks" / f"{index}.png", mask)
    check(tmp_path / "set", "--labels", "nuclei", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert '<span class="swatch" style="background: rgb(255 176 0)"></span> nuclei</p>' in page
    assert "<dt>labels</dt><dd>nuclei: 255</dd>" in page and "<dt>patients</dt><dd>unknown</dd>" in page
    assert "<dt>spacings mm</dt><dd>unknown</dd>" in page


def test_names_are_no_markup(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    name = "<img src=x onerror=alert(1)>[bold red]x"
    for kind in ("images", "masks"):
        (folder / kind / f"{NAMES[0]}.png").rename(folder / kind / f"{name}.png")
    (folder / "images" / f"{name}.png").write_bytes(b"")
    assert check(folder, *NAMED, "--html", tmp_path / "page.html") == 1
    page = (tmp_path / "page.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "[bold red]" in capsys.readouterr().out


def test_names_are_bytes_of_a_stranger(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    name = os.fsdecode(b"\xff\x1b[2J")
    for kind in ("images", "masks"):
        (folder / kind / f"{NAMES[0]}.png").rename(folder / kind / f"{name}.png")
    (folder / "images" / f"{name}.png").write_bytes(b"")
    assert check(folder, *NAMED, "--html", tmp_path / "page.html") == 1
    assert "images/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2J.png" in (tmp_path / "page.html").read_text()
    assert "\x1b" not in capsys.readouterr().out
    _, report = run_json("check", folder, *NAMED)
    (fault,) = [each for each in report["findings"] if each["level"] == "error"]
    assert fault["code"] == "bad-name"


def test_a_page_without_findings(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    assert check(folder, *NAMED, "--html", tmp_path / "page.html") == 0
    assert capsys.readouterr().out.endswith(f"\nWrote {tmp_path / 'page.html'}\n")
    page = (tmp_path / "page.html").read_text()
    assert f"<h2>{MOST_EXAMPLES} of {len(NAMES)} cases without a finding</h2>" in page
    assert "<p>Nothing.</p>" in page
    assert "The worst cases" not in page
    assert page.count("data:image/jpeg;base64,/9j/") == MOST_EXAMPLES


def test_a_case_with_a_note_is_no_good_example(folder: Path, tmp_path: Path) -> None:
    save_raster(folder / "masks" / f"{NAMES[0]}.png", np.zeros((48, 56), np.uint8))
    assert check(folder, *NAMED, "--html", tmp_path / "page.html") == 0
    _, examples = (tmp_path / "page.html").read_text().split(f"<h2>{MOST_EXAMPLES} of 9 cases without a finding</h2>")
    assert f"<strong>{NAMES[0]}</strong>" not in examples
    assert f"<strong>{NAMES[1]}</strong>" in examples


def test_cases_with_notes_are_shown_where_all_have_one(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        opaque = np.full((48, 56, 4), 255, np.uint8)
        opaque[..., :3] = np.random.default_rng(NAMES.index(name)).integers(0, 255, (48, 56, 3))
        save_raster(folder / "images" / f"{name}.png", opaque)
    assert check(folder, *NAMED, "--html", tmp_path / "page.html") == 0
    assert f"<h2>{MOST_EXAMPLES} of 10 cases with notes alone</h2>" in (tmp_path / "page.html").read_text()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "file").write_text("precious")
    assert check(folder, *NAMED, "--html", tmp_path / "file") == 1
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "There is nothing to check. Give a folder, or a training's configuration with --config."),
        (("{folder}", "--layout", "decathlon", "--images", "x"), "--images does not apply to "),
        (("--config", "c.yaml", "--mask_name", "{{stem}}_seg"), "--config and --mask_name both say how"),
        (("{folder}", "--patch", "0", "5"), "--patch needs a height and a width of at least 1 pixel"),
        (("--config", "{folder}/nowhere.yaml"), "There is no configuration "),
    ],
)
def test_wrong_use(folder: Path, capsys: Printed, options: tuple[str, ...], said: str) -> None:
    assert check(*(option.format(folder=folder) for option in options)) == 2
    assert said in capsys.readouterr().err


def test_a_configuration_of_another_folder_says_that_its_root_is_relative(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path / "c.yaml", folder_source(Path("gone")))
    monkeypatch.chdir(tmp_path)
    assert check("--config", path) == 1
    assert f"found nothing there. The path is relative to the current folder, {tmp_path}:" in capsys.readouterr().err


def test_no_folder(tmp_path: Path, capsys: Printed) -> None:
    assert check(tmp_path / "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err


def test_several_mask_folders(folder: Path, capsys: Printed) -> None:
    (folder / "masks").rename(folder / "first")
    (folder / "second").mkdir()
    for path in (folder / "first").iterdir():
        (folder / "second" / path.name).write_bytes(path.read_bytes())
    assert check(folder, *NAMED) == 2
    assert "Say which with --masks" in capsys.readouterr().err
    assert check(folder, *NAMED, "--masks", "first") == 0


def config(path: Path, source: dict[str, Any], labels: dict[str, Any] | None = None, **more: Any) -> Path:
    labels = labels or {"names": list(LABELS), "task": "multiclass"}
    model = {"labels": labels, "input_size": [32, 32], **more.pop("model", {})}
    path.write_text(yaml.safe_dump({"model": model, "data": {"source": source, **more}}, sort_keys=False))
    return path


def folder_source(root: Path, **settings: Any) -> dict[str, Any]:
    return {"class_path": "medseg_pl.FolderSource", "init_args": {"root": str(root), **settings}}


def codes(*options: object) -> dict[str, int]:
    return dict(run_json("check", *options)[1]["codes"])


def test_a_configuration_names_everything(folder: Path, tmp_path: Path) -> None:
    path = config(tmp_path / "c.yaml", folder_source(folder))
    assert codes("--config", path) == {}
    assert codes("--config", config(path, folder_source(folder), model={"input_size": [96, 96]})) == {
        "smaller-than-patch": 10
    }
    assert codes("--config", config(path, folder_source(folder), model={"input_size": [96, 96], "resize": "fit"})) == {}


def test_a_folder_takes_the_place_of_the_configuration_s(folder: Path, tmp_path: Path) -> None:
    path = config(tmp_path / "c.yaml", folder_source(Path("nowhere")))
    assert codes(folder, "--config", path) == {}
    write_manifest(tmp_path / "listed")
    source = {"class_path": "ManifestSource", "init_args": {"manifest": "elsewhere/manifest.csv"}}
    assert codes(tmp_path / "listed", "--config", config(path, source)) == {}


def test_later_configurations_win(folder: Path, tmp_path: Path) -> None:
    first = config(tmp_path / "a.yaml", folder_source(folder, masks="nowhere"), model={"input_size": [64, 64]})
    second = tmp_path / "b.yaml"
    second.write_text("model: {size: [32, 32]}\ndata: {source: {init_args: {masks: masks}}}\n")
    assert codes("--config", first, "--config", second) == {}


def test_the_split_of_a_configuration(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": list(NAMES[:5]), "val": [*NAMES[5:], "ghost"], "test": []}))
    assert codes("--config", config(path, folder_source(folder), split_file=str(splits))) == {"split-invalid": 1}
    assert codes("--config", config(path, folder_source(folder), folds=11)) == {"split-invalid": 1}
    by_patient = folder_source(folder, group="^p[0-9]_(a)")
    splits.write_text(json.dumps({"train": list(NAMES[:5]), "val": list(NAMES[5:])}))
    assert codes("--config", config(path, by_patient, split_file=str(splits))) == {"patient-on-both-sides": 1}


def test_a_configuration_of_a_stranger_runs_no_code(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "evil_source.py").write_text("raise SystemExit('ran')")
    sys.path.insert(0, str(tmp_path))
    try:
        for name in (
            "evil_source.Source",
            "evil_source.FolderSource",
            "os.system",
            "medseg_pl.training.module.Batch",
        ):
            source = {"class_path": name, "init_args": {"root": str(folder)}}
            assert check("--config", config(tmp_path / "c.yaml", source)) == 2
            assert "expected one of medseg's own sources" in capsys.readouterr().err
    finally:
        sys.path.remove(str(tmp_path))
    assert "evil_source" not in sys.modules
    (tmp_path / "c.yaml").write_text("data: !!python/object/apply:os.system ['true']\n")
    assert check("--config", tmp_path / "c.yaml") == 2
    assert "is not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "holds no settings"),
        ("data: 3", "data in the configuration is 3; expected settings below it"),
        ("data: {source: {class_path: FolderSource, init_args: {roots: x}}}", "does not describe a FolderSource"),
        (
            "{model: {labels: {name: x}}, data: {source: {class_path: FolderSource, init_args: {root: x}}}}",
            "does not describe a LabelMap",
        ),
        ("data: {source: {class_path: FolderSource, init_args: {root: x, group: '('}}}", "is not a regular expression"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, capsys: Printed, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert check("--config", tmp_path / "c.yaml") == 2
    assert said in capsys.readouterr().err


def test_labels_that_are_not_those_of_the_files(tmp_path: Path, capsys: Printed) -> None:
    write_volumes(tmp_path / "data")
    assert check(tmp_path / "data", "--labels", "lesion,organ") == 2
    assert "--labels gives 'lesion' the value 1" in capsys.readouterr().err
    write_labels_apart(tmp_path / "apart")
    settings = yaml.safe_load((tmp_path / "apart" / "config.yaml").read_text())
    settings["model"]["labels"]["names"].reverse()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    assert check("--config", tmp_path / "c.yaml") == 2
    assert "Name the same labels in the same order" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [("mask",), ("mask_a", "mask_b")])
def test_a_table_names_no_label_but_those_of_its_columns(
    columns: tuple[str, ...], tmp_path: Path, capsys: Printed
) -> None:
    rows = [",".join(("case_id", "group", "image", *columns))]
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((2, 64, 64), np.uint8)
        mask[0, 5 + number : 30, 10:40] = 1
        mask[1, 35:50, 5 + number : 30] = 1
        save_raster(tmp_path / "images" / f"p{number}.png", rng.integers(0, 255, (64, 64), np.uint8))
        planes = mask if len(columns) > 1 else [mask[0] + 2 * mask[1]]
        for name, plane in zip(columns, planes, strict=True):
            save_raster(tmp_path / name / f"p{number}.png", plane)
        rows.append(f"p{number},p{number},images/p{number}.png," + ",".join(f"{c}/p{number}.png" for c in columns))
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    code, found = run_json("check", tmp_path)
    assert code == 0
    expected = {"a": 1, "b": 1} if len(columns) > 1 else {"label_1": 1, "label_2": 2}
    assert (found["findings"], found["data"]["labels"]) == ([], expected)
