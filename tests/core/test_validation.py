"""Names that become files, and addresses in settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.core.validation import (
    find_address,
    find_name_fault,
    find_path_fault,
    is_address,
    is_hub_name,
    iterate_texts,
)

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
    assert find_name_fault(name)
    with pytest.raises(SettingError, match=r"Correct labels\.names|different names") as caught:
        LabelMap(["liver", name], "multilabel")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["left kidney", "Tumor (>0 mm)".replace(">", "ü"), "gtv-1", "大腸", "L5_S1", "1", "a.b"]
)
def test_labels_of_people_are_taken(name: str) -> None:
    assert find_name_fault(name) is None
    assert LabelMap([name], "binary").encode(np.array([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("name", [*LEADING_OUT, "a//b", "a/", ".medseg/record", "x" * 241])
def test_no_case_leads_out_of_a_folder(name: str) -> None:
    assert find_path_fault(name)
    with pytest.raises(DataError, match="Rename it") as caught:
        Case(name, "p", (Path("a.png"),))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["p1", "patient3/ct", "2021-03-04T10:20:30", "a b", "été", "a\u00a0b", "1.2.840.1"])
def test_names_of_files_are_cases(name: str) -> None:
    assert Case(name, "p", (Path("a.png"),)).case_id == name


@pytest.mark.parametrize(
    "text",
    ["http://h/a", "https://h", "HTTP://h", " ftp://h/a", "s3://b/a", "gs://b", "file:///etc/passwd", "hf://a/b"],
)
def test_addresses_are_recognized(text: str) -> None:
    assert is_address(text)
    assert is_address(f"simplecache::{text.strip()}")


@pytest.mark.parametrize(
    "text", ["a/b.yaml", r"C:\data", "C:/data", "00:12:00:00", "torch.nn.ReLU", "a: b", "", "tu-x"]
)
def test_paths_and_names_are_no_addresses(text: str) -> None:
    assert not is_address(text)
    assert not is_hub_name(text)


@pytest.mark.parametrize("text", ["hf-hub:a/b", "tu-hf-hub:a/b", "tu-HF_HUB:a/b", "timm-hf-hub:a", "tu-local-dir:/a"])
def test_hub_names_are_recognized(text: str) -> None:
    assert is_hub_name(text)


def test_an_address_is_found_at_any_depth_but_in_prose() -> None:
    settings = {"model": {"loss": {"init_args": {"losses": [{"path": "http://h/a"}]}}}}
    assert find_address(settings) == ("model.loss.init_args.losses.path", "http://h/a")
    assert find_address({"trainer": {"logger": {"notes": "https://our.wiki/page"}}}) is None


def nest(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deep_or_repeats_itself_is_refused() -> None:
    assert list(iterate_texts(nest(50))) == [("", "x")]
    circle: list[Any] = []
    circle.append(circle)
    laughs: Any = ["x"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    for value in (nest(5000), circle, laughs):
        with pytest.raises(ValueError, match="nested too deep, or too many"):
            list(iterate_texts(value))
