"""The key to hashed names, kept in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.pseudonyms import Pseudonyms


def test_names_are_hashed_with_a_key_of_the_run() -> None:
    one, other = Pseudonyms.new(), Pseudonyms.new()
    assert one.pseudonym("case", "a") == one.pseudonym("case", "a")
    assert len({one.pseudonym("case", "a"), one.pseudonym("group", "a"), other.pseudonym("case", "a")}) == 3


def test_a_record_is_read_back_and_a_damaged_one_named(tmp_path: Path) -> None:
    assert Pseudonyms.read(tmp_path) is None
    record = Pseudonyms.new().with_run("abc")
    record.write(tmp_path)
    assert Pseudonyms.read(tmp_path) == record
    (tmp_path / "dashboard.json").write_text('{"key": "zz", "wandb_run_id": null}')
    with pytest.raises(UnreadableFileError, match=r"dashboard\.json is damaged"):
        Pseudonyms.read(tmp_path)
