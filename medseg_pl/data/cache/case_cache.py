"""Cache of decoded cases: each is decoded once, whatever the number of runs, workers and ranks.

```
cache/ab/ab12…/                 one case, see `medseg_pl.data.cache.case`
cache/seen/…                    which files, by path, size, times and inode, had which content
cache/listings/….npy            the index of a whole data set, see `medseg_pl.data.cache.index`
cache/copies/….json             what `medseg_pl.data.duplicates` has found on the sides of a split
```

A case is named by a hash of what it was decoded from, so it is never stale and may be shared by runs. One whose files
are not as they were written is decoded again, see `medseg_pl.data.cache.case`.
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

import numpy as np

from medseg_pl.core.errors import DISK, UnwritableFileError, parse_file_error
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case import find_damage, locate_case, write_case
from medseg_pl.data.cache.index import CacheIndex, load_rows, read_rows, save_rows
from medseg_pl.data.sources.base import Source
from medseg_pl.io.atomic_files import describe_stat, hash_file, write_text
from medseg_pl.io.itk import find_data_files
from medseg_pl.io.progress import open_thread_pool

log = logging.getLogger(__name__)

FORMAT = 5
"""Raise it when what is written changes: old cases are then left alone and decoded anew."""

_DIGITS = 40
"""Hexadecimal digits of a hash."""


def find_default_directory() -> Path:
    """Return `$MEDSEG_CACHE`, or `medseg` in the user's cache folder."""
    if configured := os.environ.get("MEDSEG_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


class _Decoding(NamedTuple):
    """What decides, besides a case's own files, how all cases are decoded."""

    settings: tuple[object, ...]
    labels: list[str]


class CaseCache:
    """The decoded cases of one source.

    Args:
        directory: Where cases are kept; made when the first is written.
        source: Reads a case that is not there yet.
        labels: How masks are encoded.
    """

    def __init__(self, directory: Path, source: Source, labels: LabelMap) -> None:
        self.directory = directory
        self.source = source
        self.labels = labels
        self._folders: dict[Path, str] = {}

    def build(
        self, cases: Sequence[Case], threads: int, advance: Callable[[], None] = lambda: None, first: int = 0
    ) -> CacheIndex:
        """Decode the cases that are missing or damaged.

        The first fault stops the work.

        Args:
            cases: The cases to decode.
            threads: How many cases are decoded at once.
            advance: Called after each case.
            first: The number of the case to begin with; those before it come last. Machines that share a cache begin
                at numbers of their own, and find done what others have done meanwhile.

        Returns:
            The index of the cases, which is saved for the processes that only set up.
        """
        decoding = self._describe_decoding()
        with _explain_full_cache(self.directory), open_thread_pool(threads) as pool:
            futures = [pool.submit(self._decode, case, decoding) for case in (*cases[first:], *cases[:first])]
            keys = []
            for future in futures:
                keys.append(future.result())
                advance()
        keys = keys[len(cases) - first :] + keys[: len(cases) - first]
        path = self.locate_index(cases)
        rows = load_rows(path)
        if rows is None or not np.array_equal(rows["key"], np.array([key.encode() for key in keys], "S40")):
            rows = read_rows([locate_case(self.directory, key) for key in keys])
            with suppress(OSError):  # a cache that may only be read, or is full, serves all the same
                save_rows(path, rows)
        return CacheIndex.from_rows(self.directory, rows, [case.case_id for case in cases])

    def load_index(self, cases: Sequence[Case]) -> CacheIndex | None:
        """Load the index that `build` saved, without a look at any case."""
        rows = load_rows(self.locate_index(cases))
        return None if rows is None else CacheIndex.from_rows(self.directory, rows, [case.case_id for case in cases])

    def locate_index(self, cases: Sequence[Case]) -> Path:
        """Return where the index of these cases is saved."""
        # Absolute, for other data may have the same relative names in another folder.
        listed = (f"{c.case_id} {[str(path.absolute()) for path in (*c.images, *c.masks)]}" for c in cases)
        partial = [repr(c.annotated_labels) for c in cases if c.annotated_labels is not None]
        parts = [repr(self._describe_decoding()), *listed, *partial]
        return self.directory / "listings" / f"{_hash_parts(parts)}.npy"

    def _decode(self, case: Case, decoding: _Decoding) -> str:
        """Decode a case unless the cache holds it whole; return its key."""
        key = self._compute_key(case, decoding)
        folder = locate_case(self.directory, key)
        with suppress(FileNotFoundError):
            damaged = find_damage(folder)
            if damaged is None:
                return key
            log.warning("Case %s: %s is damaged and is decoded again.", case.case_id, folder / damaged)
        volume = self.source.read(case, self.labels)
        write_case(folder, volume, self.labels, f"Case {case.case_id} ({case.images[0]})")
        return key

    def _compute_key(self, case: Case, decoding: _Decoding) -> str:
        """Hash the case's files and everything that decides how they are decoded."""
        # Names count: some sources read slice numbers or spacings from them.
        names = [path.name for path in (*case.images, *case.masks)]
        labels = decoding.labels if case.masks else None
        if case.masks and case.annotated_labels is not None:  # which tell what label a file is of
            labels = [*decoding.labels, *case.annotated_labels]
        return _hash_parts([repr((decoding.settings, labels, names, case.case_id)), self._hash_content(case)])

    def _describe_decoding(self) -> _Decoding:
        kind = type(self.source)
        reading = self.source.reading_settings()
        settings: tuple[object, ...] = (FORMAT, kind.__module__, kind.__qualname__, reading, _read_plugin_code(kind))
        # Not among the source's own settings: cases that lie as they should are found where they have always been.
        settings += () if self.source.orientation is None else (self.source.orientation,)
        # All that is to be known of labels: each part changes what a mask file means.
        return _Decoding(settings, [str(part) for part in vars(self.labels).values()])

    def _hash_content(self, case: Case) -> str:
        """Hash the files' bytes, once for each state of the files."""
        files = (*case.images, *case.masks, *find_data_files((*case.images, *case.masks)))
        states = [f"{self._resolve(path)} {describe_stat(path.stat())}" for path in files]
        seen = self.directory / "seen" / _hash_parts(states)
        with suppress(FileNotFoundError):
            content = seen.read_text()
            if len(content) == _DIGITS:  # else cut off when a machine was lost
                return content
        content = _hash_parts(hash_file(path) for path in files)
        write_text(seen, content, replace=True)
        return content

    def _resolve(self, path: Path) -> str:
        """Resolve a path, asking once for all files of a folder."""
        if path.is_symlink():
            return str(path.resolve())
        if path.parent not in self._folders:
            self._folders[path.parent] = str(path.parent.resolve()).rstrip("/")
        return f"{self._folders[path.parent]}/{path.name}"


@contextmanager
def _explain_full_cache(directory: Path) -> Iterator[None]:
    """Raise `UnwritableFileError` where the disk of the cache is full or read-only."""
    try:
        yield
    except OSError as error:
        number, _ = parse_file_error(error)
        if number not in DISK:
            raise
        raise UnwritableFileError(
            f"The cache {directory} could not be written: {os.strerror(number)}. Free some space, or set $MEDSEG_CACHE "
            "or data.cache_dir to another folder, then repeat the command."
        ) from error


def _hash_parts(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _read_plugin_code(kind: type) -> str:
    """Read the source text of a plug-in, so that edits are noticed."""
    if kind.__module__.startswith("medseg_pl."):
        return ""  # ours change with `FORMAT`
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):  # typed into an interpreter: there is no text to compare
        return ""
