"""Fields of annotation files, checked one by one: a stranger wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, MaskValueError
from medseg_pl.io import size_limits


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}. Export the annotations again.") from None


def require_list(record: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """Return a field that must be a list."""
    values: list[Any] = _require(record, name, list, where)
    return values


def require_text(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field that must be a text that is not empty."""
    text: str = _require(record, name, str, where)
    return text


def require_size(record: Mapping[str, Any], names: tuple[str, str], where: str) -> tuple[int, int]:
    """Return `(height, width)` from two fields."""
    height, width = (_whole(record.get(name), name, where) for name in names)
    if height * width > size_limits.MAX_PIXELS:
        raise DataError(f"{where} claims {height} x {width} pixels, too many for an image. Correct it.")
    return height, width


def read_points(values: Iterable[Any], where: str) -> NDArray[np.float64]:
    """Return corners `(x, y)` from numbers or pairs of numbers.

    Raises:
        MaskValueError: They are no finite pairs, or fewer than three.
    """
    try:
        points = np.asarray(list(values), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise MaskValueError(f"{where} has corners that are no pairs of numbers. Draw the outline again.") from None
    if len(points) < 3 or not np.isfinite(points).all():
        raise MaskValueError(f"{where} has {len(points)} corners; expected at least 3. Draw or delete the outline.")
    return points


def refuse_shape(shape: str, where: str, readable: Sequence[str]) -> MaskValueError:
    """Return the error for an annotation without an area."""
    return MaskValueError(
        f"{where} is a {shape}, which covers no pixels; expected one of {', '.join(readable)}. Draw its outline, or "
        "delete it."
    )


def _require(record: Any, name: str, kind: type, where: str) -> Any:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, kind) or value == "":
        raise DataError(f"{where} has no field {name!r} with a {kind.__name__}. Export the annotations again.")
    return value


def _whole(value: Any, name: str, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise DataError(f"{where}: {name} is {value!r}; expected a number of pixels. Correct it.")
    return number
