"""An ensemble as a file: the checkpoints of its members, by their places below the file's own folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError, shorten
from medseg_pl.core.validation import find_path_fault
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.config_files import read_json
from medseg_pl.io.progress import announce_choice

ENSEMBLE = "ensemble.json"
"""The file's name in the folder of a cross-validation."""

_FORMAT = "medseg-ensemble"
_VERSION = 1
_MOST_BYTES = 1 << 20
_MOST_MEMBERS = 100


def write_ensemble(path: Path, members: Sequence[Path], *, replace: bool = False) -> None:
    """Write an ensemble of checkpoints that lie below the file's folder.

    Args:
        path: The file.
        members: Checkpoints, in the order in which they are averaged.
        replace: Whether an existing file may go.
    """
    names = [member.relative_to(path.parent).as_posix() for member in members]
    content = {"format": _FORMAT, "version": _VERSION, "members": names}
    write_text(path, json.dumps(content, indent=1) + "\n", replace=replace)


def read_ensemble(path: Path) -> list[Path]:
    """Read which checkpoints are the members of an ensemble.

    Args:
        path: The file; a stranger's may name nothing outside its folder.

    Returns:
        Their paths, in their order.

    Raises:
        UnreadableFileError: The file is no ensemble, or names something outside its folder.
        MissingDataError: A member is not there.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        names = _parse_members(read_json(path))
    except ValueError as error:
        raise UnreadableFileError(
            f"{path} is no ensemble: {error}. Give the {ENSEMBLE} that medseg crossval wrote, or checkpoints."
        ) from None
    return [_locate_member(path, name) for name in names]


def find_ensemble(name: str | Path) -> Path | None:
    """Find the ensemble that a path means.

    Args:
        name: A `.json` file, or a folder that holds one.

    Returns:
        `None` for anything else.
    """
    path = Path(name)
    if path.suffix.lower() == ".json" and path.is_file():
        return path
    # An experiment may have single runs beside its folds; its folder means the newest of them, as it always did.
    return path / ENSEMBLE if (path / ENSEMBLE).is_file() and not any(path.glob("version_*")) else None


def expand_ensembles(names: Sequence[str | Path]) -> list[str]:
    """Replace each ensemble by its members, and announce those of folders."""
    expanded: list[str] = []
    for name in names:
        ensemble = find_ensemble(name)
        if ensemble is not None and ensemble != Path(name):
            announce_choice(ensemble)
        expanded += [str(name)] if ensemble is None else [str(member) for member in read_ensemble(ensemble)]
    return expanded


def refuse_ensemble(name: str, command: str) -> None:
    """Refuse an ensemble for a command that takes one checkpoint.

    Raises:
        SettingError: It is an ensemble.
    """
    if (ensemble := find_ensemble(name)) is not None:
        raise SettingError(
            f"medseg {command} takes one checkpoint, and {ensemble} is an ensemble. Give one of its members; "
            "summary_crossval.json beside it scores them all."
        )


def _parse_members(content: Any) -> list[str]:
    """Parse the members' names, with a `ValueError` for each fault."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"it does not say format {_FORMAT!r}")
    if content.get("version") != _VERSION:
        raise ValueError(f"its version is {shorten(str(content.get('version')))}, and this medseg reads {_VERSION}")
    members = content.get("members")
    if not isinstance(members, list) or not 1 <= len(members) <= _MOST_MEMBERS:
        raise ValueError(f"it does not list 1 to {_MOST_MEMBERS} members")
    for name in members:
        # The same rule as for names of cases: on every system the path stays below the folder.
        if not isinstance(name, str):
            raise ValueError("a member is no text")
        if (fault := find_path_fault(name)) is not None:
            raise ValueError(f"the member {shorten(name)} {fault}")
    if len(set(members)) < len(members):
        raise ValueError("it lists a member twice")
    return members


def _locate_member(ensemble: Path, name: str) -> Path:
    member, folder = ensemble.parent / name, ensemble.parent.resolve()
    # A link may lead out of the folder although its name does not.
    if not member.resolve().is_relative_to(folder):
        raise UnreadableFileError(
            f"{ensemble} names {shorten(name)}, a link that leads out of its folder. Copy the checkpoint there."
        )
    if not member.is_file():
        raise MissingDataError(
            f"{member}, a member of {ensemble}, is not there. Copy it back, or repeat medseg crossval."
        )
    return member
