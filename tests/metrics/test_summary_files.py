"""The table of scores as files and on the terminal."""

from __future__ import annotations

import csv
import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from medseg_pl.core.errors import OutputExistsError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.io.scores import read_rows
from medseg_pl.metrics import CaseScore, MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric, summarize
from medseg_pl.metrics.summary import make_row, make_summary_tables, print_scores, write_scores
from medseg_pl.reporting import read_run
from medseg_pl.reporting.summary import compute_mean_interval

COLUMNS = [
    *("case_id", "group", "label"),
    *("tp", "fp", "fn"),
    *("dice", "iou", "precision", "recall"),
    *("hd", "hd95", "assd", "nsd"),
    *("volume_reference_ml", "volume_prediction_ml"),
    *("status", "unit"),
]
LABELS = LabelMap(["liver", "tumour"], "multiclass")
SPACING = (2.0, 1.0, 0.5)  # a thousand voxels make a millilitre


def ledger(spacing_mm: tuple[float, float, float] | None = SPACING, labels: LabelMap = LABELS) -> MetricTable:
    """Two cases of two patients; nobody has the second label in the second case."""
    book = MetricTable([OverlapMetric(labels), SurfaceMetric(labels), VolumeMetric(labels)])
    masks = {"a": ([[1, 1, 0, 2], [0, 0, 0, 2]], [[1, 0, 0, 2], [0, 0, 2, 2]]), "b": ([[0, 1]], [[1, 1]])}
    for case, (prediction, reference) in masks.items():
        pair = np.array(prediction), np.array(reference)
        book.add(Prediction.from_masks(case, *pair, group=f"patient-{case}", spacing_mm=spacing_mm))
    return book


def header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


def printed(summary: dict[str, Any], stage: str = "test", width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO())
    for table in make_summary_tables(summary, stage):
        console.print(table)
    return console.export_text()


