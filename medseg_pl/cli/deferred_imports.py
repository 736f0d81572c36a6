"""Stand-ins for packages that other libraries import and a run seldom needs.

Lightning imports torchmetrics for two classes, but that package imports every metric and `scipy.signal`: a second. timm
imports wandb, where it is installed, for a function that nobody calls: half a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar


class DeferredPackage(ModuleType):
    """A package whose `__init__` runs when a name is used that `sources` does not have.

    Its modules can be imported before. `importlib.util.LazyLoader` would run it for its `__file__` already, which
    `inspect` reads of every imported module.
    """

    sources: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Names that are known without `__init__`, each with the modules to import; the last one has it."""

    def __getattr__(self, name: str) -> Any:
        if name in self.sources:
            value = [getattr(importlib.import_module(module), name, None) for module in self.sources[name]][-1]
            setattr(self, name, value)
            return value
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"{self.__name__} has no {name} yet")
        self.__class__ = ModuleType  # type: ignore[assignment]  # an ordinary package from here on
        assert self.__spec__ is not None and self.__spec__.loader is not None, "found by its specification"
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class _Torchmetrics(DeferredPackage):
    sources: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "__version__": ("torchmetrics.__about__",),
        # utilities first: metric and utilities import each other.
        "Metric": ("torchmetrics.utilities", "torchmetrics.metric"),
        "MetricCollection": ("torchmetrics.utilities", "torchmetrics.collections"),
    }
    _logger = logging.getLogger("torchmetrics")


_DEFERRED: Mapping[str, type[DeferredPackage]] = {"torchmetrics": _Torchmetrics, "wandb": DeferredPackage}


def defer_imports() -> None:
    """Run torchmetrics and wandb at their first use, unless they are imported already."""
    for name, kind in _DEFERRED.items():
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            sys.modules[name].__class__ = kind
