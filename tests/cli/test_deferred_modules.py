"""Stand-ins of a small package, in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from medseg_pl.cli import deferred_imports
from medseg_pl.cli.deferred_imports import DeferredModule, defer_imports


class WithSources(DeferredModule):
    sources = {"known": lambda: [7]}  # noqa: RUF012


PACKAGE = """
import late_package
before = hasattr(late_package, "after")
after = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its stand-in; neither it nor its modules have run."""
    (tmp_path / "late_package" / "inner").mkdir(parents=True)
    (tmp_path / "late_package" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "late_package" / "inner" / "__init__.py").write_text("value = 5")
    (tmp_path / "late_package" / "plain.py").write_text("value = 6")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("late_package", "late_package.inner", "late_package.plain", "no_such_package")
    kinds = dict.fromkeys(names, DeferredModule) | {"late_package": WithSources}
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(deferred_imports, "_DEFERRED", kinds)
    defer_imports()
    assert "no_such_package" not in sys.modules
    return sys.modules["late_package"]


def test_what_is_known_before_runs_nothing(package: ModuleType) -> None:
    assert package.known == [7]
    assert package.known is package.known
    assert not hasattr(package, "__wrapped__")  # as inspect asks of every module
    assert type(package) is WithSources


def test_any_other_name_runs_the_module(package: ModuleType) -> None:
    assert package.after == 3
    assert package.before is False  # a module that looks at itself does not run twice
    assert type(package) is ModuleType
    assert not hasattr(package, "nothing")


@pytest.mark.usefixtures("package")
def test_modules_in_a_package_have_stand_ins_of_their_own() -> None:
    for name, value in (("late_package.inner", 5), ("late_package.plain", 6)):
        module = sys.modules[name]
        assert type(module) is DeferredModule
        assert (module.value, type(module)) == (value, ModuleType)
    assert type(sys.modules["late_package"]) is WithSources


def test_what_is_imported_already_stays(package: ModuleType) -> None:
    assert package.after == 3
    defer_imports()
    assert sys.modules["late_package"] is package and type(package) is ModuleType
