"""JSON and YAML of any origin, read so that each fault is a `ValueError`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 60
_MAX_ITEMS = 10_000_000
_TOO_DEEP = "it is nested too deep"


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no JSON, or is nested deeper than can be read.
    """
    try:
        return _require_shallow(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file in UTF-8 as plain values.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no YAML, is nested deeper than can be read, or would make an object.
    """
    try:
        return _require_shallow(yaml.safe_load(path.read_text(encoding="utf-8")))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (yaml.YAMLError, KeyError, AttributeError, TypeError) as error:  # the last three: of malformed scalars
        raise ValueError(" ".join(str(error).split())) from error


def _require_shallow(content: Any) -> Any:
    """Return the content, or raise `ValueError` where a function that calls itself would run out of stack."""
    level = [content]
    for _ in range(_MAX_DEPTH):
        containers = [value for value in level if isinstance(value, dict | list)]
        if sum(map(len, containers)) > _MAX_ITEMS:  # anchors of YAML that repeat anchors
            break
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return content
    raise ValueError(_TOO_DEEP)
