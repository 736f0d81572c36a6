"""`medseg report`: the page holds what the run holds, and nothing personal."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.io.case_pictures import draw_case, picture_path, write_picture
from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.io.scores import pictures_in, write_rows
from medseg_pl.metrics.object_summary import summarize_objects
from medseg_pl.metrics.objects import OBJECT_COLUMNS, ObjectTable
from medseg_pl.reporting.html.pictures import describe_left_out
from tests.reporting.run_folders import HOSTILE, score, some_scores, write_run


@pytest.fixture(scope="module")
def page_of_one_label(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of five cases with pictures and one label."""
    folder = tmp_path_factory.mktemp("one_label")
    table = [score(f"case{i}", f"p{i}", "lesion", 0.5 + i / 10) for i in range(5)]
    run = write_run(folder / "run", table, ["lesion"])
    write_pictures(run, [row.case_id for row in table])
    assert report(run, "-o", folder / "page.html", "--names", "true") == 0
    return (folder / "page.html").read_text()


def write_pictures(run: Path, case_ids: Sequence[str]) -> None:
    """Pictures of a square that nobody found."""
    mask = np.zeros((1, 3, 16, 16), np.uint8)
    mask[0, 1, 4:9, 4:9] = 1
    image = np.zeros((1, 3, 16, 16), np.uint8)
    statistics = compute_channel_statistics(image)
    drawn = draw_case(image, statistics, mask, mask * 0, Geometry((3, 16, 16)), telling=1, overlapping=False)
    for case_id in case_ids:
        write_picture(picture_path(pictures_in(run / "predictions" / "test"), case_id), drawn)


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


