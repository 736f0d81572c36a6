"""Objects of all cases: recall by size, false positives per case, FROC; on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.io.scores import read_rows
from medseg_pl.metrics import MetricTable, ObjectMetric, OverlapMetric, collect_objects
from medseg_pl.metrics.object_summary import bin_recall, list_froc_points, summarize_objects
from medseg_pl.metrics.objects import OBJECT_COLUMNS
from medseg_pl.metrics.summary import write_scores

LABELS = LabelMap(["lesion"], "binary")
CASES = {
    "a": ([1, 1, 0, 1, 0, 0, 0, 1], [1, 1, 0, 1, 0, 1, 0, 0]),  # two found, one missed, one invented
    "b": ([0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]),  # two invented
    "c": ([0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]),
}


def score_cases(**options: Any) -> MetricTable:
    table = MetricTable([OverlapMetric(LABELS), ObjectMetric(LABELS, **options)])
    for name, (prediction, reference) in CASES.items():
        masks = np.array([prediction]), np.array([reference])
        table.add(Prediction.from_masks(name, *masks, spacing_mm=(10.0, 10.0, 10.0)))
    return table


def summarize_cases() -> dict[str, Any]:
    table = score_cases()
    objects = collect_objects(table.metrics)
    assert objects is not None
    described: dict[str, Any] = summarize_objects(objects, table.table(), ["lesion"])["lesion"]
    return described


def test_shares_and_rates_on_paper() -> None:
    summary = summarize_cases()
    assert (summary["n_reference"], summary["n_prediction"]) == (3, 5)
    assert (summary["n_missed"], summary["n_invented"]) == (1, 3)
    assert summary["recall"]["mean"] == 2 / 3
    assert summary["precision"]["mean"] == 2 / 5
    assert summary["false_positives_per_case"]["mean"] == (1 + 2 + 0) / 3
    assert summary["false_positives_per_case"]["n"] == 3  # a case without a label can have them
    assert summary["absolute_count_error"]["mean"] == (0 + 2 + 0) / 3
    assert "froc" not in summary


def rows(*sizes: float, found: int) -> list[dict[str, Any]]:
    return [
        {"volume_ml": size, "voxels": 7, "group": str(number), "status": "matched" if number < found else "missed"}
        for number, size in enumerate(sizes)
    ]


def test_recall_by_given_sizes() -> None:
    bins = bin_recall(rows(5.0, 2.0, 1.0, 0.5, found=2), [1.0, 3.0])
    assert [(part["from"], part["to"], part["n"], part["mean"]) for part in bins] == [
        (0.5, 1.0, 1, 0.0),
        (1.0, 3.0, 2, 0.5),
        (3.0, 5.0, 1, 1.0),
    ]
    assert {part["unit"] for part in bins} == {"ml"}


def test_recall_by_quartile() -> None:
    bins = bin_recall(rows(*map(float, range(8, 0, -1)), found=4))
    assert [part["n"] for part in bins] == [2, 2, 2, 2]
    assert [part["mean"] for part in bins] == [0.0, 0.0, 1.0, 1.0]


def test_sizes_that_are_all_alike_are_one_bin() -> None:
    (part,) = bin_recall(rows(2.0, 2.0, 2.0, found=1))
    assert (part["from"], part["to"], part["n"]) == (2.0, 2.0, 3)
    assert bin_recall([]) == []


def test_sizes_are_voxels_where_a_spacing_is_unknown() -> None:
    (part,) = bin_recall(rows(float("nan"), 2.0, found=1), [1.0])
    assert (part["unit"], part["from"]) == ("voxels", 7.0)


def test_froc_points_on_paper() -> None:
    def predicted(confidence: float, partner: str) -> dict[str, Any]:
        status = "matched" if partner else "invented"
        return {"confidence": confidence, "status": status, "partner": partner, "case_id": "a"}

    prediction = [predicted(0.9, "1"), predicted(0.7, ""), predicted(0.7, "2"), predicted(0.6, "1"), predicted(0.5, "")]
    points = list_froc_points([{}, {}, {}, {}], prediction, cases=2)
    assert [tuple(point.values()) for point in points] == [
        (0.9, 0.25, 0.0),
        (0.7, 0.5, 0.5),
        (0.6, 0.5, 0.5),
        (0.5, 0.5, 1.0),
    ]


def test_a_table_of_objects_is_written_beside_the_scores(tmp_path: Path) -> None:
    table = score_cases()
    objects = collect_objects(table.metrics)
    for suffix in ("", "_2"):
        write_scores(tmp_path, "test", table.table(), ["lesion"], objects=objects)
        read = read_rows(tmp_path / f"objects_test{suffix}.csv")
        assert [(row["case_id"], row["mask"], row["status"]) for row in read][:4] == [
            ("a", "reference", "matched"),
            ("a", "reference", "matched"),
            ("a", "reference", "missed"),
            ("a", "prediction", "matched"),
        ]
        assert list(read[0]) == list(OBJECT_COLUMNS)
        assert len(read) == 8
    scores, summary = write_scores(tmp_path, "test", table.table(), ["lesion"])
    assert scores.name == "scores_test_3.csv"
    assert "objects" not in summary
    assert not (tmp_path / "objects_test_3.csv").exists()


def test_no_object_at_all_is_a_header(tmp_path: Path) -> None:
    metric = ObjectMetric(LABELS)
    table = MetricTable([OverlapMetric(LABELS), metric])
    nothing = np.zeros((1, 4))
    table.add(Prediction.from_masks("a", nothing, nothing))
    write_scores(tmp_path, "test", table.table(), ["lesion"], objects=collect_objects([metric]))
    assert (tmp_path / "objects_test.csv").read_text() == ",".join(OBJECT_COLUMNS) + "\n"


def test_the_summary_has_the_columns_of_cases_too(tmp_path: Path) -> None:
    table = score_cases()
    _, summary = write_scores(tmp_path, "val", table.table(), ["lesion"], objects=collect_objects(table.metrics))
    assert summary["labels"]["lesion"]["object_f1"]["mean"] == pytest.approx((2 / 3 + 0) / 2)  # "c" is undefined
    assert "object_pq_50" in summary["foreground_mean"]
    assert "objects_fp" not in summary["foreground_mean"]
    assert summary["labels"]["lesion"]["objects_fp"]["mean"] == 1.0
    assert summary["objects"]["lesion"]["recall_by_size"][0]["unit"] == "ml"
