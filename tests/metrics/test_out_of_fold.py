"""The table of all folds has each case once, and its summary can be checked on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.core.errors import DataError, UnreadableFileError
from medseg_pl.io.scores import format_rows, read_rows
from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.metrics.out_of_fold import FoldTable, join_folds, make_rows, read_fold, summarize_folds
from medseg_pl.metrics.summary import write_scores


def score(case: str, dice: float, label: str = "liver") -> CaseScore:
    values = {"tp": 5, "fp": 1, "fn": 0, "dice": dice, "iou": dice / (2 - dice), "precision": 1.0, "recall": 1.0}
    return CaseScore(case, f"patient_{case}", label, values, "ok", "mm")


def fold(number: int, *scores: CaseScore, labels: tuple[str, ...] = ("liver",)) -> FoldTable:
    return FoldTable(number, list(scores), {}, {"labels": {name: {} for name in labels}})


def test_means_and_spread_over_folds() -> None:
    folds = [fold(0, score("c", 0.5), score("a", 0.75)), fold(1, score("b", 1.0))]
    summary = summarize_folds(folds)
    assert [each.case_id for each in join_folds(folds)] == ["a", "b", "c"]
    assert summary["labels"]["liver"]["dice"]["mean"] == 0.75  # over cases
    assert summary["folds"]["labels"]["liver"]["dice"] == pytest.approx({"mean": 0.8125, "std": 0.2651650429, "n": 2})
    assert summary["folds"]["foreground_mean"]["dice"] == summary["folds"]["labels"]["liver"]["dice"]
    assert [each["foreground_mean"]["dice"] for each in summary["folds"]["scores"]] == [0.625, 1.0]
    assert [each["n_cases"] for each in summary["folds"]["scores"]] == [2, 1]
    assert summary["n_cases"] == summary["n_groups"] == 3


def test_rows_say_the_fold_and_are_those_of_the_folds(tmp_path: Path) -> None:
    scores = [score("a", 0.1 + 0.2), score("b", 1 / 3)]
    strata = {"a": {"site": "01", "group": "x"}, "b": {"site": "02"}}
    for number, each in enumerate(scores):
        write_scores(tmp_path / str(number), "val", [each], ["liver"], strata=strata, facts={"nsd_tolerance": 2})
    folds = [read_fold(tmp_path / str(number) / "scores_val.csv", number) for number in (0, 1)]
    rows = make_rows(folds)
    assert [row["fold"] for row in rows] == [0, 1]
    (tmp_path / "all.csv").write_text(format_rows(rows))
    for number, row in enumerate(read_rows(tmp_path / "all.csv")):
        (original,) = read_rows(tmp_path / str(number) / "scores_val.csv")
        assert str(original | {"fold": float(number)}) == str({name: row[name] for name in [*original, "fold"]})
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert (tmp_path / "0" / "scores_val.csv").read_text().splitlines()[1] + ",0" == lines[1]
    summary = summarize_folds(folds)
    assert summary["nsd_tolerance"] == 2
    assert {name: part["n_cases"] for name, part in summary["strata"]["site"].items()} == {"01": 1, "02": 1}


def test_objects_of_all_folds_are_counted_together() -> None:
    def list_objects(case: str, found: int, missed: int) -> list[dict[str, str | float]]:
        row: dict[str, str | float] = {"case_id": case, "group": case, "label": "liver", "mask": "reference"}
        statuses = ["matched"] * found + ["missed"] * missed
        return [{**row, "status": status, "partner": "", "voxels": 9.0, "volume_ml": 1.0} for status in statuses]

    described = {"labels": {"liver": {}}, "objects": {}}
    folds = [
        FoldTable(0, [score("a", 0.5)], {}, described, list_objects("a", 3, 1)),
        FoldTable(1, [score("b", 0.5)], {}, described, list_objects("b", 0, 2)),
    ]
    assert summarize_folds(folds)["objects"]["liver"]["recall"]["mean"] == 0.5
    assert summarize_folds(folds)["objects"]["liver"]["n_reference"] == 6
    # A fold that counted no objects would make the others' a part of the whole.
    assert "objects" not in summarize_folds([folds[0], folds[1]._replace(summary={"labels": {"liver": {}}})])


def test_a_case_of_two_folds_is_refused() -> None:
    with pytest.raises(DataError, match="Case a was scored by folds 0 and 1"):
        join_folds([fold(0, score("a", 0.5)), fold(1, score("a", 0.5))])


def test_folds_of_other_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"Fold 1 has the labels spleen.*model\.labels"):
        join_folds([fold(0, score("a", 0.5)), fold(1, score("b", 0.5, "spleen"), labels=("spleen",))])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labels": []}'])
def test_a_damaged_summary_is_named(tmp_path: Path, text: str) -> None:
    write_scores(tmp_path, "val", [score("a", 0.5)], ["liver"])
    (tmp_path / "summary_val.json").write_text(text)
    with pytest.raises(UnreadableFileError, match=r"summary_val\.json is no summary"):
        read_fold(tmp_path / "scores_val.csv", 0)
