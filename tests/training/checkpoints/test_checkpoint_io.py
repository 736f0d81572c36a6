"""Saving: a whole file or the one from before, whatever goes wrong. Loading: nothing that is damaged."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError, UnwritableFileError
from medseg_pl.training.checkpoints import DurableCheckpointIO, checkpoint_io


def state(step: int, numbers: int = 256) -> dict[str, Any]:
    return {"global_step": step, "weights": torch.full((numbers,), float(step)), "names": ["a", "b"]}


def saved(folder: Path, *steps: int) -> Path:
    checkpoint_io = DurableCheckpointIO()
    for step in steps:
        checkpoint_io.save_checkpoint(state(step), folder / "last.ckpt")
    return folder / "last.ckpt"


def step_of(path: Path) -> int:
    loaded = DurableCheckpointIO().load_checkpoint(path)
    assert (loaded["weights"] == loaded["global_step"]).all()
    return int(loaded["global_step"])


def damage(path: Path, at: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0xFF
    path.write_bytes(content)


def test_what_is_saved_loads_and_the_one_before_is_kept(tmp_path: Path) -> None:
    last = saved(tmp_path / "checkpoints", 1, 2, 3)
    assert step_of(last) == 3
    assert step_of(last.with_name("last.previous.ckpt")) == 2
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]


def test_only_the_file_that_a_run_goes_on_from_is_kept_twice(tmp_path: Path) -> None:
    for step in (1, 2):
        DurableCheckpointIO().save_checkpoint(state(step), tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_a_damaged_file_gives_way_to_the_one_before_and_both_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = saved(tmp_path, 1, 2)
    damage(last)
    assert step_of(last) == 1
    assert str(last) in caplog.text and str(tmp_path / "last.previous.ckpt") in caplog.text
    damage(tmp_path / "last.previous.ckpt")
    with pytest.raises(UnreadableFileError, match="damaged"):
        step_of(last)


def test_a_damaged_file_never_takes_the_place_of_the_good_one_before(tmp_path: Path) -> None:
    last = saved(tmp_path, 1, 2)
    damage(last)
    saved(tmp_path, 3)
    assert step_of(last) == 3
    assert step_of(tmp_path / "last.previous.ckpt") == 1


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Each byte in turn, all its bits: the file is refused, or the byte was one that says nothing, such as a date."""
    path = tmp_path / "best.ckpt"
    DurableCheckpointIO().save_checkpoint(state(7, numbers=16), path)
    whole, refused = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            loaded = DurableCheckpointIO().load_checkpoint(path)
        except UnreadableFileError:
            refused += 1
        else:
            assert loaded["global_step"] == 7 and (loaded["weights"] == 7).all() and loaded["names"] == ["a", "b"]
    assert refused > 100


@pytest.mark.parametrize("member", range(3))
def test_a_member_that_is_called_a_folder_is_refused(tmp_path: Path, member: int) -> None:
    """`torch.load` would leave its tensor as the memory was."""
    path = tmp_path / "best.ckpt"
    DurableCheckpointIO().save_checkpoint(state(7, numbers=16), path)
    whole, at = path.read_bytes(), -1
    for _ in range(member + 1):
        at = whole.index(b"PK\x01\x02", at + 1)
    attributes = at + 38
    path.write_bytes(whole[:attributes] + b"\x10" + whole[attributes + 1 :])
    with pytest.raises(UnreadableFileError, match="damaged"):
        DurableCheckpointIO().load_checkpoint(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    last = saved(tmp_path, 1)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(UnreadableFileError, match="damaged"):
        step_of(last)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


@pytest.mark.parametrize("weights_only", [True, False, None])
def test_code_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_only: bool | None) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.ckpt")
    with pytest.raises(UnreadableFileError):
        DurableCheckpointIO().load_checkpoint("evil.ckpt", weights_only=weights_only)
    with pytest.raises(SettingError, match="is a URL"):
        DurableCheckpointIO().load_checkpoint("http://127.0.0.1:9/evil.ckpt", weights_only=weights_only)
    assert not Path("canary").exists()


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="There is no checkpoint"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


def test_what_killed_runs_left_is_removed_at_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".writing-0123-last.ckpt").write_bytes(b"half")
    saved(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_removing_leaves_nothing_and_minds_no_missing_file(tmp_path: Path) -> None:
    last = saved(tmp_path, 1)
    for _ in range(2):
        DurableCheckpointIO().remove_checkpoint(last)
        assert not list(tmp_path.iterdir())


def test_without_hard_links_the_one_before_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    last = saved(tmp_path, 1, 2)
    assert step_of(last) == 2
    assert step_of(tmp_path / "last.previous.ckpt") == 1


def refused(last: Path, step: int, numbers: int = 256) -> str:
    with pytest.raises(UnwritableFileError) as raised:
        DurableCheckpointIO().save_checkpoint(state(step, numbers), last)
    assert raised.value.exit_code == 1
    return str(raised.value)


def test_a_full_disk_is_a_sentence_and_the_old_file_stays(small_disk: Path) -> None:
    last = saved(small_disk, 1, 2)
    message = refused(last, 3, numbers=2_000_000)
    assert "No space left on device" in message and "stays" in message and "Free some space" in message
    assert step_of(last) == 2
    assert sorted(path.name for path in small_disk.iterdir()) == ["last.ckpt", "last.previous.ckpt"]
    assert "There is none from before" in refused(small_disk / "best.ckpt", 3, numbers=2_000_000)


def test_a_read_only_folder_is_a_sentence_and_the_old_file_stays(small_disk: Path) -> None:
    last = saved(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in refused(last, 2)
    assert step_of(last) == 1


@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_an_error_of_the_disk_is_a_sentence_and_the_old_file_stays(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = saved(tmp_path, 1)

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        if call == "fsync":
            broken.setattr(os, "fsync", fail)
        elif call == "replace":
            broken.setattr(Path, "replace", fail)
        else:
            broken.setattr(checkpoint_io.torch, "save", fail)
        assert "Input/output error" in refused(last, 2)
    assert step_of(last) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_does_not_read_back_is_not_given_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = saved(tmp_path, 1)
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint_io, "sync", lambda path: damage(path) if path.is_file() else None)
        assert "cannot be read back" in refused(last, 2)
    assert step_of(last) == 1


def test_what_is_wrong_with_the_state_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError)):
        DurableCheckpointIO().save_checkpoint({"generator": (n for n in ())}, tmp_path / "last.ckpt")
    with pytest.raises(TypeError, match="storage_options"):
        DurableCheckpointIO().save_checkpoint(state(1), tmp_path / "last.ckpt", storage_options={})
    assert not list(tmp_path.iterdir())
