"""The configurations that ship with medseg, for commands that run outside a clone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_NAME = "configs"


def shipped_configs() -> Path:
    """Return the folder of the shipped configurations: in the package, or in a clone beside it."""
    package = Path(__file__).resolve().parents[1]
    return package / _NAME if (package / _NAME).is_dir() else package.parent / _NAME


def find_config(path: str | Path) -> Path:
    """Find a configuration: the file itself or, where `configs/…` is not there, the shipped one of that name.

    >>> find_config("configs/model/tiny.yaml").is_file(), find_config("mine.yaml")
    (True, PosixPath('mine.yaml'))
    """
    path = Path(path)
    if path.parts[:1] == (_NAME,) and ".." not in path.parts and not path.is_file():
        shipped = shipped_configs().joinpath(*path.parts[1:])
        return shipped if shipped.is_file() else path
    return path


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Replace each `configs/…` among raw arguments that is not there by the shipped file.

    >>> find_configs(["--config", "mine.yaml", "--trainer.max_epochs=1"])
    ['--config', 'mine.yaml', '--trainer.max_epochs=1']
    """
    found = []
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        place = f"{_NAME}/"
        found.append(f"{option}{equals}{find_config(value)}" if value.startswith(place) else argument)
    return found


def config_names() -> list[str]:
    """List what ships, as a command names it: `configs/model/tiny.yaml` …."""
    folder = shipped_configs()
    return sorted((_NAME / path.relative_to(folder)).as_posix() for path in folder.rglob("*.yaml"))
