"""The patient in a name, and lists that stay readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    Source,
    UWMadisonSource,
    base,
)
from medseg_pl.data.sources.base import (
    Problem,
    abbreviate,
    check_pattern,
    describe_doubtful_pattern,
    find_group,
    suggest_correction,
    suggest_group_pattern,
)


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("Image_01L", None, "Image_01L"),
        ("Image_01L", r"Image_(\d+)", "01"),
        ("site2/p7_left", r"(site\d)/(p\d+)_", "site2_p7"),
        ("p7_left", r"^p\d+(?:_(\d))?", "p7"),
    ],
)
def test_the_parentheses_find_the_patient(name: str, pattern: str | None, group: str) -> None:
    assert find_group(name, pattern) == group


def test_a_name_without_a_patient_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'Image_\(\\d\+\)' finds no patient in the case 'scan_7', so a split") as e:
        find_group("scan_7", r"Image_(\d+)")
    assert str(e.value).endswith("Correct data.source.group so that it matches every name, or leave it out.")


VISITS = [f"sub-{patient:02}_visit-{visit}" for patient in range(14) for visit in (1, 2)]


def test_names_are_not_compared_for_each_reported_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(base, "suggest_group_pattern", lambda names: calls.append(len(names)))
    problems: list[Problem] = []
    for name in VISITS:
        assert find_group(name, "(x)", None, problems.append, VISITS) == name
    assert ([problem.case_id for problem in problems], calls) == (VISITS, [])
    with pytest.raises(DataError):
        find_group(VISITS[0], "(x)", case_ids=VISITS)
    assert calls == [28]


# Twenty patients with three slices of one day each, ten of whom come again on another day.
DATES = [f"2020-01-{day:02}_p{day % 20:02}_{number}" for day in range(30) for number in range(3)]
SITES = [f"s{patient // 7}_p{patient:03}" for patient in range(28)]


def test_the_error_of_a_pattern_suggests_another() -> None:
    with pytest.raises(DataError) as e:
        find_group(VISITS[0], r"(patient\d+)", case_ids=VISITS)
    assert str(e.value).endswith(r"so that it matches every name (perhaps '(sub-\d+)_'), or leave it out.")


@pytest.mark.parametrize(("pattern", "names"), [(r"_(p0\d)_", DATES), (r"_(p00\d)", SITES)])
def test_no_error_suggests_dates_or_sites(pattern: str, names: list[str]) -> None:
    assert suggest_group_pattern(names) in (r"(2020-01-\d+)_", r"(s\d+)_")
    assert suggest_correction(pattern, names) == ""


@pytest.mark.parametrize(
    ("pattern", "names", "doubt"),
    [
        (r"(visit-\d)", VISITS, r"finds 2 patients in 28 cases; perhaps --group '(sub-\d+)_' is meant, which finds 14"),
        (r"(sub-\d)", VISITS, r"finds 2 patients in 28 cases; perhaps --group '(sub-\d+)_' is meant, which finds 14"),
        (r"(x)", [*VISITS, "x"], "finds a patient in 1 of 29 names; see that its parentheses are around the patient"),
        (r"(sub-\d+)_", VISITS, ""),
        (r"(P\d)_", [f"P{p}_{slide}" for p in range(4) for slide in range(9)], ""),
        (r"(P\d)_", [f"P{p}_{slide}" for p in range(8) for slide in range(3)], ""),
        (r"(slide[A-D])", [f"slide{slide}_{tile:03}" for slide in "ABCD" for tile in range(50)], ""),
        (r"_(p\d+)_", DATES, ""),
        (r"_(p0\d)_", DATES, "finds a patient in 60 of 90 names; see that its parentheses are around the patient"),
        (r"s\d+_(p\d+)", SITES, ""),
        (r"_([ab])", [f"p{patient}_{side}" for patient in range(9) for side in "ab"], ""),  # 9 cases each
        (
            r"_([ab])",
            [f"p{patient}_{side}" for patient in range(10) for side in "ab"],
            r"finds 2 patients in 20 cases; perhaps --group '(p\d+)_' is meant, which finds 10",
        ),
        (r"(s\d)", [f"s{site}_{number}" for site in range(4) for number in range(10)], ""),
    ],
)
def test_a_pattern_is_doubtful_only_where_names_say_so(pattern: str, names: list[str], doubt: str) -> None:
    assert describe_doubtful_pattern(pattern, names, "--group") == (doubt and f"--group '{pattern}' {doubt}")


@pytest.mark.parametrize(
    ("beginnings", "ends", "pattern"),
    [
        ([f"slide {number:02}" for number in range(16)], [" field 1", " field 2", " field 3"], r"(slide \d+)"),
        (["P01", "P02", "P10"], ["_visit1", "_visit2"], r"(P\d+)_"),
        (["1", "2", "3"], ["-left", "-right"], r"(\d+)-"),
        (["set1.5/p1", "set1.5/p2", "set1.5/p3"], ["/a", "/b"], r"(set1[.]5/p\d+)/"),
        (["Image_01", "Image_02", "Image_03"], ["L", "R"], r"(Image_\d+)"),
        (["patient07", "patient08", "patient10"], ["_visit1", "_visit2"], r"(patient\d+)_"),
        (["case101", "case102", "case7"], ["_day11_0003", "_day11_0004", "_day12_0003"], r"(case\d+)_"),
        (["slide 3", "slide 4", "slide 12"], [" a", " b"], r"(slide \d+)"),
        (["P1", "P2", "P3"], ["_ED", "_ES", "_ED_repeated"], r"(P\d+)_"),
    ],
)
def test_a_suggested_pattern_finds_the_beginnings(beginnings: list[str], ends: list[str], pattern: str) -> None:
    names = [beginning + end for beginning in beginnings for end in ends]
    assert suggest_group_pattern(names) == pattern
    assert [find_group(name, pattern) for name in names] == [begin for begin in beginnings for _ in ends]


def test_patients_need_not_have_the_same_images() -> None:
    visits = [("baseline", "week"), ("week", "month"), ("month", "baseline")]
    names = [f"patient{number:02}_{visit}" for number in range(30) for visit in visits[number % 3]]
    assert suggest_group_pattern(names) == r"(patient\d+)_"


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["p1"],
        ["p1_a", "p2_a", "p3_a"],  # nothing is shared
        ["T1_a", "T1_b", "T2_a", "T2_b"],  # rather sequences than patients
        ["a1_x", "a1_y", "b2_x", "b3_x"],  # no common text before the number
        ["it's 1 a", "it's 1 b", "it's 2 a", "it's 3 a"],  # would need quotes
        ["p1", "p1a", "p", "p2", "p3"],
    ],
)
def test_no_pattern_is_guessed(names: list[str]) -> None:
    assert suggest_group_pattern(names) is None


HEX = ["2ab91a440886", "2bf594e9d06f", "2dd9d8c797fc", "2f929b067a59", "13c8ff1f4988", "16c3d5935ba9", "1740b0a67ca3"]


@pytest.mark.parametrize(
    "names",
    [
        HEX,
        [f"img_{name}" for name in HEX],
        ["2c9e1b60-3f57-4d0a", "2f1e0b7c-91d2-4f6e", "30a4c1de-7b25-4c11", "4be01f2a-0c3d-4a90", "4af01f2a-7c3d-4a90"],
        [f"{number:04}" for number in range(40)],
        ["scan 4pm", "scan left", "scan upper", "scan right"],  # a digit by chance
        ["x1 dog", "x1 cat", "x2 tree", "x3 house"],
    ],
)
def test_names_without_a_structure_have_no_pattern(names: list[str]) -> None:
    assert suggest_group_pattern(sorted(names)) is None


def test_an_optional_part_that_is_absent_does_not_break_the_group() -> None:
    assert find_group("p7", r"(p\d+)(_left)?") == "p7"


def test_a_pattern_must_be_a_regular_expression_with_parentheses() -> None:
    with pytest.raises(SettingError, match=r"data\.source\.group '\(p' is not a regular expression: missing \)"):
        check_pattern("(p")
    with pytest.raises(SettingError, match=r"no parentheses around the patient\. Write '\(\^p\\d\+\)'\.$"):
        check_pattern(r"^p\d+")
    check_pattern(None)
    check_pattern(r"(p\d+)")


def test_long_lists_are_cut() -> None:
    assert abbreviate(["a", "b", "c"]) == "a, b, c"
    assert abbreviate([str(number) for number in range(1000)]) == "0, 1, 2 and 997 more"


class Windowed(Source):
    """A source of your own that says nothing of its settings."""

    def __init__(self, root: Path, low: float = 0.0, organs: tuple[str, ...] = ()) -> None:
        self.root = root
        self.low = low
        self.organs = organs

    def cases(self) -> list[Case]:
        raise NotImplementedError

    def read(self, case: Case, labels: LabelMap) -> Volume:
        raise NotImplementedError

    def open_unlabeled(self, directory: Path) -> Source:
        raise NotImplementedError

    def write(self, directory: Path, case: Case, mask: np.ndarray, labels: LabelMap) -> None:
        raise NotImplementedError


def test_without_a_word_every_setting_decides_how_a_case_is_read() -> None:
    same = Windowed(Path("data"), 0.5, ("liver",)).reading_settings()
    assert same == Windowed(Path("data"), 0.5, ("liver",)).reading_settings()
    others = [Windowed(Path("else"), 0.5, ("liver",)), Windowed(Path("data"), 0.25, ("liver",)), Windowed(Path("data"))]
    assert len({same, *(other.reading_settings() for other in others)}) == 4


def test_the_order_in_which_settings_are_set_is_none() -> None:
    turned = Windowed(Path("data"))
    turned.__dict__ = dict(reversed(turned.__dict__.items()))
    assert turned.reading_settings() == Windowed(Path("data")).reading_settings()


def test_a_source_that_forgets_a_method_cannot_be_made() -> None:
    class Forgetful(Source):
        def cases(self) -> list:
            return []

    with pytest.raises(TypeError, match="abstract method"):
        Forgetful()


RELATIVE: dict[str, Callable[[Path], Source]] = {
    "folder": lambda root: FolderSource(str(root)),
    "manifest": lambda root: ManifestSource(str(root / "list.csv")),
    "decathlon": lambda root: DecathlonSource(str(root)),
    "dicom": lambda root: DicomSource(str(root)),
    "polygons": lambda root: PolygonSource(str(root)),
    "uw_madison": lambda root: UWMadisonSource(str(root)),
}


@pytest.mark.parametrize("layout", RELATIVE)
def test_a_relative_root_that_is_missing_is_said_to_be_relative(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = (
        rf"gone.*relative to the current folder, {re.escape(str(tmp_path))}: start where .*, or give --data_root DIR\.$"
    )
    with pytest.raises(MissingDataError, match=told):
        RELATIVE[layout](Path("gone")).cases()
    with pytest.raises(MissingDataError, match=r"Set data\.source\.\w+ to|Set data\.source\.manifest") as caught:
        RELATIVE[layout](tmp_path / "gone").cases()
    assert "relative to the current folder" not in str(caught.value)


def test_a_manifest_with_a_relative_root_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.csv").write_text("case_id,group,image,mask\na,a,a.png,b.png\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDataError, match=r"names gone/a\.png, .* relative to the current folder"):
        ManifestSource("list.csv", root="gone").cases()
