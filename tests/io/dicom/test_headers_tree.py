"""Which series lie where below a folder, and what was drawn on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medseg_pl.io.dicom.headers import DicomTree
from tests.dicom_files import SECRET, edit, save_projection, save_series, save_structures, uid_of

STORED = np.zeros((2, 4, 6), np.int16)
CONTOUR = {"liver": [np.zeros((3, 3))]}


def test_folders_with_images_and_files_with_references(tmp_path: Path) -> None:
    save_series(tmp_path / "p1/day 2/ct", STORED, series="a")
    save_series(tmp_path / "p2", STORED, series="b")
    save_structures(tmp_path / "p1/rt.dcm", "a", CONTOUR)
    (tmp_path / "notes.txt").write_text("text")
    tree = DicomTree(tmp_path)
    assert {name: len(entries) for name, entries in tree.images.items()} == {"p1/day 2/ct": 2, "p2": 2}
    assert list(tree.references) == ["p1/rt.dcm"]


def test_a_series_in_the_root_is_called_after_it(tmp_path: Path) -> None:
    save_series(tmp_path / "scan", STORED)
    assert list(DicomTree(tmp_path / "scan").images) == ["scan"]


def test_files_of_other_kinds_are_neither(tmp_path: Path) -> None:
    save_series(tmp_path / "sc", STORED, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    tree = DicomTree(tmp_path)
    assert len(tree.entries) == 2
    assert tree.images == {}
    assert tree.references == {}


def test_what_a_reference_was_drawn_on(tmp_path: Path) -> None:
    for name in "abc":
        save_series(tmp_path / name, STORED, series=name, FrameOfReferenceUID=uid_of(name != "c"))
    named = save_structures(tmp_path / "named.dcm", "a", CONTOUR)
    elsewhere = save_structures(tmp_path / "elsewhere.dcm", "nowhere", CONTOUR)
    placed = edit(save_structures(tmp_path / "placed.dcm", "a", CONTOUR), ReferencedFrameOfReferenceSequence=None)
    edit(placed, FrameOfReferenceUID=uid_of(True))
    lost = edit(save_structures(tmp_path / "lost.dcm", "a", CONTOUR), ReferencedFrameOfReferenceSequence=None)
    tree = DicomTree(tmp_path)
    found = {name: tree.drawn_on(entry) for name, entry in tree.references.items()}
    assert found == {
        named.name: {uid_of("a")},
        elsewhere.name: set(),
        placed.name: {uid_of("a"), uid_of("b")},
        lost.name: set(),
    }


def test_who_was_scanned_is_read_only_when_asked_for(tmp_path: Path) -> None:
    save_series(tmp_path / "a", STORED)
    assert {entry.patient_id for entry in DicomTree(tmp_path).entries} == {""}
    assert {entry.patient_id for entry in DicomTree(tmp_path, patients=True).entries} == {f"{SECRET}-ID"}


def test_a_damaged_file_is_not_passed_over(tmp_path: Path) -> None:
    path = save_series(tmp_path / "a", STORED)[0]
    path.write_bytes(b"text")
    tree = DicomTree(tmp_path)
    assert [name.name for name in tree.damaged] == ["IM002.dcm"]
    assert re.search(r"IM002\.dcm \(4 bytes\) is no DICOM file", str(tree.damaged[path]))


def test_series_of_a_folder_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    for number, name in ((2, "a"), (3, "b")):
        names = [f"{name}{d}" for d in range(2)]
        save_series(tmp_path / "p1", STORED, series=name, names=names, SeriesNumber=number)
    save_series(tmp_path / "p2", STORED, series="c")
    series = DicomTree(tmp_path).series
    assert {name: len(entries) for name, entries in series.items()} == {"p1/series_2": 2, "p1/series_3": 2, "p2": 2}
    assert [members[0].series for members in series.values()] == [uid_of(name) for name in "abc"]
    for path in (tmp_path / "p1").iterdir():
        edit(path, SeriesNumber=7)
    assert {name: len(entries) for name, entries in DicomTree(tmp_path).series.items()} == {"p1": 4, "p2": 2}


def test_each_projection_is_a_case(tmp_path: Path) -> None:
    for name in ("left.dcm", "right.dcm", "right.ima"):
        save_projection(tmp_path / "p1" / name, STORED[0])
    save_series(tmp_path / "p1", STORED, series="ct")
    assert sorted(DicomTree(tmp_path).series) == ["p1", "p1/left", "p1/right.dcm", "p1/right.ima"]