class Tags(HTMLParser):
    """What elements and attributes a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_an_experiment_means_its_newest_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (2, 10):
        write_run(tmp_path / f"demo/version_{number}", some_scores(4, seed=number))
    assert report(tmp_path / "demo", "--pictures", "0") == 0
    assert capsys.readouterr().err == f"Using {tmp_path / 'demo/version_10'}\n"
    assert [page.parent.name for page in tmp_path.rglob("report*.html")] == ["version_10"]


def test_the_page_knows_every_score_of_every_case(page: Path) -> None:
    data = data_of(page)
    table = some_scores(24, seed=1)
    assert len(data["cases"]) == 24
    for case in data["cases"]:
        rows = {row.label: row for row in table if row.case_id == case["name"]}
        assert case["group"] == rows["stomach"].group
        assert case["scores"][0]["large_bowel"]["dice"] == pytest.approx(rows["large_bowel"].values["dice"], abs=1e-5)
    assert data["cases"][0]["scores"][0]["small_bowel"]["status"] == "entirely missed"  # the worst comes first


def test_the_page_says_what_the_summary_says(page: Path, two_runs: list[Path]) -> None:
    summary = json.loads((two_runs[0] / "summary_test.json").read_text())
    text = page.read_text()
    described = summary["labels"]["stomach"]["dice"]
    low, high = described["ci95"]
    assert f"Dice {summary['foreground_mean']['dice']:.3f}" in text
    assert f"<td>{low:.3f} to {high:.3f}</td>" in text
    assert "yes: no patient on two sides" in text
    covered = "(what files hold, how they are read, on which side they are)"
    assert f"Fingerprint of the data and its split {covered}: <code>4f9c" in text
    assert summary["strata"]["site"]["south"]["n_cases"] == 12 and ">south<" in text


def test_nothing_can_be_asked_of_a_server(page_of_two: Path) -> None:
    tags = Tags(page_of_two.read_text()).found
    for tag, attributes in tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = next(a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"url\(\s*[^#\s]|@import", page_of_two.read_text())


def test_the_policy_allows_the_one_script_that_is_ours(page: Path) -> None:
    text = page.read_text()
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1 and f"script-src 'sha256-{digest}'" in text


def test_cases_and_patients_have_the_hashed_names_of_the_dashboards(page_of_two: Path, two_runs: list[Path]) -> None:
    text, data = page_of_two.read_text(), data_of(page_of_two)
    assert not re.search(r"case\d{3}|patient\d\d", text)
    record = Pseudonyms.read(two_runs[0])
    assert record
    assert {case["name"] for case in data["cases"]} == {record.pseudonym("case", f"case{i:03d}") for i in range(24)}
    assert not (two_runs[1] / "dashboard.json").exists()


def test_no_path_and_no_user_is_on_the_page(page: Path, page_of_two: Path, two_runs: list[Path]) -> None:
    for file in (page, page_of_two):
        text = file.read_text()
        assert "/home/" not in text and "someone" not in text and str(two_runs[0].parent) not in text
        assert "FolderSource" in text and "demo, version_0" in text


def test_a_case_that_calls_itself_markup_is_text(hostile_page: Path) -> None:
    tags = Tags(hostile_page.read_text()).found
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not any(tag == "img" for tag, _ in tags)
    assert data_of(hostile_page)["cases"][0]["name"] == f"{HOSTILE}0"


def test_a_page_that_is_there_stays(tmp_path: Path, two_runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text("mine")
    assert report(two_runs[0], "-o", tmp_path / "page.html") == 1
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text() == "mine"


def test_a_second_report_of_a_run_has_a_name_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, some_scores(3, seed=0))
    (run / "report.html").write_text("mine")
    assert report(run, "--names") == 0
    assert f"Wrote {run / 'report_2.html'}" in capsys.readouterr().out
    assert "case000" in (run / "report_2.html").read_text()
    assert (run / "report.html").read_text() == "mine"


@pytest.mark.parametrize(("side", "header"), [("test", "4 test cases"), ("val", "4 validation cases, scored again")])
def test_the_header_says_whose_cases_were_scored(tmp_path: Path, side: str, header: str) -> None:
    run = write_run(tmp_path, some_scores(4, seed=0))
    summary = json.loads((run / "summary_test.json").read_text())
    (run / "summary_test.json").write_text(json.dumps({**summary, "scored": {"side": side, "split": "fold 0 of 5"}}))
    assert report(run) == 0
    assert f'<p class="quiet">{header} · medseg' in (run / "report.html").read_text()


def test_a_folder_without_scores_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, "-o", tmp_path / "page.html") == 1
    assert "Expected scores_test.csv" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_runs_on_other_cases_stand_side_by_side_without_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (write_run(tmp_path / name, [score(name, "p", "stomach", 0.7)], ["stomach"]) for name in ("a", "b"))
    assert report(one, other, "-o", tmp_path / "page.html") == 0
    assert "Note: A and B are not compared. A and B have no case and label in common" in capsys.readouterr().out
    assert "cannot be compared pair by pair" in (tmp_path / "page.html").read_text()
    assert len(data_of(tmp_path / "page.html")["cases"]) == 2


def test_compared_distances_have_two_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # HD95 is 40 mm times what Dice lacks to 1.
    runs = [
        write_run(tmp_path / name, [score(f"c{i}", f"p{i}", "liver", dice) for i in range(6)], ["liver"])
        for name, dice in (("a", 0.96375), ("b", 0.9615))
    ]
    assert report(*runs, "-o", tmp_path / "page.html") == 0
    assert "<td>1.45</td><td>1.54</td>\n<td>0.09</td>" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["compare", *map(str, runs), "--metric", "hd95"]) == 0
    assert {"1.45", "1.54", "0.09"} <= set(capsys.readouterr().out.split())


def test_distances_in_other_units_are_said_to_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_scores(4, seed=0)
    one, other = (write_run(tmp_path / unit, [replace(row, unit=unit) for row in rows]) for unit in ("mm", "px"))
    assert report(one, other, "-o", tmp_path / "page.html") == 0
    assert "Note: A and B are compared by Dice alone. Case " in capsys.readouterr().out


def test_a_metric_that_was_not_measured_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_scores(4, seed=0)
    unmeasured = [replace(row, values={**row.values, "hd95": math.nan, "nsd": math.nan}) for row in rows]
    one, other = (write_run(tmp_path / name, unmeasured) for name in ("a", "b"))
    assert report(one, other, "-o", tmp_path / "page.html") == 0
    assert "Note: A and B" not in capsys.readouterr().out


def test_no_name_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "scored", some_scores(4, seed=0))
    assert report(run, "-o", tmp_path / "a\x1b[2Jb.html") == 0
    assert "a\N{REPLACEMENT CHARACTER}[2Jb.html, " in capsys.readouterr().out


def test_an_evaluation_without_a_training_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "scored", some_scores(4, seed=0))
    for name in ("splits.json", "environment.json", "config.yaml", "metrics.csv", "complete.json"):
        (run / name).unlink()
    for name in ("scores", "summary"):
        kept = next(run.glob(f"{name}_test.*"))
        kept.rename(run / kept.name.replace("_test", "_evaluate"))
    assert report(run, "-o", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    assert "does not say who was trained on" in text
    assert re.findall(r'<section id="(\w+)">', text) == ["answers", "scores", "cases", "strata", "split"]
    assert re.findall(r'<a href="#([a-z]+)">', text.partition("</nav>")[0]) == [
        *("answers", "scores", "cases", "strata", "split")
    ]
    assert "4 cases, evaluate" in text


def test_missed_and_invented_objects_are_listed_and_pictured(tmp_path: Path) -> None:
    scores = [score(f"case{i}", f"p{i}", "lesion", 0.5) for i in range(3)]
    run = write_run(tmp_path / "run", scores, ["lesion"])
    size = {"diameter": 4.0, "z": 1.2, "y": 3.0, "x": 5.0, "unit": "mm"}
    rows = [
        {"case_id": case, "group": f"p{case[-1]}", "label": "lesion", "mask": mask, "object": 1, "status": status}
        | {"partner": "", "voxels": voxels, "volume_ml": voxels / 1000, **size}
        for case, mask, status, voxels in (
            ("case0", "reference", "missed", 100),
            ("case1", "reference", "matched", 900),
            ("case1", "prediction", "matched", 800),
            ("case2", "prediction", "invented", 300),
        )
    ]
    write_rows(run / "objects_test.csv", rows, columns=OBJECT_COLUMNS)
    summary = json.loads((run / "summary_test.json").read_text())
    summary["objects"] = summarize_objects(ObjectTable(rows), scores, ["lesion"])
    (run / "summary_test.json").write_text(json.dumps(summary))
    assert report(run, "-o", tmp_path / "plain.html", "--names", "true") == 0
    text = (tmp_path / "plain.html").read_text()
    assert "The largest 2 of 1 missed and 1 invented objects" in text
    listed = re.findall(r"<td>lesion</td><td>(\w+)</td><td>([\d.]+ ml)</td><td>4\.0 mm</td><td>1, 3, 5</td>", text)
    assert listed == [("invented", "0.300 ml"), ("missed", "0.100 ml")]
    assert "Share of objects found over their size" in text
    assert "outlines of reference and prediction" not in text
    write_pictures(run, ["case0"])
    assert report(run, "-o", tmp_path / "drawn.html", "--names", "true") == 0
    text = (tmp_path / "drawn.html").read_text()
    assert 'alt="Slice 1 of case0 with the outlines of reference and prediction"' in text
    assert "<span>missed: lesion, 0.100 ml</span>" in text
    assert Tags(text).found


def get_section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}">')[1].split("</section>", maxsplit=1)[0]


def test_few_cases_are_in_the_gallery_once_the_worst_first(page_of_one_label: str) -> None:
    gallery = get_section(page_of_one_label, "gallery")
    assert re.findall(r"<span>(case\d)</span>", gallery) == [f"case{i}" for i in range(5)]
    assert "<h3>" not in gallery


def test_of_many_cases_the_gallery_has_the_worst_and_the_best(tmp_path: Path) -> None:
    table = [score(f"case{i:02d}", f"p{i}", "lesion", 0.5 + i / 100) for i in range(13)]
    run = write_run(tmp_path / "run", table, ["lesion"])
    write_pictures(run, [row.case_id for row in table])
    assert report(run, "-o", tmp_path / "page.html", "--names", "true") == 0
    worst, best = get_section((tmp_path / "page.html").read_text(), "gallery").split("<h3>The best</h3>")
    assert "<h3>The worst</h3>" in worst
    assert re.findall(r"<span>case(\d+)</span>", worst) == [f"{i:02d}" for i in range(6)]
    assert re.findall(r"<span>case(\d+)</span>", best) == [f"{i:02d}" for i in range(12, 6, -1)]


def test_the_gallery_says_which_side_is_which_and_what_colors_mean(
    page_of_one_label: str, page_with_pictures: Path
) -> None:
    gallery = get_section(page_of_one_label, "gallery")
    assert "Left: outlines of the reference. Right: outlines of the prediction." in gallery
    assert '--swatch: rgb(255 176 0)"></span>lesion</span>' in gallery
    gallery = get_section(page_with_pictures.read_text(), "gallery")
    assert "From left to right: outlines of the reference, then of the predictions of A, B." in gallery
    assert re.findall(r"rgb\((.*?)\)\"></span>(\w+)", gallery) == [
        ("255 176 0", "large_bowel"),
        ("100 143 255", "small_bowel"),
        ("220 38 127", "stomach"),
    ]


def test_one_label_has_no_column_and_curve_of_its_mean(page_of_one_label: str, page: Path) -> None:
    headings = r'<th scope="col"><button type="button">(.*?)</button>'
    assert re.findall(headings, page_of_one_label) == ["case", "patient", "Dice", "faults"]
    assert "<tfoot>" not in get_section(page_of_one_label, "scores")
    assert "mean Dice" not in get_section(page_of_one_label, "strata")
    curves = [get_section(text, "training") for text in (page_of_one_label, page.read_text())]
    assert [">mean</text>" in text for text in curves] == [False, True]
    assert ">lesion</text>" in curves[0]


def test_an_unmeasured_calibration_is_one_line_with_its_command(page_of_one_label: str) -> None:
    assert 'id="calibration"' not in page_of_one_label and "#calibration" not in page_of_one_label
    command = "medseg test --ckpt_path runs/one_label0/run --model.metrics+=medseg_pl.CalibrationMetric"
    assert f"<code>{command}</code>" in get_section(page_of_one_label, "scores")


def test_hashed_names_are_announced_above_the_cases(page_of_two: Path, page_of_one_label: str) -> None:
    announced = "names of cases and patients are hashed here: <code>medseg report --names</code>"
    above = get_section(page_of_two.read_text(), "cases").split("<form")[0]
    assert announced in above and announced not in page_of_one_label


def test_folds_share_drawings_of_their_curves(tmp_path: Path) -> None:
    folds = [tmp_path / "cv" / f"fold_{i}" / "version_0" for i in range(2)]
    for index, fold in enumerate(folds):
        write_run(fold, [score(f"case{index}", f"p{index}", "lesion", 0.5)], ["lesion"])
        for path in fold.glob("s*_test.*"):
            path.rename(fold / path.name.replace("_test", "_val"))
    for path in folds[0].glob("s*_val.*"):
        text = path.read_text()
        (tmp_path / "cv" / path.name.replace("_val", "_crossval")).write_text(text)
    summary = json.loads((tmp_path / "cv" / "summary_crossval.json").read_text())
    summary["folds"] = {"runs": ["fold_0/version_0", "fold_1/version_0"]}
    (tmp_path / "cv" / "summary_crossval.json").write_text(json.dumps(summary))
    assert report(tmp_path / "cv", "-o", tmp_path / "page.html") == 0
    training = get_section((tmp_path / "page.html").read_text(), "training")
    assert training.count("<svg") == 2 and training.count(">fold 1</text>") == 2
    assert "<code>medseg report runs/cv/fold_0/version_0</code>" in training


def test_a_section_that_holds_nothing_is_left_out(tmp_path: Path) -> None:
    without = {"volume_reference_ml": math.nan, "volume_prediction_ml": math.nan}
    table = [replace(each, values={**each.values, **without}) for each in some_scores(4, seed=0)]
    run = write_run(tmp_path / "run", table)
    assert report(run, "-o", tmp_path / "sites.html") == 0
    strata = get_section((tmp_path / "sites.html").read_text(), "strata")
    assert "By site" in strata and "By size" not in strata
    summary = json.loads((run / "summary_test.json").read_text())
    (run / "summary_test.json").write_text(json.dumps({**summary, "strata": {}}))
    assert report(run, "-o", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    assert 'id="strata"' not in text and "#strata" not in text


def test_left_out_slices_are_explained() -> None:
    masks = [np.zeros((1, 5, 4, 4), np.uint8), np.zeros((1, 5, 4, 4), np.uint8)]
    masks[0][0, 1:3] = 1
    assert describe_left_out(range(5), masks) == ""
    neither = "3 of 5 slices are on this page: the others hold neither reference nor prediction."
    assert describe_left_out([0, 1, 2], masks) == neither
    masks[1][0, 4] = 1
    spread = "3 of 5 slices are on this page, evenly spread to keep it small: others hold labels too."
    assert describe_left_out([0, 1, 2], masks) == spread


def test_sizes_stand_beside_their_drawing_and_sites_do_not(page_of_one_label: str, page: Path) -> None:
    for text, sizes in ((page_of_one_label, "too few to be told apart by size"), (page.read_text(), "smallest third")):
        sites, by_size = get_section(text, "strata").split("<h4>By size</h4>")
        assert ">south<" in sites and "<svg" not in sites
        assert sizes in by_size and "<svg" in by_size
    beside = get_section(page_of_one_label, "strata").split('<div class="beside">')[1]
    assert "too few" not in beside
