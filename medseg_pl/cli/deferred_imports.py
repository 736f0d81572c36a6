"""Stand-ins for modules that other libraries import and a run seldom needs.

Lightning imports torchmetrics for two classes, but that package imports every metric, `scipy.signal` and matplotlib: a
second. timm imports wandb, where it is installed, for a function that nobody calls. albumentations imports
`scipy.special` for one transform, which takes half of what SciPy takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

_RUNNING = threading.RLock()


class DeferredModule(ModuleType):
    """A module that runs at the first use of a missing name.

    Names in `sources` do not run it. Modules below a package can be imported before. `importlib.util.LazyLoader` would
    run it for its `__file__` already, which `inspect` reads of every imported module.
    """

    sources: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    """Names that are known before, with what makes their values."""

    def __getattr__(self, name: str) -> Any:
        if name in self.sources:
            value = self.sources[name]()
            setattr(self, name, value)
            return value
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"{self.__name__} has no {name} yet")
        with _RUNNING:  # another thread waits until the module has run
            if type(self) is not ModuleType:
                if "_is_running" in vars(self):
                    raise AttributeError(f"{self.__name__} has no {name} yet")
                self._is_running = True
                assert self.__spec__ is not None and self.__spec__.loader is not None, "found by its specification"
                self.__spec__.loader.exec_module(self)
                del self._is_running
                self.__class__ = ModuleType  # type: ignore[assignment]  # an ordinary module from here on
        return getattr(self, name)


def _import_metric(module: str, name: str) -> Any:
    importlib.import_module("torchmetrics.utilities")  # first: metric and utilities import each other
    return getattr(importlib.import_module(module), name)


def _plot(*arguments: Any, **settings: Any) -> Any:
    """Plot as `torchmetrics.utilities.plot` does, which takes the place of its stand-in."""
    plots = importlib.import_module("torchmetrics.utilities.plot")
    if plots.plot_single_or_multi_val is _plot:
        _ = plots.plot_curve  # a name that the stand-in does not have: runs the module
    return plots.plot_single_or_multi_val(*arguments, **settings)


class _Torchmetrics(DeferredModule):
    sources: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "__version__": lambda: importlib.import_module("torchmetrics.__about__").__version__,
        "_logger": lambda: logging.getLogger("torchmetrics"),
        "Metric": lambda: _import_metric("torchmetrics.metric", "Metric"),
        "MetricCollection": lambda: _import_metric("torchmetrics.collections", "MetricCollection"),
    }


class _Plots(DeferredModule):
    # The types of figures and axes stand in annotations only.
    sources: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "_AX_TYPE": lambda: Any,
        "_PLOT_OUT_TYPE": lambda: Any,
        "plot_single_or_multi_val": lambda: _plot,
    }


_DEFERRED: Mapping[str, type[DeferredModule]] = {
    "torchmetrics": _Torchmetrics,
    "torchmetrics.utilities.plot": _Plots,
    "scipy.special": DeferredModule,
    "wandb": DeferredModule,
}


def defer_imports() -> None:
    """Defer the modules of `_DEFERRED` to their first use, unless imported."""
    for name, kind in _DEFERRED.items():
        spec = None if name in sys.modules else _find_spec(name)
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            sys.modules[name].__class__ = kind


def _find_spec(name: str) -> ModuleSpec | None:
    """Find a module without importing what it lies in."""
    package, *inner = name.split(".")
    spec = importlib.util.find_spec(package)
    if not inner or spec is None or spec.origin is None:
        return spec
    place = Path(spec.origin).parent.joinpath(*inner)
    if not place.is_dir():
        return importlib.util.spec_from_file_location(name, place.with_suffix(".py"))
    folders = [str(place)]
    return importlib.util.spec_from_file_location(name, place / "__init__.py", submodule_search_locations=folders)
