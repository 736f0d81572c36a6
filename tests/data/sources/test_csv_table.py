"""Tables of cases; what a manifest does with them is in `test_manifest`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.data.sources.csv_table import choose_strata_columns, read_table
from medseg_pl.metrics import MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric
from medseg_pl.metrics.files import make_row

TABLE = Path("cases.csv")


def test_fields_beyond_the_header_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,group\na,p1,stray,field\nb\n", encoding="utf-8")
    rows = read_table(tmp_path / "cases.csv", ["case_id"], "case_id", "")
    assert rows == [(2, {"case_id": "a", "group": "p1"}), (3, {"case_id": "b", "group": None})]


def test_site_and_scanner_need_not_be_there_unless_they_are_named() -> None:
    assert choose_strata_columns(["case_id", "scanner", "age"], None, TABLE, "strata") == ["scanner"]
    assert choose_strata_columns(["case_id"], None, TABLE, "strata") == []
    assert choose_strata_columns(["case_id", "site"], [], TABLE, "strata") == []
    assert choose_strata_columns(["age", "site"], ["site", "age", "site"], TABLE, "strata") == ["site", "age"]
    with pytest.raises(
        DataError, match=r"^cases\.csv lacks the column\(s\) site that strata names; got case_id, group\.$"
    ):
        choose_strata_columns(["case_id", "group"], ["site"], TABLE, "strata")


def scored_columns() -> list[str]:
    labels = LabelMap(["lesion"], "binary")
    ledger = MetricTable([OverlapMetric(labels), SurfaceMetric(labels), VolumeMetric(labels)])
    ledger.add(Prediction.from_masks("a", np.ones((2, 2)), np.ones((2, 2))))
    return list(make_row(ledger.table()[0], {}))


@pytest.mark.parametrize("name", scored_columns())
def test_a_stratum_may_not_take_the_place_of_a_score(name: str) -> None:
    with pytest.raises(SettingError, match=f"strata names {name}, which is a column of every table of scores already"):
        choose_strata_columns([name], [name], TABLE, "strata")
