"""What the benchmarks use of the package is there, those that take minutes included."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted(Path("benchmarks").glob("*.py"))


def find_missing(source: str) -> list[str]:
    """Names that a script imports from the package, or takes from its modules, and that are not there."""
    tree = ast.parse(source)
    modules: dict[str, ModuleType] = {}
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "medseg_pl":
            for alias in node.names:
                parent = importlib.import_module(str(node.module))
                try:
                    found = getattr(parent, alias.name, None) or importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    missing.append(f"{node.module}.{alias.name}")
                    continue
                if isinstance(found, ModuleType):
                    modules[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not hasattr(module, node.attr):
                missing.append(f"{module.__name__}.{node.attr}")
    return missing


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_uses_is_there(script: Path) -> None:
    assert find_missing(script.read_text()) == []


def test_what_is_not_there_is_found() -> None:
    source = "from medseg_pl.metrics.functional import surface\nfrom medseg_pl.core import lost\nsurface.gone(1)\n"
    assert sorted(find_missing(source)) == ["medseg_pl.core.lost", "medseg_pl.metrics.functional.surface.gone"]
