"""Cases of trees of slices, folder by folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from medseg_pl.checks.discovery import discover
from medseg_pl.data.sources import DicomSource, UWMadisonSource
from tests.dicom_files import save_segmentation, save_series
from tests.end_to_end.clean_sets import write_scans


def test_a_scan_with_an_unreadable_name_hides_no_other_case(tmp_path: Path) -> None:
    write_scans(tmp_path)
    scans = sorted(tmp_path.rglob("scans"))
    next(scans[2].iterdir()).rename(scans[2] / "slice_9.png")
    shutil.copytree(scans[0].parent, tmp_path / "train" / "copy" / scans[0].parent.name)
    discovered = discover(UWMadisonSource(str(tmp_path)))
    assert len(discovered.cases) == len(scans) - 1
    assert sorted((f.code, f.case_id) for f in discovered.findings) == [
        ("duplicate-name", "case0_day1"),
        ("listing-invalid", "case2_day1"),
    ]


def test_a_broken_series_hides_no_other(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 999, (4, 8, 9)).astype(np.int16)
    for name in ("p1", "p2", "p3"):
        files = save_series(tmp_path / name / "ct", stored, series=name)
        save_segmentation(tmp_path / name / "seg.dcm", files, np.ones((4, 8, 9, 1), np.uint8), ["liver"])
    shutil.copy(tmp_path / "p1" / "ct" / "IM001.dcm", tmp_path / "p2" / "ct" / "other.dcm")
    (tmp_path / "p3" / "seg.dcm").unlink()
    (tmp_path / "p1" / "ct" / "empty.dcm").touch()
    lost = save_series(tmp_path / "lost", stored, series="lost")
    save_segmentation(tmp_path / "p1" / "lost.dcm", lost, np.ones((4, 8, 9, 1), np.uint8), ["liver"])
    shutil.rmtree(tmp_path / "lost")
    discovered = discover(DicomSource(str(tmp_path)))
    assert {case.case_id: (case.group, len(case.masks)) for case in discovered.cases} == {
        "p1/ct": ("p1", 1),
        "p3/ct": ("p3", 0),
    }
    assert sorted((f.code, f.case_id) for f in discovered.findings) == [
        ("missing-image", ""),
        ("missing-mask", "p3/ct"),
        ("mixed-series", "p2/ct"),
        ("unreadable-file", ""),
    ]
