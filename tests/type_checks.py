"""Annotations of medseg_pl, checked at each call while the tests run."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

# An int may stand for a float (PEP 484's numeric tower), as it may for mypy.
_check_plain: Callable[[Any], Any] = beartype(
    conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError)
)
_check_shapes = jaxtyping.jaxtyped


def install() -> None:
    """Check what is imported of medseg_pl from here on; an array of another shape than annotated is an error."""
    install_import_hook("medseg_pl", _CHECKER)
    jaxtyping.jaxtyped = choose_checker


def choose_checker(*, typechecker: Any) -> Callable[[Any], Any]:
    """Check classes and functions of arrays as jaxtyping does, and other functions by beartype alone.

    jaxtyping binds the arguments of every call and checks them twice, which took a fifth of the tests' time.
    """

    def decorate(checked: Any) -> Any:
        if not isinstance(checked, types.FunctionType):
            return _check_shapes(checked, typechecker=typechecker)
        hints = {name: resolve_hint(hint, checked.__globals__) for name, hint in checked.__annotations__.items()}
        if any(holds_arrays(hint) for hint in hints.values()):
            return _check_shapes(checked, typechecker=typechecker)
        # A copy: jsonargparse reads the annotations of the original, and they must stay as they are written.
        copy = types.FunctionType(
            checked.__code__, checked.__globals__, checked.__name__, checked.__defaults__, checked.__closure__
        )
        copy.__kwdefaults__, copy.__annotations__ = checked.__kwdefaults__, hints
        copy.__module__, copy.__qualname__ = checked.__module__, checked.__qualname__
        return update_wrapper(_check_plain(copy), checked)

    return decorate


def resolve_hint(hint: Any, scope: dict[str, Any]) -> Any:
    """Evaluate an annotation; what is imported for type checkers alone, or not defined yet, may be anything."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, scope, vars(builtins))
    except Exception:  # as jaxtyping does
        return Any


def holds_arrays(hint: Any) -> bool:
    """Tell whether an annotation states the shape of an array somewhere."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and issubclass(hint, AbstractArray):
        return True
    parts = hint if isinstance(hint, list) else get_args(hint)  # Callable[[...], ...] holds a list
    return any(holds_arrays(part) for part in parts)