class TestWriteScores:
    def test_the_columns_are_those_of_every_table_then_optional_ones_then_strata(self, tmp_path: Path) -> None:
        strata = {"a": {"site": "north", "sex": "f"}, "b": {"site": "south"}}
        write_scores(tmp_path, "test", ledger().table(), LABELS.names, strata=strata)
        assert header(tmp_path / "scores_test.csv") == [*COLUMNS, "volume_difference_ml", "site", "sex"]

    def test_metrics_that_were_not_computed_leave_their_columns_empty(self, tmp_path: Path) -> None:
        book = MetricTable([OverlapMetric(LABELS)])
        book.add(Prediction.from_masks("a", np.ones((2, 2)), np.ones((2, 2))))
        write_scores(tmp_path, "val", book.table(), LABELS.names)
        assert header(tmp_path / "scores_val.csv") == COLUMNS
        first = read_rows(tmp_path / "scores_val.csv")[0]
        assert (first["dice"], first["unit"]) == (1.0, "px")
        assert all(math.isnan(float(first[name])) for name in ("hd95", "nsd", "volume_reference_ml"))

    def test_every_value_as_text(self, tmp_path: Path) -> None:
        write_scores(tmp_path, "test", ledger().table(), LABELS.names)
        lines = (tmp_path / "scores_test.csv").read_text().splitlines()[1:]
        # Liver: one voxel of two, or two of one; the other is 0.5 mm away. Tumour: two of three, which lie as close.
        assert [lines[0], lines[2], lines[3]] == [
            "a,patient-a,liver,1,1,0,0.6666666666666666,0.5,0.5,1.0,0.5,0.475,0.16666666666666666,1.0,0.001,0.002,ok,mm,"
            "0.001",
            "b,patient-b,liver,1,0,1,0.6666666666666666,0.5,1.0,0.5,0.5,0.475,0.16666666666666666,1.0,0.002,0.001,ok,mm,"
            "-0.001",
            "b,patient-b,tumour,0,0,0,,,,,,,,,0.0,0.0,undefined,mm,0.0",
        ]
        tumour = read_rows(tmp_path / "scores_test.csv")[1]
        assert [tumour[name] for name in COLUMNS[3:-2]] == pytest.approx(
            [2, 0, 1, 0.8, 2 / 3, 1.0, 2 / 3, 0.5, 0.45, 0.1, 1.0, 0.003, 0.002], rel=1e-12
        )

    def test_what_is_written_is_read_back_to_the_last_digit(self, tmp_path: Path) -> None:
        table = ledger().table()
        write_scores(tmp_path, "test", table, LABELS.names)
        for found, score in zip(read_rows(tmp_path / "scores_test.csv"), table, strict=True):
            assert {name: repr(found[name]) for name in score.values} == {
                name: repr(float(value)) for name, value in score.values.items()
            }

    def test_the_summary_lies_beside_it_with_what_else_is_known(self, tmp_path: Path) -> None:
        strata = {"a": {"site": "north"}, "b": {"site": "south"}}
        table = ledger().table()
        write_scores(tmp_path, "test", table, LABELS.names, strata=strata, facts={"tolerance": 2.0})
        found = json.loads((tmp_path / "summary_test.json").read_text())
        expected = {**summarize(table, LABELS.names, strata=strata), "tolerance": 2.0}
        assert found == json.loads(json.dumps(expected))
        assert list(found["strata"]["site"]) == ["north", "south"]

    @pytest.mark.parametrize("taken", ["scores_test.csv", "summary_test.json"])
    def test_files_that_are_there_are_left_and_both_get_the_next_number(self, taken: str, tmp_path: Path) -> None:
        (tmp_path / taken).write_text("mine")
        for _ in range(2):
            write_scores(tmp_path, "test", ledger().table(), LABELS.names)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [taken, "scores_test_2.csv", "scores_test_3.csv", "summary_test_2.json", "summary_test_3.json"]
        )
        assert (tmp_path / taken).read_text() == "mine"
        assert (tmp_path / "scores_test_2.csv").read_bytes() == (tmp_path / "scores_test_3.csv").read_bytes()

    def test_stages_do_not_share_numbers(self, tmp_path: Path) -> None:
        for stage in ("val", "test", "evaluate"):
            write_scores(tmp_path, stage, ledger().table(), LABELS.names)
        assert not list(tmp_path.glob("*_2*"))

    def test_means_and_the_place_of_the_file_are_printed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "[bold]run [1]"  # which a terminal's markup would swallow
        folder.mkdir()
        print_scores(*write_scores(folder, "test", ledger().table(), LABELS.names), "test")
        said = capsys.readouterr().out
        assert "test: 2 cases of 2 patients" in said
        assert "distances in mm" in said
        assert said.endswith(f"Scores of every case: {folder / 'scores_test.csv'}\n")

    def test_the_mean_over_labels_is_printed_with_its_interval(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = [
            CaseScore(f"c{i}", f"p{i}", label, {"tp": 1, "fp": 0, "fn": 0, "dice": i / 12, "hd95": 4.0}, "ok", "mm")
            for i in range(10)
            for label in ("liver", "spleen")
        ]
        scores, summary = write_scores(tmp_path, "test", table, ["liver", "spleen", "cyst"])
        low, high = summary["labels"]["liver"]["dice"]["ci95"]  # both labels have the same scores
        assert summary["foreground_ci95"] == {"dice": pytest.approx([low, high]), "hd95": [4.0, 4.0]}
        run = read_run(tmp_path, "test")
        assert compute_mean_interval(run) == pytest.approx((low, high)), "the report says the same"
        print_scores(scores, summary, "test")
        means = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("mean")]
        assert [line[2:5] for line in means] == [[f"{low:.3f}", "–", f"{high:.3f}"], ["4.00", "–", "4.00"]]


class TestRow:
    SCORE = CaseScore("a", "p", "liver", {"dice": 0.5, "own": 7.0}, "ok", "px")

    def test_what_no_metric_computed_is_not_a_number(self) -> None:
        found = make_row(self.SCORE, {"site": "north"})
        assert list(found) == [*COLUMNS, "own", "site"]
        assert (found["dice"], found["own"], found["status"], found["unit"]) == (0.5, 7.0, "ok", "px")
        assert all(math.isnan(float(found[name])) for name in COLUMNS[3:-2] if name != "dice")

    def test_a_stratum_never_takes_the_place_of_a_column(self) -> None:
        found = make_row(self.SCORE, {"group": "controls", "dice": "high", "own": "mine", "site": "north"})
        assert list(found) == [*COLUMNS, "own", "stratum_group", "stratum_dice", "stratum_own", "site"]
        assert (found["group"], found["dice"], found["own"]) == ("p", 0.5, 7.0)
        assert [found[name] for name in ("stratum_group", "stratum_dice", "stratum_own")] == [
            "controls",
            "high",
            "mine",
        ]


