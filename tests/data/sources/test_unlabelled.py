"""The input of a prediction: every file in it is a case, or is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import MissingDataError
from medseg_pl.data.sources import DicomSource, FolderSource
from medseg_pl.data.sources.unlabelled import ImageFolder
from tests.dicom_files import save_segmentation, save_series
from tests.sample_files import noise, save_raster, save_volume


def fill(folder: Path) -> Path:
    """Twelve kinds of files, of which four are images that are read."""
    for name in ("a.png", "a.jpg", "b.tif", "c.bmp"):
        save_raster(folder / name, noise((9, 8)))
    save_volume(folder / "d.nii.gz", noise((5, 6, 4)))
    np.save(folder / "e.npy", noise((9, 8)))
    for name in ("f.heic", "g.svs", "h.pdf"):
        (folder / name).write_bytes(b"\x01\x02" + noise((9, 8)).tobytes())
    shutil.copy(folder / "a.png", folder / "i.txt")
    (folder / "j.csv").write_text("case,age\n")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder


def left(source: ImageFolder | DicomSource) -> dict[str, str]:
    return {each.path.name: each.kind for each in source.left_out()}


def test_every_file_is_a_case_or_is_named(tmp_path: Path) -> None:
    source = ImageFolder(str(fill(tmp_path)))
    assert [case.case_id for case in source.cases()] == ["a.jpg", "a.png", "b", "c", "d"]
    unread = {"e.npy", "f.heic", "g.svs", "h.pdf", "i.txt"}
    assert left(source) == {**dict.fromkeys(unread, "unread"), "j.csv": "side-file", "Thumbs.db": "side-file"}


def test_a_name_that_is_taken_twice_over_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.png.bmp"):
        save_raster(tmp_path / name, noise((9, 8)))
    source = ImageFolder(str(tmp_path))
    assert [case.case_id for case in source.cases()] == ["a.jpg", "a.png"]
    (other,) = source.left_out()
    assert other.path.name == "a.png"
    assert "a.png.bmp has the same name" in other.reason


def test_one_file_is_enough(tmp_path: Path) -> None:
    fill(tmp_path)
    (case,) = FolderSource(str(tmp_path)).unlabelled(tmp_path / "a.png").cases()
    assert (case.case_id, case.images) == ("a", (tmp_path / "a.png",))
    with pytest.raises(MissingDataError, match=r"f\.heic: It is of no format that is read\. Give images"):
        ImageFolder(str(tmp_path / "f.heic")).cases()
    with pytest.raises(MissingDataError, match=r"--input .*gone\.png does not exist"):
        ImageFolder(str(tmp_path / "gone.png")).cases()


def test_of_a_root_the_masks_are_no_input(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        save_raster(tmp_path / name, noise((9, 8)))
    trained = FolderSource("elsewhere")
    assert [case.case_id for case in trained.unlabelled(tmp_path).cases()] == ["a"]
    save_raster(tmp_path / "runs/overlays/a.png", noise((9, 8)))
    assert [case.case_id for case in trained.unlabelled(tmp_path).cases()] == ["a"]
    shutil.rmtree(tmp_path / "masks")  # no root of the kind that was trained on
    assert [case.case_id for case in trained.unlabelled(tmp_path).cases()] == ["images/a", "runs/overlays/a"]


class TestDicom:
    def sort(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        source = DicomSource("elsewhere").unlabelled(folder)
        assert isinstance(source, DicomSource)
        return [case.case_id for case in source.cases()], left(source)

    def test_a_damaged_file_stops_its_own_series_alone(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1", noise((3, 4, 5)), series="one")
        save_series(tmp_path / "p2", noise((3, 4, 5)), series="two")
        (tmp_path / "p2/last.dcm").write_bytes(b"no preamble")
        (tmp_path / "lone.dcm").write_bytes(b"")
        assert self.sort(tmp_path) == (["p1"], {"last.dcm": "unread", "lone.dcm": "unread", "p2": "unread"})

    def test_two_series_of_a_folder_are_two_cases(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1", noise((3, 4, 5)), series="one", SeriesNumber=2)
        save_series(tmp_path / "p1", noise((2, 4, 5)), series="two", SeriesNumber=4, names=["x", "y"])
        save_series(tmp_path / "p2", noise((3, 4, 5)), series="three")
        save_series(tmp_path / "p2", noise((2, 4, 5)), series="four", names=["x", "y"])
        names, left_out = self.sort(tmp_path)
        assert names == ["p1/series_2", "p1/series_4"]
        assert left_out == {"p2": "unread"}  # of one number, so nobody can tell them apart

    def test_half_a_series_is_no_case(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1", noise((3, 4, 5)), series="one")
        save_series(tmp_path / "p2", noise((3, 4, 5)), series="two")
        shutil.copytree(tmp_path / "p2", tmp_path / "p3")
        assert self.sort(tmp_path) == (["p1"], {"p2": "unread", "p3": "unread"})

    def test_other_kinds_are_named_and_references_are_no_input(self, tmp_path: Path) -> None:
        series = save_series(tmp_path / "p1", noise((3, 4, 5)))
        save_segmentation(tmp_path / "seg.dcm", series, noise((3, 4, 5, 1)) > 100, ["liver"])
        save_series(tmp_path / "us", noise((1, 4, 5)), series="us", SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
        save_raster(tmp_path / "a.png", noise((9, 8)))
        (tmp_path / "notes.txt").write_text("Nothing.")
        names, left_out = self.sort(tmp_path)
        assert names == ["p1"]
        assert left_out == {"IM001.dcm": "unread", "a.png": "unread", "notes.txt": "side-file", "seg.dcm": "side-file"}

    def test_a_linked_series_is_found_and_one_file_is_enough(self, tmp_path: Path) -> None:
        (path,) = save_series(tmp_path / "disk", noise((1, 4, 5)))
        (tmp_path / "in").mkdir()
        (tmp_path / "in/p1").symlink_to(tmp_path / "disk")
        assert self.sort(tmp_path / "in") == (["p1"], {})
        assert self.sort(path) == (["disk"], {})


def test_the_source_that_reads_a_folder_is_named(tmp_path: Path) -> None:
    save_series(tmp_path / "scans/p1", noise((2, 4, 5)))
    save_volume(tmp_path / "volumes/a.nii.gz", noise((5, 6, 4)))
    with pytest.raises(MissingDataError, match=r"scans holds no image .* --data\.source=DicomSource --data\.source\.r"):
        FolderSource("elsewhere").unlabelled(tmp_path / "scans").cases()
    with pytest.raises(MissingDataError, match=r"volumes holds no CT, .* --data\.source=FolderSource --data\.source"):
        DicomSource("elsewhere").unlabelled(tmp_path / "volumes").cases()
