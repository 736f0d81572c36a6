"""Each case decoded once, into arrays that all workers and ranks map into memory.

```
store/ab/ab12…/                 one case, see `medseg_pl.data.cache.case`
store/seen/…                    which files, by path, size, times and inode, had which content
store/listings/….npy            the entries of a whole data set, see `medseg_pl.data.cache.index`
store/copies/….json             what `medseg_pl.data.duplicates` has found on the sides of a split
```

An entry is named by a hash of what it was made from, so it is never stale and may be shared by runs. One whose files
are not as they were written is decoded again, see `medseg_pl.data.checksums`.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from medseg_pl.core.errors import UnwritableFileError
from medseg_pl.core.file_errors import DISK, number_and_file
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.threads import thread_pool
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case import write_entry
from medseg_pl.data.checksums import find_damage
from medseg_pl.data.sources.base import Source
from medseg_pl.io.atomic_files import digest_of, state_of_stat, write_text
from medseg_pl.io.itk import find_data_files

log = logging.getLogger(__name__)

FORMAT = 5
"""Raise it when what is written changes: old entries are then left alone and made anew."""


_DIGITS = 40
"""Hexadecimal digits of a hash."""


def default_directory() -> Path:
    """`$MEDSEG_CACHE`, or `medseg` in the user's cache folder."""
    if configured := os.environ.get("MEDSEG_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


class _Reading(NamedTuple):
    """What decides, beside a case's own files, what they are read as; the same for all cases."""

    settings: tuple[object, ...]
    labels: list[str]


class Store:
    """The decoded cases of one source.

    Args:
        directory: Where entries live; made when the first is written.
        source: Reads a case that is not there yet.
        labels: How masks are encoded.
    """

    def __init__(self, directory: Path, source: Source, labels: LabelMap) -> None:
        self.directory = directory
        self.source = source
        self.labels = labels
        self._folders: dict[Path, str] = {}

    def listing(self, cases: Sequence[Case]) -> Path:
        """Where the catalog of these cases is kept: named by their names and files and by how these are read."""
        reading = self._reading()
        # Absolute, for other data may have the same relative names in another folder.
        listed = (f"{c.case_id} {[str(path.absolute()) for path in (*c.images, *c.masks)]}" for c in cases)
        return self.directory / "listings" / f"{_digest([repr(reading), *listed])}.npy"

    def build(
        self, cases: Sequence[Case], threads: int, advance: Callable[[], None] = lambda: None, first: int = 0
    ) -> list[Path]:
        """Make the entries that are missing or damaged, several at a time; the first fault stops the work.

        Args:
            cases: What to decode.
            threads: How many cases are decoded at once.
            advance: Called after each case.
            first: The place of the case to begin with; those before it come last. Machines that share a store begin at
                places of their own, and find done what others have done meanwhile.

        Returns:
            The entry of each case, in the order of the cases.
        """
        reading = self._reading()
        with _full_store_in_words(self.directory), thread_pool(threads) as pool:
            futures = [pool.submit(self._entry, case, reading) for case in (*cases[first:], *cases[:first])]
            made = [_after(future.result(), advance) for future in futures]
        return made[len(cases) - first :] + made[: len(cases) - first]

    def _entry(self, case: Case, reading: _Reading) -> Path:
        entry = entry_path(self.directory, self._key(case, reading))
        with suppress(FileNotFoundError):
            damaged = find_damage(entry)
            if damaged is None:
                return entry
            log.warning("Case %s: %s is damaged and is decoded again.", case.case_id, entry / damaged)
        volume = self.source.read(case, self.labels)
        write_entry(entry, volume, self.labels, f"Case {case.case_id} ({case.images[0]})")
        return entry

    def _key(self, case: Case, reading: _Reading) -> str:
        """A hash of the content of the case's files and of everything that decides how they are read."""
        names = [path.name for path in (*case.images, *case.masks)]
        labels = reading.labels if case.masks else None
        return _digest([repr((reading.settings, labels, names, case.case_id)), self._content(case)])

    def _reading(self) -> _Reading:
        kind = type(self.source)
        settings = (FORMAT, kind.__module__, kind.__qualname__, self.source.reading_settings(), _code_of(kind))
        # All that is to be known of labels: each part changes what a mask file means.
        return _Reading(settings, [str(part) for part in vars(self.labels).values()])

    def _content(self, case: Case) -> str:
        """A hash of the files' bytes, remembered as long as their path, size, times and inode stay the same."""
        files = (*case.images, *case.masks, *find_data_files((*case.images, *case.masks)))
        states = [f"{self._resolved(path)} {state_of_stat(path.stat())}" for path in files]
        seen = self.directory / "seen" / _digest(states)
        with suppress(FileNotFoundError):
            content = seen.read_text()
            if len(content) == _DIGITS:  # else cut off when a machine was lost
                return content
        content = _digest(digest_of(path) for path in files)
        write_text(seen, content, replace=True)
        return content

    def _resolved(self, path: Path) -> str:
        """As `Path.resolve`, which asks for every folder above a file; here once for all files of a folder."""
        if path.is_symlink():
            return str(path.resolve())
        if path.parent not in self._folders:
            self._folders[path.parent] = str(path.parent.resolve()).rstrip("/")
        return f"{self._folders[path.parent]}/{path.name}"


def entry_path(directory: Path, key: str) -> Path:
    """Where a store keeps the entry of that name."""
    return directory / key[:2] / key


@contextmanager
def _full_store_in_words(directory: Path) -> Iterator[None]:
    """Say where else the store may be, where its disk is full or read-only."""
    try:
        yield
    except OSError as error:
        number, _ = number_and_file(error)
        if number not in DISK:
            raise
        raise UnwritableFileError(
            f"The store {directory} could not be written: {os.strerror(number)}. Free some space, or set $MEDSEG_CACHE "
            "or data.cache_dir to another folder, then repeat the command."
        ) from error


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _after(entry: Path, advance: Callable[[], None]) -> Path:
    advance()
    return entry


def _code_of(kind: type) -> str:
    """The source text of a plug-in's module, so that an edit of its `read` is noticed; ours change with `FORMAT`."""
    if kind.__module__.startswith("medseg_pl."):
        return ""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):  # typed into an interpreter: there is no text to compare
        return ""
