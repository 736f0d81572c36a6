"""Where scores differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.reporting import Run, read_run
from medseg_pl.reporting.summary import find_weakest, find_weaknesses, list_limitations, list_size_thirds, list_strata
from tests.reporting.run_folders import ENVIRONMENT, score, write_run


def test_thirds_by_size_are_means_of_the_cases_in_them(tmp_path: Path) -> None:
    dice = [0.2, 0.4, 0.6, 0.6, 0.9, 0.8]
    table = [score(f"c{i}", f"p{i}", "liver", each, size=100 * (i + 1)) for i, each in enumerate(dice)]
    sizes = list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None))
    assert [(each.cases, each.mean) for each in sizes] == [(2, pytest.approx(m)) for m in (0.3, 0.6, 0.85)]
    assert sizes[0].value == "smallest third, 1 to 2 ml"
    assert find_weakest(sizes) == sizes[0]


def test_few_cases_are_not_told_apart_by_size(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", 0.5) for i in range(5)]
    assert list_size_thirds(read_run(write_run(tmp_path, table, ["liver"]), None)) == []


def test_strata_are_those_of_the_summary(tmp_path: Path) -> None:
    table = [score(f"c{i}", f"p{i}", "liver", dice) for i, dice in enumerate([0.9, 0.5, 0.8, 0.4])]
    run = read_run(write_run(tmp_path, table, ["liver"]), None)
    found = {each.value: (each.kind, each.cases, each.mean) for each in list_strata(run)}
    assert found == {"north": ("site", 2, pytest.approx(0.85)), "south": ("site", 2, pytest.approx(0.45))}
    assert "Weakest by site: south (2 cases, Dice 0.450)." in find_weaknesses(run).sentences


def run_of(folder: Path, dice: list[float], **survey: Any) -> Run:
    write_run(folder, [score(f"c{i}", f"p{i}", "liver", value) for i, value in enumerate(dice)], ["liver"])
    record = {**ENVIRONMENT, "data": {**ENVIRONMENT["data"], "survey": survey}}
    (folder / "environment.json").write_text(json.dumps(record))
    return read_run(folder, None)


def test_a_good_model_on_many_patients_has_none(tmp_path: Path) -> None:
    assert list_limitations(run_of(tmp_path, [0.9, 0.91] * 30)) == []


def test_few_cases_a_miss_and_a_wide_interval(tmp_path: Path) -> None:
    few, wide, missed, caution = list_limitations(run_of(tmp_path, [0.9, 0.8, 0.0, 0.7, 0.9]))
    assert few == "liver: scored on 5 cases only."
    assert wide.startswith("liver: the mean Dice lies anywhere from 0.")
    assert missed == "liver: missed altogether in 1 cases."
    assert caution.startswith("liver: 5 patients make a 95 % interval too narrow")


def test_misses_that_were_not_seen(tmp_path: Path) -> None:
    (caution,) = list_limitations(run_of(tmp_path, [0.9, 0.91] * 10))
    assert caution.startswith("liver: none of 20 patients was missed")


@pytest.mark.parametrize(("spacing", "said"), [([3.0, 0.5, 0.75], 1), (None, 0)])
def test_pixels_of_one_size(tmp_path: Path, spacing: list[float] | None, said: int) -> None:
    found = list_limitations(run_of(tmp_path, [0.9, 0.91] * 30, spacing_mm=spacing))
    assert (
        found
        == ["It was trained on pixels of about 0.5 × 0.75 mm and does not resample: others were not tried."] * said
    )


def test_a_run_without_scores(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("experiment: demo\n")
    run = read_run(tmp_path, None, labels=["liver"])
    assert (run.stage, run.labels, run.rows) == ("none", ["liver"], [])
    assert list_limitations(run) == ["No score of this model is known."]
