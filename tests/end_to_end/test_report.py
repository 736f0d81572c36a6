"""The report of a run that was really trained: from its files alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.io.case_pictures import picture_path, read_picture
from medseg_pl.io.scores import pictures_in, read_rows
from medseg_pl.metrics.functional.overlap import count, dice


def pictures_of(page: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="pictures-\d+">(.*?)</script>', page.read_text(), re.DOTALL)
    return [json.loads(text) for text in found]


@pytest.fixture
def alone(run_folder: Path, tmp_path: Path) -> Path:
    """A run folder that neither data nor weights lie beside."""
    run = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))
    assert run.is_dir()
    return run


def test_the_pictures_are_of_the_masks_that_were_scored(phantoms: dict[str, Path], run_folder: Path) -> None:
    source = UWMadisonSource(str(phantoms["uw_madison"]))
    labels = LabelMap(["large_bowel", "small_bowel", "stomach"], "multilabel")
    for row in read_rows(run_folder / "scores_val.csv"):
        picture = read_picture(picture_path(pictures_in(run_folder / "predictions" / "val"), str(row["case_id"])))
        case = next(case for case in source.cases() if case.case_id == row["case_id"])
        assert np.array_equal(picture.reference, source.read(case, labels).mask)
        index = labels.names.index(str(row["label"]))
        assert dice(count(picture.prediction[index] > 0, picture.reference[index] > 0)) == row["dice"]


def test_a_run_folder_alone_makes_the_page(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(alone), "-o", str(page)]) == 0
    cases = json.loads((alone / "splits.json").read_text())["val"]
    assert f"Pictures: {len(cases)} of {len(cases)} case" in capsys.readouterr().out
    shown = pictures_of(page)
    assert {(picture["width"], picture["height"], picture["depth"]) for picture in shown} == {(40, 36, 6)}
    assert len(shown) == len(cases) == page.read_text().count('class="card"')
    assert str(tmp_path) not in page.read_text() and not any(case in page.read_text() for case in cases)


def test_no_pixels_are_on_a_page_that_asks_for_none(alone: Path, tmp_path: Path) -> None:
    assert main(["report", str(alone), "-o", str(tmp_path / "page.html"), "--pictures", "0"]) == 0
    text = (tmp_path / "page.html").read_text()
    assert not pictures_of(tmp_path / "page.html") and "data:image/webp;base64,UklG" not in text


def test_a_run_without_masks_and_a_damaged_picture_are_told(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = list(pictures_in(alone / "predictions" / "val").iterdir())
    for picture in pictures:
        picture.write_text("{}")
    assert main(["report", str(alone), "-o", str(tmp_path / "damaged.html")]) == 0
    assert "is no picture of a case" in capsys.readouterr().out
    shutil.rmtree(alone / "predictions")
    assert main(["report", str(alone), "-o", str(tmp_path / "none.html")]) == 0
    said = capsys.readouterr().out
    assert "keeps no pictures of the scored cases. Run medseg validate again" in said
    assert f"Pictures: 0 of {len(pictures)} case" in said


def test_a_report_needs_neither_torch_nor_lightning(alone: Path, tmp_path: Path) -> None:
    command = ["report", str(alone), "-o", str(tmp_path / "page.html")]
    heavy = ("torch", "lightning", "segmentation_models_pytorch", "albumentations", "scipy")
    program = f"import sys; from medseg_pl.__main__ import main; assert main({command}) == 0; " + (
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
