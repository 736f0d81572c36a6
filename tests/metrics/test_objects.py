"""Objects of whole cases: columns and rows, on paper, and what must hold for any masks."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, MetricTable, ObjectMetric, OverlapMetric, collect_objects
from tests.contracts.metric_contract import BINARY, MULTICLASS, CaseMetricContract, random_case
from tests.metrics.functional.object_pairs import pair

SHARES = tuple(
    f"object_{name}{suffix}" for suffix in ("", "_50") for name in ("sensitivity", "precision", "f1", "sq", "pq")
)
DISTANCE = "lesion_hd95"


class TestObjectMetric(CaseMetricContract):
    best_is_one = (*SHARES, "lesion_dice")
    best_is_zero = ("count_error", DISTANCE)

    def make(self, labels: LabelMap) -> CaseMetric:
        return ObjectMetric(labels)


class TestManyToOne(CaseMetricContract):
    best_is_one = (*SHARES[:5], "lesion_dice")
    best_is_zero = ("count_error", DISTANCE)

    def make(self, labels: LabelMap) -> CaseMetric:
        return ObjectMetric(labels, thresholds=[0.0], matching="many_to_one", lesion_dilation=1)


PREDICTION = [[1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
REFERENCE = [[1, 1, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
SPACING = (2.0, 3.0, 0.5)


def measure(prediction: Any, reference: Any, **options: Any) -> tuple[dict[str, Any], list[Any]]:
    metric = ObjectMetric(BINARY, **options)
    metric.update(Prediction.from_masks("c", np.asarray(prediction), np.asarray(reference), spacing_mm=SPACING))
    (row,) = metric.table()
    return dict(row.values), metric.objects()


def test_a_case_on_paper() -> None:
    values, _ = measure(PREDICTION, REFERENCE)
    assert (values["objects_reference"], values["objects_prediction"]) == (3, 3)
    assert (values["objects_tp"], values["objects_fp"]) == (2, 1)
    assert (values["objects_tp_50"], values["objects_fp_50"]) == (1, 2)
    assert values["object_sensitivity"] == values["object_precision"] == values["object_f1"] == 2 / 3
    assert values["object_sq"] == pytest.approx((2 / 6 + 1) / 2)
    assert values["object_pq"] == pytest.approx(values["object_sq"] * values["object_f1"])
    assert (values["object_sq_50"], values["object_pq_50"]) == (1.0, 1 / 3)
    assert values["count_error"] == 0.0
    far = math.hypot(3 * 3.0, 7 * 0.5)
    assert values["lesion_dice"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    # Of the first lesion's six voxels the two farthest are 3 mm and one corner away; the 95th lies between them.
    first = 3.0 + 0.75 * (math.hypot(3.0, 0.5) - 3.0)
    assert values[DISTANCE] == pytest.approx((first + 0 + 2 * far) / 4)


def test_the_rows_of_a_case_on_paper() -> None:
    _, objects = measure(PREDICTION, REFERENCE)
    shown = [(row["mask"], row["object"], row["status"], row["partner"], row["voxels"], row["iou"]) for row in objects]
    assert shown == [
        ("reference", 1, "matched", "1", 6, 2 / 6),
        ("reference", 2, "missed", "", 1, 0.0),
        ("reference", 3, "matched", "3", 1, 1.0),
        ("prediction", 1, "matched", "1", 2, 2 / 6),
        ("prediction", 2, "invented", "", 1, 0.0),
        ("prediction", 3, "matched", "3", 1, 1.0),
    ]
    large, missed, *_ = objects
    assert {row["case_id"] for row in objects} == {"c"}
    assert large["volume_ml"] == pytest.approx(6 * 3.0 / 1000)
    assert large["diameter"] == pytest.approx(2 * math.sqrt(6 * 1.5 / math.pi))
    assert large["dice"] == 0.5
    assert (large["z"], large["y"], large["x"]) == (0.0, 0.5, 1.0)
    assert large["center_distance"] == pytest.approx(math.hypot(0.5 * 3.0, 0.5 * 0.5))
    assert math.isnan(missed["center_distance"])
    assert "confidence" not in large


def test_parts_stand_for_one_object_together() -> None:
    prediction = [[1, 0, 1, 1, 0, 0]]
    reference = [[1, 1, 1, 1, 0, 0]]
    values, objects = measure(prediction, reference, matching="many_to_one")
    assert (values["objects_tp_50"], values["objects_fp_50"], values["object_sq_50"]) == (1, 0, 0.75)
    assert [row["partner"] for row in objects] == ["1 2", "1", "1"]
    assert objects[0]["center_distance"] == pytest.approx(0.5 * abs(5 / 3 - 1.5))
    assert measure(prediction, reference)[0]["objects_fp"] == 1


def test_connectivity_and_lesion_options_reach_the_formulas() -> None:
    corner = [[1, 0], [0, 1]]
    assert measure(corner, corner)[0]["objects_reference"] == 1
    assert measure(corner, corner, connectivity="face")[0]["objects_reference"] == 2
    prediction, reference = [[1, 0, 0, 1, 1, 0]], [[1, 0, 0, 1, 1, 0]]
    assert measure([[0, 0, 0, 1, 1, 0]], reference, lesion_minimum=1.5)[0]["lesion_dice"] == 1.0
    assert measure([[0, 0, 0, 1, 1, 0]], reference, lesion_minimum=1.4)[0]["lesion_dice"] == 0.5
    assert measure([[0, 0, 0, 1, 1, 0]], reference, lesion_dilation=1)[0]["lesion_dice"] == 0.8
    # All lesions are too small to count: perfect where one is touched, and the worst where nothing is predicted.
    assert measure(prediction, reference, lesion_minimum=9.0)[0]["lesion_dice"] == 1.0
    assert measure([[0] * 6], reference, lesion_minimum=9.0)[0]["lesion_dice"] == 0.0


def test_open_voxels_are_in_no_object() -> None:
    values, _ = measure([[1, 1, 0, 1]], [[1, IGNORE, 0, IGNORE]])
    assert (values["objects_reference"], values["objects_prediction"], values["object_pq"]) == (1, 1, 1.0)


def test_a_predicted_object_has_its_largest_probability() -> None:
    case = Prediction.from_masks("c", np.array([[1, 1, 0, 1]]), np.array([[1, 0, 0, 0]]))
    probabilities = np.array([0.6, 0.9, 0.2, 0.7], np.float32).reshape(1, 1, 1, 4)
    metric = ObjectMetric(BINARY, confidence=True)
    assert metric.needs_probabilities
    assert not ObjectMetric(BINARY).needs_probabilities
    metric.update(replace(case, probabilities=probabilities))
    reference, first, second = metric.objects()
    assert (first["confidence"], second["confidence"]) == (pytest.approx(0.9), pytest.approx(0.7))
    assert math.isnan(float(reference["confidence"]))


def test_the_order_of_cases_changes_no_row() -> None:
    cases = [random_case(MULTICLASS, number) for number in range(4)]
    tables = []
    for seed in range(3):
        metric = ObjectMetric(MULTICLASS)
        for case in random.Random(seed).sample(cases, len(cases)):
            metric.update(case)
        tables.append(repr(metric.objects()))
    assert len(set(tables)) == 1
    assert "spleen" in tables[0]


@pytest.mark.processes
def test_two_processes_give_the_objects_of_one(tmp_path: Path) -> None:
    def measure_share(numbers: tuple[int, ...]) -> str:
        metric = ObjectMetric(MULTICLASS)
        for number in numbers:
            metric.update(random_case(MULTICLASS, number))
        return repr(metric.objects())

    expected = measure_share((0, 1, 2, 3))
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def work(rank: int) -> None:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", rank=rank, world_size=2)
        results.put(measure_share(((3, 0, 2), (1,))[rank]))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    processes = [context.Process(target=work, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        assert [results.get(timeout=120) for _ in processes] == [expected, expected]
    finally:
        for process in processes:
            process.join(30)
            process.kill()


def test_emptying_a_prediction_never_improves_a_score() -> None:
    for number in range(20):
        drawn = pair(number)
        if not drawn.reference.any():
            continue
        empty = np.zeros_like(drawn.prediction)
        for options in ({}, {"matching": "many_to_one"}, {"lesion_dilation": 2, "lesion_minimum": 3.0}):
            full, emptied = (measure(mask, drawn.reference, **options)[0] for mask in (drawn.prediction, empty))
            assert all(emptied[name] == 0.0 <= full[name] for name in (*SHARES, "lesion_dice"))
            assert emptied["count_error"] == 1.0 >= full["count_error"]
            assert emptied[DISTANCE] >= full[DISTANCE]


def test_objects_are_collected_from_the_metric_that_keeps_them() -> None:
    table = MetricTable([OverlapMetric(BINARY), ObjectMetric(BINARY, size_bins_ml=[2.0, 1.0])])
    table.add(random_case(BINARY, 0))
    collected = collect_objects(table.metrics)
    assert collected is not None
    assert collected.size_bins_ml == [1.0, 2.0]
    assert len(collected.rows) > 1
    table.reset()
    again = collect_objects(table.metrics)
    assert again is not None
    assert again.rows == []
    assert collect_objects([OverlapMetric(BINARY)]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thresholds": [0.333]}, "whole percent; got 0.333"),
        ({"thresholds": [1.5]}, "whole percent; got 1.5"),
        ({"thresholds": []}, "needs a threshold"),
        ({"lesion_minimum": -1.0}, "no negative size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        ObjectMetric(BINARY, **options)
