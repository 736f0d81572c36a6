"""Which names settings may give: those that the documentation offers, and none that would run something else."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from jsonargparse._common import ImportDenied, check_import_path

from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import KNOWN, explain_refusal, restrict_imports

PAGES = [
    Path("README.md"),
    *Path("docs").glob("*.md"),
    *Path("configs").rglob("*.yaml"),
    *Path("medseg_pl").rglob("*.py"),
]
OFFERED = re.compile(r"(?:class_path:\s*|--[\w.]+\+?=)((?:[a-z]\w*\.)+[A-Z]\w*)")


def offered() -> set[str]:
    """Every class that a page, configuration or docstring gives as a setting; `mine` and `mypackage` are made up."""
    found = {name for page in PAGES for name in OFFERED.findall(page.read_text(encoding="utf-8"))}
    return {name for name in found if not name.startswith(("mine.", "mypackage."))}


def test_what_is_offered_is_allowed() -> None:
    names = offered()
    assert {"medseg_pl.training.checkpoints.LastCheckpoint", "torch.optim.AdamW"} <= names
    with restrict_imports():
        for name in {*names, "lightning.pytorch.cli.ReduceLROnPlateau"}:
            check_import_path(name)


@pytest.mark.parametrize(
    "name",
    [
        "lightning.pytorch.cli.LightningCLI",
        "medseg_pl.training.checkpoints.checkpoint_io.shutil.rmtree",
        "medseg_pl.training.checkpoints.resume_point.forget_complete",
        "medseg_pl.io.folders.os.open",
        "segmentation_models_pytorch.from_pretrained",
        "torch.load",
    ],
)
def test_what_lies_beside_it_is_not(name: str) -> None:
    with restrict_imports(), pytest.raises(ImportDenied, match="is not allowed"):
        check_import_path(name)


def test_each_known_name_is_there() -> None:
    for name in KNOWN:
        module, _, last = name.rpartition(".")
        parent = importlib.import_module(module) if module else None
        assert (parent is not None and hasattr(parent, last)) or importlib.import_module(name), name


def test_a_refusal_says_where_the_class_is_named() -> None:
    places = {"mine.Loss": " in a.yaml", "model.loss": " on the command line"}
    text = "Parser key \"model.loss\": Importing '{}' is not allowed, denied by the '*' entry"
    said = explain_refusal(text.format("mine.Loss"), lambda name: places.get(name, ""))
    assert said is not None and said.startswith(
        "The setting model.loss in a.yaml names mine.Loss, which would run code"
    )
    said = explain_refusal(text.format("os.system"), lambda name: places.get(name, ""))
    assert said is not None and said.startswith("The setting model.loss on the command line names os.system, which is")
    said = explain_refusal("Importing 'mine.Loss' is not allowed")
    assert said is not None and said.startswith("The settings name mine.Loss, which would run code of mine; nothing")
    assert explain_refusal("something else") is None


def test_a_plug_in_that_python_cannot_find_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(SettingError, match=r"finds no mylosses\. Install it\."),
        restrict_imports(["mylosses.a"]),
    ):
        pass
    (tmp_path / "mylosses.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(SettingError, match=r"put PYTHONPATH=\. before the command"), restrict_imports(["mylosses"]):
        pass
    monkeypatch.syspath_prepend(str(tmp_path))
    with restrict_imports(["mylosses"]):
        assert "mylosses" not in sys.modules
