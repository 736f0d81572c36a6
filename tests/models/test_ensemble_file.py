"""An ensemble names checkpoints below its folder, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main
from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError
from medseg_pl.models.ensemble_file import (
    expand_ensembles,
    find_ensemble,
    read_ensemble,
    refuse_ensemble,
    write_ensemble,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files that could be checkpoints."""
    for fold in (0, 1):
        (tmp_path / "e" / f"fold_{fold}").mkdir(parents=True)
        (tmp_path / "e" / f"fold_{fold}" / "best.ckpt").write_bytes(b"")
    return tmp_path / "e"


def save(folder: Path, **changes: Any) -> Path:
    content = {"format": "medseg-ensemble", "version": 1, "members": ["fold_0/best.ckpt"], **changes}
    (folder / "ensemble.json").write_text(json.dumps(content))
    return folder / "ensemble.json"


def test_members_come_back_in_their_order_where_the_folder_is_now(folder: Path, tmp_path: Path) -> None:
    members = [folder / f"fold_{fold}" / "best.ckpt" for fold in (1, 0)]
    write_ensemble(folder / "ensemble.json", members)
    assert read_ensemble(folder / "ensemble.json") == members
    moved = folder.rename(tmp_path / "moved")
    assert read_ensemble(moved / "ensemble.json") == [moved / "fold_1" / "best.ckpt", moved / "fold_0" / "best.ckpt"]


def test_file_and_folder_stand_for_the_members(folder: Path) -> None:
    path = save(folder, members=["fold_0/best.ckpt", "fold_1/best.ckpt"])
    members = [str(folder / "fold_0" / "best.ckpt"), str(folder / "fold_1" / "best.ckpt")]
    assert find_ensemble(folder) == find_ensemble(str(path)) == path
    assert expand_ensembles(["a.ckpt", path]) == ["a.ckpt", *members]
    assert expand_ensembles([folder]) == members
    assert expand_ensembles([folder / "fold_0"]) == [str(folder / "fold_0")]
    (folder / "version_0").mkdir()  # the folder of an experiment means its newest run
    assert (find_ensemble(folder), find_ensemble(path)) == (None, path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"members": []}, "1 to 100 members"),
        ({"members": "fold_0/best.ckpt"}, "members"),
        ({"members": ["a.ckpt"] * 101}, "members"),
        ({"members": [3]}, "no text"),
        ({"members": ["fold_0/best.ckpt", "fold_0/best.ckpt"]}, "twice"),
        ({"members": ["../best.ckpt"]}, r"holds '\.\.'"),
        ({"members": ["/etc/passwd"]}, "empty part"),
        ({"members": ["fold_0\\best.ckpt"]}, "backslash"),
        ({"members": ["http://a/best.ckpt"]}, "empty part"),
        ({"members": ["fold_0/\x1b[2J.ckpt"]}, "cannot be printed"),
    ],
)
def test_anything_else_is_refused(folder: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason):
        read_ensemble(save(folder, **changes))


@pytest.mark.parametrize("text", ["", "[" * 5000, "[1]", '{"format": 1', "\x00" * 10, " " * (2 << 20)])
def test_damage_is_an_error_of_one_paragraph(folder: Path, text: str) -> None:
    (folder / "ensemble.json").write_text(text)
    with pytest.raises(UnreadableFileError, match="is no ensemble"):
        read_ensemble(folder / "ensemble.json")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.ckpt").write_bytes(b"")
    (folder / "link.ckpt").symlink_to(tmp_path / "outside.ckpt")
    with pytest.raises(UnreadableFileError, match="leads out of its folder"):
        read_ensemble(save(folder, members=["link.ckpt"]))
    (folder / "inner.ckpt").symlink_to(folder / "fold_0" / "best.ckpt")
    assert read_ensemble(save(folder, members=["inner.ckpt"])) == [folder / "inner.ckpt"]


def test_a_missing_member_is_named(folder: Path) -> None:
    with pytest.raises(MissingDataError, match=r"fold_7.best\.ckpt"):
        read_ensemble(save(folder, members=["fold_7/best.ckpt"]))


def test_commands_of_one_checkpoint_refuse_an_ensemble(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(folder)
    with pytest.raises(SettingError, match="takes one checkpoint"):
        refuse_ensemble(str(path), "test")
    assert main(["test", "--ckpt_path", str(path)]) == 2
    assert "takes one checkpoint" in capsys.readouterr().err
