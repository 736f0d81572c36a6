"""Addresses in settings: URLs, and names that a library looks up on a hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 60
MAX_VALUES = 100_000
"""What settings may hold: far more than any do, and far less than makes a reader run out of stack or memory."""

_PROSE = ("notes", "description")
"""Settings that a person reads, in which an address is only text."""


def is_address(text: str) -> bool:
    r"""Check whether a library that takes paths would open an address: `s3://…`, `simplecache::http://…`.

    >>> [is_address(text) for text in ("http://a/b.yaml", " S3://a", "zip::b.zip", "C:\\data", "00:12:00", "a/b")]
    [True, True, True, False, False, False]
    """
    return re.match(r"\s*[a-zA-Z][a-zA-Z0-9+.\-]+(://|::)", text) is not None


def is_hub_name(text: str) -> bool:
    """Check whether timm looks a network's name up elsewhere: on a hub, or in a folder that describes it.

    >>> [is_hub_name(text) for text in ("tu-hf-hub:timm/resnet18", "HF_HUB:a/b", "tu-local-dir:/a", "tu-resnet18")]
    [True, True, True, False]
    """
    return re.match(r"\s*(tu-|timm-)?(hf[-_]hub|local[-_]dir)\s*:", text, re.IGNORECASE) is not None


def iterate_texts(settings: Any, most: int = MAX_VALUES) -> Iterator[tuple[str, str]]:
    """Iterate over all texts among nested settings, with the names of their settings.

    Raises:
        ValueError: The settings are nested too deep, or are too many: nobody wrote them by hand.

    >>> list(iterate_texts({"a": {"b": ["x", 1]}}))
    [('a.b', 'x')]
    """
    waiting: list[tuple[str, Any, int]] = [("", settings, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > most:
            raise ValueError("its settings are nested too deep, or too many")
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping):
            waiting.extend((f"{name}.{key}".lstrip("."), item, depth + 1) for key, item in value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting.extend((name, item, depth + 1) for item in value)


def find_address(settings: Any) -> tuple[str, str] | None:
    """Find the first setting that is an address, with its value; those that are prose may hold one."""
    for name, text in iterate_texts(settings):
        if is_address(text) and name.rpartition(".")[2] not in _PROSE:
            return name, text
    return None