class TestTables:
    def test_the_means_of_every_label(self) -> None:
        summary = summarize(ledger().table(), LABELS.names, intervals=False)
        overlap, distances = printed(summary).split("distances in mm")
        assert _cells(overlap, "liver") == ["0.6667", "–", "0.5000", "0.7500", "0.7500", "0"]
        assert _cells(overlap, "tumour") == ["0.8000", "–", "0.6667", "1.0000", "0.6667", "0"]
        assert _cells(overlap, "mean") == ["0.7333", "–", "0.5833", "0.8750", "0.7083"]
        assert _cells(distances, "liver") == ["0.47", "–", "0.17", "1.0000", "0"]
        assert _cells(distances, "mean") == ["0.46", "–", "0.13", "1.0000"]

    def test_intervals_are_those_of_the_headline(self) -> None:
        summary = summarize(ledger().table(), LABELS.names)
        summary["labels"]["liver"]["dice"]["ci95"] = [0.12345, 0.98765]
        summary["labels"]["liver"]["hd95"]["ci95"] = [1.0, 23.4567]
        overlap, distances = printed(summary).split("distances in mm")
        assert "0.123 – 0.988" in overlap
        assert "1.00 – 23.46" in distances

    def test_missed_cases_are_counted(self) -> None:
        book = ledger()
        book.add(Prediction.from_masks("c", np.zeros((3, 4)), np.full((3, 4), 2), spacing_mm=SPACING))
        text = printed(summarize(book.table(), LABELS.names, intervals=False))
        assert [line.split()[-1] for line in text.splitlines() if line.split()[:1] == ["tumour"]] == ["1", "1"]

    def test_pixels_are_called_pixels(self) -> None:
        assert "distances in px" in printed(summarize(ledger(None).table(), LABELS.names))

    @pytest.mark.parametrize(
        ("tolerance", "said"),
        [
            (1.0, ", NSD within 1 px"),
            ({"liver": 1.0, "tumour": 1.0}, ", NSD within 1 px"),
            ({"liver": 2.5, "tumour": 0.0}, ", NSD within 0 to 2.5 px"),
            (None, ""),
        ],
    )
    def test_the_tolerance_of_nsd_stands_above_distances(self, tolerance: object, said: str) -> None:
        summary = {**summarize(ledger(None).table(), LABELS.names), "nsd_tolerance": tolerance}
        (title,) = [line.strip() for line in printed(summary).splitlines() if "distances" in line]
        assert title == f"distances in px{said}"

    def test_the_mean_over_one_label_is_not_printed(self) -> None:
        text = printed(summarize([score for score in ledger().table() if score.label == "liver"], ["liver"]))
        rows = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()]
        assert rows.count("liver") == 2 and "mean" not in rows

    @pytest.mark.parametrize("case", ["no distances", "both units"])
    def test_without_means_of_distances_there_is_one_table(self, case: str) -> None:
        book = MetricTable([OverlapMetric(LABELS)]) if case == "no distances" else ledger()
        book.add(Prediction.from_masks("z", np.ones((2, 2)), np.ones((2, 2))))
        summary = summarize(book.table(), LABELS.names)
        assert len(make_summary_tables(summary, "test")) == 1
        assert "distances" not in printed(summary)

    def test_no_case_at_all(self) -> None:
        text = printed(summarize([], LABELS.names))
        assert "test: 0 cases" in text
        assert _cells(text, "liver") == ["–", "–", "–", "–", "–", "0"]

    @pytest.mark.parametrize(
        "names",
        [
            ["liver", "tumour"],
            ["left_upper_lobe_of_the_lung_without_the_lingula_segments", "organ_at_risk_" * 8],
            ["a name of many words that somebody wrote into the file of the data set", "x"],
            ["肝臓の腫瘍と周囲の浮腫を含む領域の全体", "t"],
        ],
    )
    def test_eighty_columns_are_enough(self, names: list[str]) -> None:
        labels = LabelMap(names, "multiclass")
        summary = summarize(ledger(labels=labels).table(), labels.names)
        for described in summary["labels"].values():
            described["dice"]["ci95"] = [0.123, 0.987]
            described["hd95"].update(mean=1234.56789, ci95=[1000.0, 2345.678])
        text = printed(summary)
        assert all(cell_len(line) <= 80 for line in text.splitlines())
        assert "…" not in text
        for number in ("0.123 – 0.987", "1234.57", "1000.00 – 2345.68"):
            assert text.count(number) == 2
        for name in names:
            assert name[:5] in text
            assert set(name) <= set(text)

    def test_a_label_is_shown_as_it_is_written(self) -> None:
        labels = LabelMap(["[red]liver", "tumour [old]"], "multiclass")
        text = printed(summarize(ledger(labels=labels).table(), labels.names))
        assert text.count("[red]liver") == text.count("tumour [old]") == 2


def _cells(text: str, label: str) -> list[str]:
    """The numbers in the first row of a label."""
    (line, *_) = [line for line in text.splitlines() if line.split()[:1] == [label]]
    return line.split()[1:]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [tmp_path / name for name in ("scores_test.csv", "summary_test.json", "objects_test.csv")]
    monkeypatch.setattr("medseg_pl.metrics.summary.choose_numbered_paths", lambda directory, *names: taken)
    taken[0].write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_scores(tmp_path, "test", ledger().table(), LABELS.names)
    assert taken[0].read_text() == "mine"
