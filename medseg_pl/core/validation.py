"""Checks of settings: least values, names that become files, addresses; and objects that record their settings."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from medseg_pl.core.errors import SettingError, replace_controls

_Made = TypeVar("_Made")


class Recorded:
    """Keeps constructor arguments in `made_with`, so that checkpoints can store them.

    >>> class Circle(Recorded):
    ...     def __init__(self, radius: float, unit: str = "mm") -> None: ...
    >>> Circle(2.0).made_with
    {'radius': 2.0}
    """

    made_with: dict[str, Any]

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """Record the arguments of the constructor.

        A copy is made without any, and then takes over the attributes.
        """
        made: _Made = object.__new__(cls)
        names = list(inspect.signature(cls.__init__).parameters)[1:]
        # Not by assignment: a torch module takes none before its own constructor has run.
        object.__setattr__(made, "made_with", {**dict(zip(names, args, strict=False)), **kwargs})
        return made


def require_at_least(part: str, **settings: tuple[int, int]) -> None:
    """Check that each setting of a part reaches its minimum.

    Args:
        part: The part of the configuration, such as `data`.
        **settings: Value and minimum, by name.

    Raises:
        SettingError: A value is lower than its minimum.

    >>> require_at_least("data", batch_size=(0, 1))
    Traceback (most recent call last):
    medseg_pl.core.errors.SettingError: data.batch_size must be at least 1; got 0.
    """
    for name, (value, least) in settings.items():
        if value < least:
            raise SettingError(f"{part}.{name} must be at least {least}; got {value}.")


def find_pattern_fault(pattern: str) -> str | None:
    r"""Explain why a pattern finds no patient in names, and the remedy.

    Returns:
        `None` where it can find one.

    >>> find_pattern_fault(r"case\d+")
    "has no parentheses around the patient. Write '(case\\d+)'"
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    # Without parentheses nobody can tell what was meant to be the patient: `scan` would find one for all.
    return None if compiled.groups else f"has no parentheses around the patient. Write {shlex.quote(f'({pattern})')}"


MAX_LENGTH = 120
"""Characters of a name: with a suffix it fits every file system."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

_OWN_FOLDER = ".medseg"

# What a prediction writes beside the folders of labels
_FOLDERS_OF_OUTPUTS = ("cases", "overlays", "probabilities", "review")


def find_name_fault(name: str) -> str | None:
    """Explain why a name is no valid part of a path.

    Returns:
        The reason on any system; `None` for a valid name.

    >>> find_name_fault("left kidney"), find_name_fault("../x"), find_name_fault("a:b")
    (None, "holds '/'", "holds ':'")
    """
    if (found := re.search(r'[/\\:*?"<>|]', name)) is not None:
        return f"holds {found.group()!r}"
    if _RESERVED.fullmatch(name):
        return "is the name of a device on Windows"
    if name.lower() in _FOLDERS_OF_OUTPUTS:
        return "is a folder that predictions write other files to"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "begins or ends with a dot or a space"
    return _find_part_fault(name)


def find_path_fault(name: str) -> str | None:
    """Explain why a name such as `patient3/ct` is no safe relative path.

    Returns:
        What leads out of its folder or is unprintable; `None` for a safe path.

    >>> find_path_fault("patient3/ct"), find_path_fault("a/../../b"), find_path_fault("/etc")
    (None, "holds '..'", "holds an empty part beside '/'")
    """
    for part in name.split("/"):
        if part in ("", ".", "..", _OWN_FOLDER):
            return f"holds {part!r}" if part else "holds an empty part beside '/'"
        if "\\" in part:
            return "holds a backslash"
        if (fault := _find_part_fault(part, most=240)) is not None:
            return fault
    return None


def _find_part_fault(name: str, most: int = MAX_LENGTH) -> str | None:
    if not name:
        return "is empty"
    if replace_controls(name) != name:
        return "holds a character that cannot be printed"
    return f"has more than {most} characters" if len(name) > most else None


MAX_DEPTH = 60

MAX_VALUES = 100_000
"""What settings may hold: far more than any do, and far less than makes a reader run out of stack or memory."""

# Settings that a person reads, in which an address is only text
_PROSE = ("notes", "description")


def is_address(text: str) -> bool:
    r"""Tell whether a library that takes paths would open an address.

    Such libraries open `s3://…` and `simplecache::http://…`.

    >>> [is_address(text) for text in ("http://a/b.yaml", " S3://a", "zip::b.zip", "C:\\data", "00:12:00", "a/b")]
    [True, True, True, False, False, False]
    """
    return re.match(r"\s*[a-zA-Z][a-zA-Z0-9+.\-]+(://|::)", text) is not None


def is_hub_name(text: str) -> bool:
    """Tell whether timm would load a network by this name from elsewhere.

    It would look in a hub, or in a folder that describes the network.

    >>> [is_hub_name(text) for text in ("tu-hf-hub:timm/resnet18", "HF_HUB:a/b", "tu-local-dir:/a", "tu-resnet18")]
    [True, True, True, False]
    """
    return re.match(r"\s*(tu-|timm-)?(hf[-_]hub|local[-_]dir)\s*:", text, re.IGNORECASE) is not None


def iterate_texts(settings: Any, most: int = MAX_VALUES) -> Iterator[tuple[str, str]]:
    """Iterate over all texts in nested settings, with the settings' names.

    Args:
        settings: Nested mappings and sequences.
        most: The largest number of values.

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
    """Find the first setting whose value is an address.

    Settings that hold prose are skipped, since it may mention an address.
    """
    for name, text in iterate_texts(settings):
        if is_address(text) and name.rpartition(".")[2] not in _PROSE:
            return name, text
    return None
