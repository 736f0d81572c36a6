"""Pages that several tests only look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.io.case_pictures import draw_case, picture_path, write_picture
from medseg_pl.io.scores import pictures_in, read_rows, write_reliability
from medseg_pl.metrics.functional.calibration import sum_calibration
from medseg_pl.reporting.html.cases import Names, list_case_entries
from medseg_pl.reporting.run import read_run
from tests.reporting.run_folders import CONFIG, HOSTILE, HOSTILE_LABEL, score, write_run, write_two_runs


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same 24 cases, of which the second is a little better."""
    return write_two_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def page(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the first run, with the names of its cases."""
    file = tmp_path_factory.mktemp("pages") / "one.html"
    assert main(["report", str(two_runs[0]), "-o", str(file), "--names", "true"]) == 0
    return file


@pytest.fixture(scope="session")
def page_of_two(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both runs, with hashed names."""
    file = tmp_path_factory.mktemp("pages") / "two.html"
    assert main(["report", *map(str, two_runs), "-o", str(file)]) == 0
    return file


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose names would be code, if they were taken for markup."""
    folder = tmp_path_factory.mktemp("hostile")
    table = [score(f"{HOSTILE}{i}", f"{HOSTILE}p{i}", HOSTILE_LABEL, 0.5 + i / 10) for i in range(3)]
    run = write_run(folder / "run", table, [HOSTILE_LABEL], config={**CONFIG, "experiment": HOSTILE})
    assert main(["report", str(run), "-o", str(folder / "page.html"), "--names", "true"]) == 0
    return folder / "page.html"


@pytest.fixture(scope="session")
def page_with_pictures(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both runs, with pictures of all cases but the last.

    Each is a gray ramp of 6 slices; the large bowel is a square of 12 x 12 of which A misses the left half and B
    nothing, and beside which A invents a strip; the stomach is a strip that both find.
    """
    image = np.broadcast_to(np.arange(40, dtype=np.uint16) * 50, (1, 6, 30, 40)) + np.zeros((1, 6, 30, 40), np.uint16)
    reference = np.zeros((3, 6, 30, 40), np.uint8)
    reference[0, 1:5, 8:20, 10:22] = 1
    reference[2, 1:5, 24:28, 4:30] = 1
    prediction = reference.copy()
    prediction[0, :, :, :16] = 0
    prediction[0, 1:5, 8:20, 22:25] = 1
    prediction[0, 3] = 0
    folder = tmp_path_factory.mktemp("pages")
    copies = [shutil.copytree(run, folder / run.parent.name / run.name) for run in two_runs]
    for run, mask in zip(copies, (prediction, reference), strict=True):
        geometry = Geometry((6, 30, 40), None)
        drawn = draw_case(
            image, compute_channel_statistics(image), reference, mask, geometry, telling=3, overlapping=True
        )
        ids = sorted({str(row["case_id"]) for row in read_rows(run / "scores_test.csv")})
        last = list_case_entries([read_run(two_runs[0], None)], Names(None))[-1].case_id
        for case_id in ids:
            if case_id != last:
                write_picture(picture_path(pictures_in(run / "predictions" / "test"), case_id), drawn)
    sums = sum_calibration(np.linspace(0, 1, 100), np.arange(100) > 40, np.ones(100, bool), 10)
    bins = {name: values.tolist() for name, values in sums._asdict().items() if name != "squared_error"}
    write_reliability(copies[0] / "predictions" / "test", {"stomach": bins})
    file = folder / "pictures.html"
    assert main(["report", *map(str, copies), "-o", str(file), "--names", "true"]) == 0
    return file
