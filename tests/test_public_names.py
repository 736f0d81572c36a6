"""The package's public names: each is there, none is imported before its use, and settings may name them."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from torch import nn

import medseg_pl
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.training.recording import describe_arguments


def test_every_public_name_is_listed_and_is_its_class() -> None:
    assert set(medseg_pl.CLASSES) <= set(dir(medseg_pl))
    for name in medseg_pl.CLASSES:
        value = getattr(medseg_pl, name)
        assert inspect.isclass(value)
        assert value.__name__ == name
        assert value.__module__.startswith(f"medseg_pl.{medseg_pl.CLASSES[name]}")
        assert len((value.__doc__ or "").split("\n")[0].split()) in range(1, 13), f"{name}: a first line is short"


def test_type_checkers_see_the_same_names() -> None:
    stub = Path(medseg_pl.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    modules = {alias.asname: str(node.module) for node in imports for alias in node.names}
    assert modules == {name: f"medseg_pl.{module}" for name, module in medseg_pl.CLASSES.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = medseg_pl.Segmentor  # type: ignore[attr-defined]


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, medseg_pl; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "lightning", "numpy", "jsonargparse"}.isdisjoint(done.stdout.split())


def test_settings_name_a_class_by_its_public_name() -> None:
    described = describe_arguments({"loss": medseg_pl.DiceCELoss()}, "model")
    assert described == {"loss": {"class_path": "medseg_pl.DiceCELoss", "init_args": {}}}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=nn.Module)
    with restrict_imports():
        parsed = parser.parse_args(["--loss=medseg_pl.DiceCELoss"])
        assert isinstance(parser.instantiate(parsed).loss, medseg_pl.DiceCELoss)
