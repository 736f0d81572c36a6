"""Cases of folders, found in spite of faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg_pl.checks.discovery import Discovered, discover
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.sources.base import Problem, make_case
from tests.checks.facts_of import codes
from tests.sample_files import noise, save_raster


def make(root: Path, *files: str) -> Path:
    """Files that exist and hold nothing: pairing never looks inside."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found(root: Path, *files: str, **settings: str) -> Discovered:
    return discover(FolderSource(str(make(root, *files)), **settings))


def names(discovered: Discovered) -> dict[str, tuple[str, ...]]:
    return {case.case_id: tuple(path.name for path in case.masks) for case in discovered.cases}


def test_a_folder_in_order(tmp_path: Path) -> None:
    discovered = found(tmp_path, "images/a.png", "images/b.nii.gz", "masks/a.png", "masks/b.nii.gz")
    assert names(discovered) == {"a": ("a.png",), "b": ("b.nii.gz",)}
    assert discovered.findings == ()


def test_one_missing_mask_hides_no_other_case(tmp_path: Path) -> None:
    discovered = found(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/x.png")
    assert names(discovered) == {"a": ("a.png",), "b": (), "c": ()}
    assert [(f.code, f.case_id, f.file and f.file.name) for f in discovered.findings] == [
        ("missing-mask", "b", "b.png"),
        ("missing-mask", "c", "c.png"),
        ("missing-image", "", "x.png"),
    ]


def test_all_faults_of_names_at_once(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png")
    (tmp_path / "images/readme.txt").write_text("Nothing.")
    (tmp_path / "images/a.png").unlink()
    discovered = found(
        tmp_path,
        *("images/p1_a.png", "images/p1_a.bmp", "masks/p1_a.png"),
        *("images/p2_a.png", "masks/P2_A.png"),
        *("images/p3_a.png",),
        *("masks/p4_a.png",),
        *("images/x.png", "masks/x.png"),
        *("images/p5_a.png", "masks/p5_a.png", "images/P5_a.png", "masks/P5_a.png"),
        group="^([pP][0-9])",
    )
    assert sorted(codes(discovered.findings)) == [
        "duplicate-name",
        "group-unknown",
        "ignored-file",
        "missing-image",
        "missing-mask",
        "names-differ-by-case",
        "pair-differs-by-case",
    ]
    assert {case.case_id for case in discovered.cases} == {"p1_a", "p2_a", "p3_a", "x", "p5_a", "P5_a"}


def test_several_places_for_masks(tmp_path: Path) -> None:
    files = ["images/a.png", "images/b.png", "liver/a.png", "spleen/a.png", "liver/b.png"]
    source = FolderSource(str(make(tmp_path, *files)), masks={"liver": "liver", "spleen": "spleen"})
    discovered = discover(source)
    assert names(discovered) == {"a": ("a.png", "a.png"), "b": ()}
    assert [(f.code, f.case_id) for f in discovered.findings] == [("missing-mask", "b")]


def test_a_mask_of_two_images(tmp_path: Path) -> None:
    files = ["images/a.png", "images/ab.png", "masks/ab_1.png"]
    discovered = found(tmp_path, *files, mask_name="{stem}*")
    assert "shared-mask" in codes(discovered.findings)


def test_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "images" / "b.png").symlink_to("nowhere.png")
    (tmp_path / "masks" / "c.png").symlink_to("c.png")
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    discovered = discover(FolderSource(str(tmp_path)))
    assert names(discovered) == {"a": ("a.png",)}
    assert codes(discovered.findings) == ["broken-link", "broken-link", "repeated-link"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="This system has no named pipes.")
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png")
    os.mkfifo(tmp_path / "images" / "b.png")  # whoever opens it waits for ever
    assert names(discover(FolderSource(str(tmp_path)))) == {"a": ("a.png",)}


@pytest.mark.parametrize("name", ["../x", "/abs", "a\x1b[2J"])
def test_a_name_that_leads_out_of_a_folder_is_a_problem(name: str) -> None:
    problems: list[Problem] = []
    assert make_case(problems.append, Path("list.csv"), name, "p", (Path("a.png"),)) == []
    (problem,) = problems
    assert (problem.code, problem.path) == ("bad-name", Path("list.csv"))
    assert (problem.case_id + problem.message).isprintable()


class _OwnSource(FolderSource):
    def cases(self) -> list[Case]:  # a plug-in that collects no problems
        raise DataError("Case 3 has no mask. Add it.")


def test_a_source_that_collects_no_problems_ends_at_its_first(tmp_path: Path) -> None:
    discovered = discover(_OwnSource(str(tmp_path)))
    assert [(f.code, f.message) for f in discovered.findings] == [("no-cases", "Case 3 has no mask.")]


def test_no_case_at_all(tmp_path: Path) -> None:
    make(tmp_path, "images/a.txt", "masks/a.txt")
    assert "no-cases" in codes(discover(FolderSource(str(tmp_path))).findings)
    assert codes(discover(FolderSource(str(tmp_path / "nowhere"))).findings) == ["no-cases"]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png", "images/.hidden", "images/.git/d.heic")
    for name in ("images/b.heic", "images/c.npy", "masks/b.txt"):
        (tmp_path / name).write_bytes(noise((9, 9)).tobytes())
    for name in ("images/readme.txt", "images/côté.json"):
        (tmp_path / name).write_text("Näheres in µm.", encoding="utf-8")
    (tmp_path / "images/d.txt").write_bytes(save_raster(tmp_path / "d.png", noise((9, 9))).read_bytes())
    findings = discover(FolderSource(str(tmp_path))).findings
    assert [(f.code, f.file and f.file.name) for f in findings] == [
        ("unread-file", "b.heic"),
        ("unread-file", "c.npy"),
        ("unread-file", "d.txt"),
        ("unread-file", "b.txt"),
        ("ignored-file", "côté.json"),
    ]
    assert findings[2].message == "The content is PNG, but the name says otherwise. Rename it."
    assert findings[4].message == "2: côté.json, readme.txt. A text, no image."


def test_patients_that_are_links_are_there(tmp_path: Path) -> None:
    """A data set under version control, or on a storage of its own."""
    for kind in ("images", "masks"):
        make(tmp_path, f"data/{kind}/p0/s.png", f"disk/{kind}/p1/s.png")
        (tmp_path / "data" / kind / "p1").symlink_to(tmp_path / "disk" / kind / "p1")
    (tmp_path / "data/images/p2").symlink_to(tmp_path / "data/images/p0")
    discovered = discover(FolderSource(str(tmp_path / "data")))
    assert names(discovered) == {"p0/s": ("s.png",), "p1/s": ("s.png",)}
    assert codes(discovered.findings) == ["repeated-link"]
