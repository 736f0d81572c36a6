"""Checksums of a cache entry, verified once for each state of its files.

An entry's checksums lie beside its files in `checksums`. Once they are verified, that file is renamed to
`checksums-<state>`, where the state is a hash of size, times and inode of all other files. So a later start lists one
folder and reads nothing, and files that were copied, cut off or edited since are verified again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from medseg_pl.io.atomic_files import state_of_stat

_NAME = "checksums"
_BLOCK = 1 << 20
_ATTEMPTS = 3
"""Another process may verify the same entry, and rename its checksums, in between."""


def write_checksums(entry: Path) -> None:
    """Write the checksums of all files of an entry."""
    checksums = {path.name: checksum(path) for path in sorted(entry.iterdir())}
    (entry / _NAME).write_text(json.dumps(checksums), encoding="utf-8")


def find_damage(entry: Path) -> str | None:
    """Return the name of a file that is not as it was written, `None` where all are.

    Raises:
        FileNotFoundError: There is no such entry.
    """
    for _ in range(_ATTEMPTS):
        states, record = _list_files(entry)
        if record is None:
            return _NAME
        verified = f"{_NAME}-{_digest(states)}"
        if record == verified:
            return None
        with suppress(FileNotFoundError):
            damaged = _verify_files(entry, states, record)
            if damaged is None:
                with suppress(OSError):  # a cache of others may only be read; it is verified at each start
                    (entry / record).rename(entry / verified)
            return damaged
    raise FileNotFoundError(entry)


def checksum(path: Path) -> int:
    """Compute the CRC-32 of a file, at about 1 GB a second."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _list_files(entry: Path) -> tuple[dict[str, str], str | None]:
    """List the state of each file, and the name under which the checksums lie."""
    with os.scandir(entry) as files:
        states = {file.name: state_of_stat(file.stat()) for file in files}
    record = next((name for name in states if name.startswith(_NAME)), None)
    return {name: state for name, state in sorted(states.items()) if name != record}, record


def _verify_files(entry: Path, states: Mapping[str, str], record: str) -> str | None:
    try:
        expected = json.loads((entry / record).read_text(encoding="utf-8"))
        pairs = [(str(name), int(value)) for name, value in expected.items()]
    except (ValueError, TypeError, AttributeError):
        return record
    return next((name for name, value in pairs if name not in states or checksum(entry / name) != value), None)


def _digest(states: Mapping[str, str]) -> str:
    text = "\0".join(f"{name} {state}" for name, state in states.items())
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
