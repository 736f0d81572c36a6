"""The table of suffixes, and files below a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medseg_pl.core.errors import MissingDataError
from medseg_pl.io.paths import (
    find_dead_links,
    find_similar_path,
    find_suffix,
    is_itk,
    is_nifti,
    is_picture,
    is_volume_name,
    list_files,
    promised_format,
    require_folder,
    stem,
)


@pytest.mark.parametrize("name", ["a.png", "a.TIF", "a.tiff", "a.JPG", "a.jpeg", "a.bmp", "a.gif", "a.WebP", "a.jp2"])
def test_pictures(name: str) -> None:
    assert is_picture(Path(name))
    assert not is_volume_name(Path(name))


@pytest.mark.parametrize("name", ["a.nii", "a.NII.GZ", "a.b.nii", "a.mha", "a.MHD", "a.nrrd", "a.nhdr", "a.seg.nrrd"])
def test_volumes(name: str) -> None:
    assert is_volume_name(Path(name))
    assert is_nifti(Path(name)) != is_itk(Path(name))


@pytest.mark.parametrize("name", ["a.gz", "nii", "png", "a.png.gz", "a.raw", "a.dcm", "a.npy", "IM0001"])
def test_other_names_promise_no_image(name: str) -> None:
    assert find_suffix(Path(name)) == ""


def test_stems() -> None:
    names = ("x/case.1.nii.gz", "case.1.nii", "CASE.NII.GZ", "case.1.png", "case.1.mha", "case.1.txt")
    assert [stem(Path(name)) for name in names] == ["case.1", "case.1", "CASE", *["case.1"] * 3]


def test_promised_formats() -> None:
    names = ("a.TIF", "a.bmp", "a.nii", "a.nii.gz", "a.dcm", "a.mhd", "a.j2k", "IM0001")
    expected = ["TIFF", "BMP", "NIfTI", "gzip", "DICOM", "MetaImage", "JPEG 2000", None]
    assert [promised_format(Path(name)) for name in names] == expected


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class TestFilesBelow:
    def test_the_order_is_that_of_paths(self, tmp_path: Path) -> None:
        for name in ("a/b.png", "a.png", "a-1/c.png", "B.png", "a/b/c.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = list(list_files(tmp_path))
        assert found == sorted(path for path in tmp_path.rglob("*") if path.is_file())
        assert len(found) == 5

    def test_links_are_followed_and_each_folder_is_listed_once(self, tmp_path: Path) -> None:
        for name in ("data/p1/a.png", "disk/p2/b.png", "disk/p2/in/c.png", "data/.store/p3/d.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        links = {
            "data/p2": tmp_path / "disk/p2",
            "data/p2_again": tmp_path / "disk/p2",
            "data/p1_again": tmp_path / "data/p1",
            "data/p3": tmp_path / "data/.store/p3",
            "data/p1/up": tmp_path / "data",
            "disk/p2/in/round": tmp_path / "disk/p2",
            "data/e.png": tmp_path / "data/p1/a.png",
            "data/nothing.png": Path("gone.png"),
            "data/circle.png": Path("circle.png"),
        }
        for name, target in links.items():
            (tmp_path / name).symlink_to(target)
        root = tmp_path / "data"
        listed = ["e.png", "p1/a.png", "p2/b.png", "p2/in/c.png", "p3/d.png"]
        assert [path.relative_to(root).as_posix() for path in list_files(root)] == listed
        assert {each.path.relative_to(root).as_posix(): each.kind for each in find_dead_links(root)} == {
            "circle.png": "dead-link",
            "nothing.png": "dead-link",
            "p1/up": "repeated-link",
            "p1_again": "repeated-link",
            "p2/in/round": "repeated-link",
            "p2_again": "repeated-link",
        }

    def test_a_folder_that_may_not_be_listed_is_not_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "closed").mkdir()
        listed = os.scandir

        def refuse(path: Path) -> os._ScandirIterator[str]:
            if Path(path).name == "closed":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return listed(path)  # type: ignore[return-value]

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(PermissionError, match="closed"):
            list(list_files(tmp_path))


class TestRequireFolder:
    def test_a_folder_is_returned(self, tmp_path: Path) -> None:
        assert require_folder(tmp_path, "images", "Set data.source.root.") == tmp_path

    def test_what_is_missing_is_named_with_its_setting(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError) as caught:
            require_folder(tmp_path / "gone", "images", "Set data.source.root.")
        assert str(caught.value) == (
            f"Expected images in the folder {tmp_path / 'gone'}, found nothing there. Set data.source.root."
        )

    def test_a_folder_of_nearly_the_same_name_is_suggested(self, tmp_path: Path) -> None:
        (tmp_path / "scans").mkdir()
        with pytest.raises(MissingDataError, match=r"scan, found nothing there\. Did you mean .*scans\? Set"):
            require_folder(tmp_path / "scan", "images", "Set data.source.root.")

    def test_the_data_of_the_demo_can_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(MissingDataError, match=r"Make it: medseg phantom data/phantom\. Set data\.source\.root\."):
            require_folder(Path("data/phantom"), "images", "Set data.source.root.")

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "images.zip").touch()
        with pytest.raises(MissingDataError, match="found a file there"):
            require_folder(tmp_path / "images.zip", "images", "Set data.source.root.")


@pytest.mark.parametrize(
    ("missing", "there", "is_suggested"),
    [
        ("plan.yml", "plan.yaml", True),
        ("runs/nucleii/version_0", "runs/nuclei/version_0", True),
        ("cat.png", "rat.png", False),
        ("imgs/cat.png", "images/rat.png", False),
        ("confgs/notes.yaml", "configs/nodules.yaml", False),
    ],
)
def test_only_what_is_really_similar_is_suggested(missing: str, there: str, is_suggested: bool, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    # A long folder before both makes whole paths alike, and says nothing.
    assert find_similar_path(tmp_path / missing) == (tmp_path / there if is_suggested else None)
