"""What of a run's settings leaves the machine. The key to hashed names, kept in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.labels import LabelMap
from medseg_pl.io.privacy import Pseudonyms, redact_config, redact_value


@pytest.mark.parametrize("personal", ["/home/a", "a\\b", "~/x", "weights.pth", "scan.nii.gz", "../x", "file:x"])
def test_text_that_may_be_a_path_is_not_shown(personal: str) -> None:
    assert redact_value({"inner": [personal]}) == {"inner": ["…"]}


@pytest.mark.parametrize("limit", ["00:00:04:20", "02:00:00:00"])
def test_a_duration_is_no_path(limit: str) -> None:
    assert redact_config({"trainer": {"max_time": limit}}) == {"trainer": {"max_time": limit}}
    assert redact_value(f"{limit}:file") == "…"


def test_objects_are_shown_by_their_class() -> None:
    assert redact_value(LabelMap(["nucleus"], "binary")) == "LabelMap"


def test_a_configuration_loses_folders_accounts_and_what_is_not_set() -> None:
    config = {
        "seed_everything": 3,
        "trainer": {"max_epochs": 2, "max_time": None, "logger": {"entity": "someone"}, "default_root_dir": "here"},
        "model": {"pretrained": "/w.ckpt", "loss": {"class_path": "medseg_pl.DiceCELoss"}},
        "data": {"source": {"class_path": "mine.Scans", "init_args": {"group": "Smith"}}, "cache_dir": "s", "fold": 1},
        "runs": "/home/someone",
        "ckpt_path": "last",
    }
    assert redact_config(config) == {
        "seed_everything": 3,
        "model": {"loss": {"class_path": "medseg_pl.DiceCELoss"}},
        "trainer": {"max_epochs": 2},
        "data": {"fold": 1, "source": "Scans"},
    }


def test_a_configuration_without_its_sections_is_shown_as_far_as_it_goes() -> None:
    assert redact_config({"data": {"source": None}, "model": "x"}) == {"data": {}}


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
