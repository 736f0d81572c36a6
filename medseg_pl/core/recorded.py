"""Objects that know the arguments they were made with."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

_Made = TypeVar("_Made")


class Recorded:
    """Keeps constructor arguments by name in `made_with`, so that a checkpoint can describe the object.

    >>> class Circle(Recorded):
    ...     def __init__(self, radius: float, unit: str = "mm") -> None: ...
    >>> Circle(2.0).made_with
    {'radius': 2.0}
    """

    made_with: dict[str, Any]

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """Note the arguments; a copy is made without any, and then takes over the attributes."""
        made: _Made = object.__new__(cls)
        names = list(inspect.signature(cls.__init__).parameters)[1:]
        # Not by assignment: a torch module takes none before its own constructor has run.
        object.__setattr__(made, "made_with", {**dict(zip(names, args, strict=False)), **kwargs})
        return made
