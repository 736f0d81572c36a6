"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medseg_pl.core.errors import MissingDataError, OutputExistsError
from medseg_pl.io.atomic_files import (
    files_below,
    find_dead_links,
    require_empty,
    require_folder,
    whole_file,
    whole_folder,
    write_text,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class TestWholeFile:
    def test_nothing_is_visible_before_the_block_ends(self, tmp_path: Path) -> None:
        target = tmp_path / "scores.nii.gz"
        with whole_file(target) as temporary:
            temporary.write_bytes(b"half")
            assert not target.exists()
            assert temporary.parent == tmp_path  # the same file system: a rename is atomic there alone
            assert temporary.name.endswith("scores.nii.gz")
            assert temporary.name.startswith(".")
            temporary.write_bytes(b"whole")
        assert target.read_bytes() == b"whole"
        assert names(tmp_path) == ["scores.nii.gz"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_failure_leaves_what_was_there(self, tmp_path: Path, error: type[BaseException]) -> None:
        target = tmp_path / "scores.csv"
        target.write_text("old")

        def write_half() -> None:
            with whole_file(target, replace=True) as temporary:
                temporary.write_text("half")
                raise error

        with pytest.raises(error):
            write_half()
        assert target.read_text() == "old"
        assert names(tmp_path) == ["scores.csv"]

    def test_an_existing_file_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "scores.csv"
        target.write_text("old")
        with pytest.raises(OutputExistsError) as caught:
            write_text(target, "new")
        assert str(caught.value) == (
            f"{target} exists already and is not overwritten. Choose another output, or move it away."
        )
        assert target.read_text() == "old"
        assert names(tmp_path) == ["scores.csv"]

    def test_an_existing_file_goes_where_that_is_asked(self, tmp_path: Path) -> None:
        target = tmp_path / "scores.csv"
        target.write_text("old")
        write_text(target, "new", replace=True)
        assert target.read_text() == "new"

    def test_folders_are_made(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a" / "b" / "c.txt", "deep")
        assert (tmp_path / "a" / "b" / "c.txt").read_text() == "deep"

    def test_a_name_of_any_length_works(self, tmp_path: Path) -> None:
        target = tmp_path / ("x" * 251 + ".txt")
        write_text(target, "long")
        assert names(tmp_path) == [target.name]

    @pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")
    def test_others_may_read_it_as_the_umask_says(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write_text(tmp_path / "scores.csv", "")
            assert os.umask(0o027) == 0o027
        finally:
            os.umask(before)
        assert (tmp_path / "scores.csv").stat().st_mode & 0o777 == 0o640


class TestWholeFolder:
    @pytest.mark.parametrize("there", [True, False])
    def test_it_gets_its_name_when_the_block_ends(self, tmp_path: Path, there: bool) -> None:
        target = tmp_path / "new" / "model"
        if there:
            target.mkdir(parents=True)
        with whole_folder(target) as temporary:
            (temporary / "a.txt").write_text("whole")
            assert temporary.parent == (target if there else target.parent)  # which may be a mount
            assert not (target / "a.txt").exists()
        assert (target / "a.txt").read_text() == "whole"
        assert names(target.parent) == ["model"]

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        def write_half() -> None:
            with whole_folder(tmp_path / "model") as temporary:
                (temporary / "a.txt").write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        assert names(tmp_path) == []

    def test_what_is_there_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("old")
        with pytest.raises(OutputExistsError), whole_folder(tmp_path):
            pass
        assert names(tmp_path) == ["a.txt"]


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "µm\n±\n")
    assert (tmp_path / "notes.txt").read_bytes() == b"\xc2\xb5m\n\xc2\xb1\n"


class TestFilesBelow:
    def test_the_order_is_that_of_paths(self, tmp_path: Path) -> None:
        for name in ("a/b.png", "a.png", "a-1/c.png", "B.png", "a/b/c.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = list(files_below(tmp_path))
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
        assert [path.relative_to(root).as_posix() for path in files_below(root)] == listed
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
            list(files_below(tmp_path))


class TestRequireEmpty:
    def test_an_empty_or_absent_folder_passes(self, tmp_path: Path) -> None:
        require_empty(tmp_path)
        require_empty(tmp_path / "nothing")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("occupied", ["folder", "folder/.hidden"])
    def test_anything_else_is_refused(self, tmp_path: Path, occupied: str) -> None:
        path = tmp_path / occupied
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        folder = tmp_path / "folder"
        with pytest.raises(OutputExistsError) as caught:
            require_empty(folder)
        assert str(caught.value) == f"{folder} exists and is not empty; nothing was written. Choose another folder."


class TestRequireFolder:
    def test_a_folder_is_returned(self, tmp_path: Path) -> None:
        assert require_folder(tmp_path, "images", "Set data.source.root.") == tmp_path

    def test_what_is_missing_is_named_with_its_setting(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError) as caught:
            require_folder(tmp_path / "gone", "images", "Set data.source.root.")
        assert str(caught.value) == (
            f"Expected images in the folder {tmp_path / 'gone'}, found nothing there. Set data.source.root."
        )

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "images.zip").touch()
        with pytest.raises(MissingDataError, match="found a file there"):
            require_folder(tmp_path / "images.zip", "images", "Set data.source.root.")
