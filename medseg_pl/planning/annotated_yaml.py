"""YAML in which a value may be followed by a comment that says why it was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml


class Commented(NamedTuple):
    """A value with a comment."""

    value: Any
    comment: str


def dump_annotated_yaml(settings: Mapping[str, Any]) -> str:
    """Write nested mappings as YAML, the same text for the same settings.

    >>> print(dump_annotated_yaml({"model": {"channels": Commented(1, "gray"), "input_size": [64, 64]}}), end="")
    model:
      channels: 1  # gray
      input_size: [64, 64]

    A list of mappings takes a line for each of their values, so that each can have its comment.

    >>> print(dump_annotated_yaml({"channels": [{"low": Commented(0, "air")}, {"low": 1}]}), end="")
    channels:
      - low: 0  # air
      - low: 1
    """
    return "".join(line + "\n" for line in _format_lines(settings, ""))


def remove_comments(settings: Any) -> Any:
    """Return nested settings as plain values.

    >>> remove_comments({"channels": Commented(1, "gray")})
    {'channels': 1}
    """
    if isinstance(settings, Commented):
        return remove_comments(settings.value)
    if isinstance(settings, Mapping):
        return {key: remove_comments(value) for key, value in settings.items()}
    return [remove_comments(value) for value in settings] if isinstance(settings, list) else settings


def _format_lines(settings: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in settings.items():
        inner, comment = value if isinstance(value, Commented) else (value, "")
        if isinstance(inner, Mapping):
            yield f"{indent}{key}:" + (f"  # {comment}" if comment else "")
            yield from _format_lines(inner, indent + "  ")
        elif isinstance(inner, list) and inner and all(isinstance(item, Mapping) and item for item in inner):
            yield f"{indent}{key}:" + (f"  # {comment}" if comment else "")
            for item in inner:
                first, *others = _format_lines(item, indent + "    ")
                yield f"{indent}  - {first.lstrip()}"
                yield from others
        else:
            yield f"{indent}{key}: {_format_scalar(inner)}" + (f"  # {comment}" if comment else "")


def _format_scalar(value: Any) -> str:
    """Format a value on one line, quoted if YAML would misread it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    # PyYAML ends a bare scalar with the mark of a document's end.
    text = text.removesuffix("...\n").rstrip("\n")  # only these: a no-break space may be the value
    if text.isprintable():
        return text
    # Line breaks, of which Unicode has several, would be folded; between double quotes they are escaped.
    return yaml.safe_dump(value, default_style='"', default_flow_style=True, width=10**9).strip()
