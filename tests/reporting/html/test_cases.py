"""What cases are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.reporting.html.cases import choose_names


def test_the_key_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    names = choose_names(tmp_path, plain=False)
    assert names.kept and names.case("a") == choose_names(tmp_path, plain=False).case("a") != "a"
    assert names.case("a") != names.group("a")
    assert (tmp_path / "dashboard.json").stat().st_mode & 0o077 == 0


def test_plain_names_need_no_key(tmp_path: Path) -> None:
    names = choose_names(tmp_path, plain=True)
    assert (names.case("a"), names.group("b")) == ("a", "b")
    assert not list(tmp_path.iterdir())


def test_where_the_key_cannot_be_kept_the_names_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Pseudonyms, folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Pseudonyms, "write", refuse)
    names = choose_names(tmp_path, plain=False)
    assert not names.kept and names.case("a") != "a"
