"""Damage of cache entries is found, and what was verified is not read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg_pl.data.cache import case as checksums
from medseg_pl.data.cache.case import find_damage, write_checksums


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "image.npy").write_bytes(bytes(range(256)) * 20)
    (folder / "case.json").write_text("{}")
    write_checksums(folder)
    return folder


def flip(path: Path, keep_time: bool = False) -> None:
    """Change one bit."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "a flipped bit under the old time": lambda path: flip(path, keep_time=True),
    "a missing end": lambda path: os.truncate(path, path.stat().st_size // 2),
    "nothing in it": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "no file": Path.unlink,
}


def test_what_is_as_it_was_written_has_no_damage(entry: Path) -> None:
    assert find_damage(entry) is None
    assert find_damage(entry) is None


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("name", ["image.npy", "case.json"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damage_is_named(entry: Path, damage: Callable[[Path], object], name: str, verified: bool) -> None:
    if verified:
        assert find_damage(entry) is None
    damage(entry / name)
    assert find_damage(entry) == name
    assert find_damage(entry) == name


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_checksums_are_damage_too(entry: Path, damage: Callable[[Path], object]) -> None:
    damage(entry / "checksums")
    assert find_damage(entry) is not None


def test_what_was_verified_is_not_read_again(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_damage(entry) is None
    monkeypatch.setattr(checksums, "compute_checksum", lambda path: pytest.fail(f"{path} is read"))
    assert find_damage(entry) is None


def test_a_copy_is_verified_anew(entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_damage(entry) is None
    shutil.copytree(entry, tmp_path / "copy")  # with all times
    read: list[str] = []
    computed = checksums.compute_checksum
    monkeypatch.setattr(checksums, "compute_checksum", lambda path: read.append(path.name) or computed(path))
    assert find_damage(tmp_path / "copy") is None
    assert sorted(read) == ["case.json", "image.npy"]


def test_no_entry_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_damage(tmp_path / "none")


def test_a_cache_that_may_only_be_read_is_verified(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "rename", refuse)
    assert find_damage(entry) is None


def test_checksums_that_another_process_renames_are_found_again(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = checksums._verify_files

    def verified_by_another(folder: Path, *arguments: object) -> str | None:
        monkeypatch.setattr(checksums, "_verify_files", verify)
        assert find_damage(folder) is None  # the other process
        return verify(folder, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checksums, "_verify_files", verified_by_another)
    assert find_damage(entry) is None
