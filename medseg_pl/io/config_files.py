"""JSON and YAML of any origin, each fault a ValueError; configurations that ship; YAML with reasons as comments."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medseg_pl.core.errors import UnreadableFileError, make_printable
from medseg_pl.io.paths import is_similar, suggest_similar

_MAX_DEPTH = 60
_MAX_ITEMS = 10_000_000
_TOO_DEEP = "it is nested too deep"


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no JSON, or is nested deeper than can be read.
    """
    try:
        return _require_shallow(json.loads(path.read_text(encoding="utf-8-sig")))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def read_mapping(path: Path) -> dict[str, Any] | None:
    """Read the named values of a JSON file, such as those that a run folder holds.

    Returns:
        `None` where there is no file.

    Raises:
        UnreadableFileError: It is damaged, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        return require_mapping(path, read_json(path))
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not valid JSON: {error}. Restore it, or move it away.") from None


def require_mapping(path: Path, content: Any) -> dict[str, Any]:
    """Return what a file holds, or raise `UnreadableFileError` unless it is named values."""
    if not isinstance(content, dict):
        raise UnreadableFileError(f"{path} holds a {type(content).__name__}; expected named values.")
    return content


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
    """Return content that is not nested too deep."""
    # A function that calls itself would run out of stack.
    level = [content]
    for _ in range(_MAX_DEPTH):
        containers = [value for value in level if isinstance(value, dict | list)]
        if sum(map(len, containers)) > _MAX_ITEMS:  # anchors of YAML that repeat anchors
            break
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return content
    raise ValueError(_TOO_DEEP)


_NAME = "configs"


def list_differences(before: Any, now: Any, name: str = "") -> list[str]:
    """List the settings that differ, except for new ones.

    >>> list_differences({"data": {"folds": 5}}, {"data": {"folds": 4, "new": True}})
    ['data.folds']
    """
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [name]
    return [
        difference
        for key in before
        for difference in list_differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    ]


def find_shipped_configs() -> Path:
    """Find the shipped configurations: in the package, or in a clone."""
    package = Path(__file__).resolve().parents[1]
    return package / _NAME if (package / _NAME).is_dir() else package.parent / _NAME


def find_config(path: str | Path) -> Path:
    """Find a configuration, which may be a shipped one.

    Args:
        path: A file, or the name `configs/…` of a shipped configuration.

    >>> find_config("configs/model/tiny.yaml").is_file(), find_config("mine.yaml")
    (True, PosixPath('mine.yaml'))
    """
    path = Path(path)
    if path.parts[:1] == (_NAME,) and ".." not in path.parts and not path.is_file():
        shipped = find_shipped_configs().joinpath(*path.parts[1:])
        return shipped if shipped.is_file() else path
    return path


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Replace each missing `configs/…` among raw arguments by the shipped file.

    >>> find_configs(["--config", "mine.yaml", "--trainer.max_epochs=1"])
    ['--config', 'mine.yaml', '--trainer.max_epochs=1']
    """
    found = []
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        place = f"{_NAME}/"
        found.append(f"{option}{equals}{find_config(value)}" if value.startswith(place) else argument)
    return found


def describe_missing_config(path: str | Path) -> str:
    """Say that there is no such configuration, and which one may be meant."""
    alike = difflib.get_close_matches(Path(path).as_posix(), list_config_names(), n=9)
    near = next((name for name in alike if is_similar(Path(path), Path(name))), None)
    shipped = f"Did you mean {near}?" if near else f"The shipped ones are in {find_shipped_configs()}."
    hint = suggest_similar(Path(path), Path.is_file).strip() or shipped
    return f"There is no configuration {shlex.quote(make_printable(str(path)[:60]))}. {hint}"


def list_config_names() -> list[str]:
    """List what ships, as a command names it: `configs/model/tiny.yaml` …."""
    folder = find_shipped_configs()
    return sorted((_NAME / path.relative_to(folder)).as_posix() for path in folder.rglob("*.yaml"))


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
