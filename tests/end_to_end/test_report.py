"""The report of a run that was really trained, with its pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main


def pictures_of(page: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="pictures-\d+">(.*?)</script>', page.read_text(), re.DOTALL)
    return [json.loads(text) for text in found]


def test_the_pictures_are_of_the_masks_that_were_scored(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run_folder), "-o", str(page)]) == 0
    cases = json.loads((run_folder / "splits.json").read_text())["val"]
    assert f"Pictures: {len(cases)} of {len(cases)} cases." in capsys.readouterr().out
    shown = pictures_of(page)
    assert len(shown) == len(cases) and not any(picture.get("differs") for picture in shown)
    assert {(picture["width"], picture["height"], picture["depth"]) for picture in shown} == {(40, 36, 6)}
    text = page.read_text()
    assert "On the dashed line a probability is a frequency" in text and text.count('class="card"') == len(cases)
    assert str(tmp_path.parent) not in text


def test_masks_that_were_not_scored_are_told(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    scores = run / "scores_val.csv"
    header, *lines = scores.read_text().splitlines()
    place = header.split(",").index("dice")
    for number, line in enumerate(lines):
        fields = line.split(",")
        lines[number] = ",".join([*fields[:place], "0.99", *fields[place + 1 :]])
    scores.write_text("\n".join([header, *lines]) + "\n")
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert "the masks are not those that were scored" in capsys.readouterr().out
    assert all(picture["differs"] for picture in pictures_of(tmp_path / "page.html"))


def test_without_the_data_the_page_has_no_pictures_and_says_so(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run_folder), "-o", str(page), "--data", str(tmp_path / "nowhere")]) == 0
    said = capsys.readouterr().out
    assert "Note: Expected" in said and str(tmp_path / "nowhere") in said and "Pictures: 0 of" in said
    assert not pictures_of(page) and str(tmp_path) not in page.read_text()


def test_data_that_has_moved_is_found(phantoms: dict[str, Path], run_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(phantoms["uw_madison"], tmp_path / "moved")
    assert (
        main(["report", str(run_folder), "-o", str(tmp_path / "page.html"), "--data", str(moved), "--pictures", "1"])
        == 0
    )
    assert len(pictures_of(tmp_path / "page.html")) == 1
