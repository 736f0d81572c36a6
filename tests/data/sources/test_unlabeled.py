"""The input of a prediction: every file in it is a case, or is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import MissingDataError
from medseg_pl.data.sources import DicomSource, FolderSource
from medseg_pl.data.sources.unlabeled import ImageFolder
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
    return {each.path.name: each.kind for each in source.list_left_out()}


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
    (other,) = source.list_left_out()
    assert other.path.name == "a.png"
    assert "a.png.bmp has the same name" in other.reason


def test_one_file_is_enough(tmp_path: Path) -> None:
    fill(tmp_path)
    (case,) = FolderSource(str(tmp_path)).open_unlabeled(tmp_path / "a.png").cases()
    assert (case.case_id, case.images) == ("a", (tmp_path / "a.png",))
    with pytest.raises(MissingDataError, match=r"f\.heic: It is of no format that is read\. Give images"):
        ImageFolder(str(tmp_path / "f.heic")).cases()
    with pytest.raises(MissingDataError, match=r"--input .*gone\.png does not exist"):
        ImageFolder(str(tmp_path / "gone.png")).cases()


def test_of_a_root_the_masks_are_no_input(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        save_raster(tmp_path / name, noise((9, 8)))
    trained = FolderSource("elsewhere")
    assert [case.case_id for case in trained.open_unlabeled(tmp_path).cases()] == ["a"]
    save_raster(tmp_path / "runs/overlays/a.png", noise((9, 8)))
    assert [case.case_id for case in trained.open_unlabeled(tmp_path).cases()] == ["a"]
    shutil.rmtree(tmp_path / "masks")  # no root of the kind that was trained on
    assert [case.case_id for case in trained.open_unlabeled(tmp_path).cases()] == ["images/a", "runs/overlays/a"]


def save_names(folder: Path, *names: str) -> Path:
    for name in names:
        save_raster(folder / f"{name}.png", noise((9, 8)))
    return folder


def named_inputs(source: FolderSource, folder: Path) -> tuple[list[str], dict[str, str]]:
    inputs = source.open_unlabeled(folder)
    assert all(each.kind == "side-file" for each in inputs.list_left_out())
    return [case.case_id for case in inputs.cases()], {each.path.name: each.reason for each in inputs.list_left_out()}


class TestMasksBesideImages:
    SHARED = FolderSource("elsewhere", images=".", masks=".", mask_name="{stem}_mask")

    def test_of_one_folder_are_no_input(self, tmp_path: Path) -> None:
        save_names(tmp_path, "0", "0_mask", "p1/1", "p1/1_mask")
        left_out = {"0_mask.png": "The mask of 0.png.", "1_mask.png": "The mask of 1.png."}
        assert named_inputs(self.SHARED, tmp_path) == (["0", "p1/1"], left_out)
        assert named_inputs(self.SHARED, tmp_path / "p1") == (["1"], {"1_mask.png": "The mask of 1.png."})
        assert [case.case_id for case in self.SHARED.open_unlabeled(tmp_path / "0_mask.png").cases()] == ["0_mask"]

    def test_an_image_whose_name_matches_is_predicted(self, tmp_path: Path) -> None:
        save_names(tmp_path, "a_mask", "b_mask", "c")
        assert named_inputs(self.SHARED, tmp_path) == (["a_mask", "b_mask", "c"], {})

    def test_a_mask_has_no_mask(self, tmp_path: Path) -> None:
        save_names(tmp_path, "a", "a_mask", "a_mask_mask")
        assert named_inputs(self.SHARED, tmp_path)[0] == ["a", "a_mask_mask"]

    def test_names_of_images(self, tmp_path: Path) -> None:
        save_names(tmp_path / "both", "1_image", "1_label", "2_image", "2_label", "overview")
        save_names(tmp_path / "others", "1_test", "2_test")
        source = FolderSource("x", images=".", masks=".", image_name="{stem}_image", mask_name="{stem}_label")
        names, reasons = named_inputs(source, tmp_path / "both")
        assert names == ["1_image", "2_image"]
        assert reasons["2_label.png"] == "The mask of 2_image.png."
        assert "data.source.image_name" in reasons["overview.png"]
        assert named_inputs(source, tmp_path / "others") == (["1_test", "2_test"], {})

    @pytest.mark.parametrize(
        ("images", "masks", "mask"),
        [
            (".", "masks", "masks/a"),
            ("images", "images/{stem}_seg", "images/a_seg"),
            ("images", "images/gt", "images/gt/a"),
            ("images", "{stem}_seg", "a_seg"),
            (".", "{stem}/*", "a/1"),
        ],
    )
    def test_wherever_they_are(self, tmp_path: Path, images: str, masks: str, mask: str) -> None:
        save_names(tmp_path, f"{images}/a", mask)
        source = FolderSource(str(tmp_path), images=images, masks=masks)
        assert len(source.cases()) == 1
        for folder in {tmp_path, tmp_path / images}:
            assert [case.images for case in source.open_unlabeled(folder).cases()] == [(tmp_path / images / "a.png",)]

    def test_of_several_labels(self, tmp_path: Path) -> None:
        save_names(tmp_path, "a", "a_liver", "a_spleen", "b")
        source = FolderSource("x", images=".", masks={"liver": "{stem}_liver", "spleen": "{stem}_spleen"})
        assert named_inputs(source, tmp_path)[0] == ["a", "b"]


class TestDicom:
    def sort(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        source = DicomSource("elsewhere").open_unlabeled(folder)
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
        FolderSource("elsewhere").open_unlabeled(tmp_path / "scans").cases()
    with pytest.raises(MissingDataError, match=r"volumes holds no CT, .* --data\.source=FolderSource --data\.source"):
        DicomSource("elsewhere").open_unlabeled(tmp_path / "volumes").cases()
