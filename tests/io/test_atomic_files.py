"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg_pl.core.errors import OutputExistsError
from medseg_pl.io.atomic_files import require_empty, write_atomically, write_folder_atomically, write_text


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class TestWholeFile:
    def test_nothing_is_visible_before_the_block_ends(self, tmp_path: Path) -> None:
        target = tmp_path / "scores.nii.gz"
        with write_atomically(target) as temporary:
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
            with write_atomically(target, replace=True) as temporary:
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
            f"{target} exists already and is not overwritten. Choose another name, such as scores_2.csv, or "
            "move it away."
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
        with write_folder_atomically(target) as temporary:
            (temporary / "a.txt").write_text("whole")
            assert temporary.parent == (target if there else target.parent)  # which may be a mount
            assert not (target / "a.txt").exists()
        assert (target / "a.txt").read_text() == "whole"
        assert names(target.parent) == ["model"]

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        def write_half() -> None:
            with write_folder_atomically(tmp_path / "model") as temporary:
                (temporary / "a.txt").write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        assert names(tmp_path) == []

    def test_what_is_there_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("old")
        with pytest.raises(OutputExistsError), write_folder_atomically(tmp_path):
            pass
        assert names(tmp_path) == ["a.txt"]


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "µm\n±\n")
    assert (tmp_path / "notes.txt").read_bytes() == b"\xc2\xb5m\n\xc2\xb1\n"


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
