"""Which names may become files and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.names import name_fault, path_fault
from medseg_pl.core.types import Case

LEADING_OUT = [
    "/abs/dir",
    "..",
    ".",
    "../../x",
    "a/../../x",
    r"..\x",
    r"a\b",
    "",
    "a\x1b[2J",
    "a\nb",
    "a\u202eb",
    "\udcff",
]


@pytest.mark.parametrize(
    "name",
    [
        *LEADING_OUT,
        "a/b",
        "C:",
        "a:b",
        "nul",
        "COM1.png",
        "overlays",
        "Review",
        ".medseg",
        "liver.",
        " liver",
        "x" * 121,
        "a?",
        "a|b",
    ],
)
def test_no_label_leads_out_of_a_folder(name: str) -> None:
    assert name_fault(name)
    with pytest.raises(SettingError, match=r"Correct labels\.names|different names") as caught:
        LabelMap(["liver", name], "multilabel")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["left kidney", "Tumor (>0 mm)".replace(">", "ü"), "gtv-1", "大腸", "L5_S1", "1", "a.b"]
)
def test_labels_of_people_are_taken(name: str) -> None:
    assert name_fault(name) is None
    assert LabelMap([name], "binary").encode(np.array([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("name", [*LEADING_OUT, "a//b", "a/", ".medseg/record", "x" * 241])
def test_no_case_leads_out_of_a_folder(name: str) -> None:
    assert path_fault(name)
    with pytest.raises(DataError, match="Rename it") as caught:
        Case(name, "p", (Path("a.png"),))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["p1", "patient3/ct", "2021-03-04T10:20:30", "a b", "été", "a\u00a0b", "1.2.840.1"])
def test_names_of_files_are_cases(name: str) -> None:
    assert Case(name, "p", (Path("a.png"),)).case_id == name
