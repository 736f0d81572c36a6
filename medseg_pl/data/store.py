"""Each case decoded once, into arrays that all workers and ranks map into memory.

```
store/ab/ab12…/image.npy        (C, D, H, W), raw values
               mask.npy         (M, D, H, W), absent without a reference
               foreground.npy   (n, 3), voxels (d, h, w) of each label in turn, a sample
               signature.npy    (z, 32, 32), what copies of the image have in common
               case.json        geometry, statistics, voxels of each label, where those of the sample begin
store/seen/…                    which files, by path, size and time, had which content
store/listings/….npy            the entries of a whole data set, see `medseg_pl.data.catalogue`
store/copies/….json             what `medseg_pl.data.duplicates` has found on the sides of a split
```

An entry is named by a hash of what it was made from, so it is never stale and may be shared by runs; it appears by a
rename, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import Source
from medseg_pl.functional.intensity import channel_statistics
from medseg_pl.functional.perceptual import Likeness, likeness
from medseg_pl.io.files import digest_of, write_text

FORMAT = 2
"""Raise it when what is written changes: old entries are then left alone and made anew."""

_VOXELS_FOR_EACH_LABEL = 4096
_MOST_OPEN = 256
_KEPT_TYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class StoredCase:
    """One entry of the store, mapped into memory and not read until it is indexed.

    Args:
        image: Raw values.
        mask: As `LabelMap.encode` writes it; `None` without a reference.
        geometry: The grid that both share.
        statistics: Of each channel, see `medseg_pl.functional.intensity.channel_statistics`.
        foreground: A sample of each label's voxels `(d, h, w)`; empty without a reference.
        label_voxels: How many voxels each label has; `None` without a reference.
    """

    image: Shaped[np.ndarray, "c d h w"]
    mask: UInt8[np.ndarray, "m d h w"] | None
    geometry: Geometry
    statistics: Float32[np.ndarray, "c 4"]
    foreground: list[NDArray[np.int32]]
    label_voxels: tuple[int, ...] | None


_OPEN: dict[Path, StoredCase] = {}
"""The entries that this process has open, those used last at the end."""


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
        """Where the catalogue of these cases is kept: named by their names and files and by how these are read."""
        reading = self._reading()
        # Absolute, for other data may have the same relative names in another folder.
        listed = (f"{c.case_id} {[str(path.absolute()) for path in (*c.images, *c.masks)]}" for c in cases)
        return self.directory / "listings" / f"{_digest([repr(reading), *listed])}.npy"

    def build(
        self, cases: Sequence[Case], threads: int, advance: Callable[[], None] = lambda: None, first: int = 0
    ) -> list[Path]:
        """Make the entries that are missing, several at a time; the first fault stops the work and is raised.

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
        with ThreadPoolExecutor(max_workers=threads) as pool:
            futures = [pool.submit(self._entry, case, reading) for case in (*cases[first:], *cases[:first])]
            try:
                made = [_after(future.result(), advance) for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return made[len(cases) - first :] + made[: len(cases) - first]

    def _entry(self, case: Case, reading: _Reading) -> Path:
        entry = entry_path(self.directory, self._key(case, reading))
        if not (entry / "case.json").is_file():
            volume = self.source.read(case, self.labels)
            _write_entry(entry, volume, self.labels, f"Case {case.case_id} ({case.images[0]})")
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
        """A hash of the files' bytes, remembered as long as their path, size and time stay the same."""
        files = (*case.images, *case.masks)
        stats = [(path, path.stat()) for path in files]
        seen = self.directory / "seen" / _digest(f"{self._resolved(p)} {s.st_size} {s.st_mtime_ns}" for p, s in stats)
        with suppress(FileNotFoundError):
            return seen.read_text()
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


def open_entry(entry: Path) -> StoredCase:
    """Map an entry into memory."""
    return open_described(entry, describe)


def open_described(entry: Path, described: Callable[[Path], Description]) -> StoredCase:
    """Map an entry into memory; the 256 used last stay open in each process.

    Not more of them, for each takes three file descriptors, of which a process commonly has 1,024.

    Args:
        entry: Of the store.
        described: Says what is in it where it is not open.
    """
    case = _OPEN.pop(entry, None) or _mapped_case(described(entry))
    _OPEN[entry] = case  # behind all others, for it was used last
    if len(_OPEN) > _MOST_OPEN:
        del _OPEN[next(iter(_OPEN))]
    return case


def _mapped_case(known: Description) -> StoredCase:
    image, mask, voxels = (None if array is None else _mapped(array) for array in known.arrays)
    assert image is not None and voxels is not None, "only masks may be absent"
    foreground = np.split(voxels, known.foreground_ends[:-1]) if len(voxels) else []
    return StoredCase(image, mask, known.geometry, known.statistics, foreground, known.label_voxels)


class StoredArray(NamedTuple):
    """Where a file has its array, so that it can be mapped without reading its header again."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class Description(NamedTuple):
    """What is small of an entry; the arrays are image, mask and foreground."""

    geometry: Geometry
    statistics: Float32[np.ndarray, "c 4"]
    label_voxels: tuple[int, ...] | None
    foreground_ends: list[int]
    arrays: tuple[StoredArray | None, ...]


def describe(entry: Path) -> Description:
    """Read what is small of an entry; `medseg_pl.data.catalogue` does so once for all of a run."""
    description = json.loads((entry / "case.json").read_text(encoding="utf-8"))
    geometry = Geometry(
        tuple(description["geometry"]["shape"]),
        _maybe_tuple(description["geometry"]["spacing_mm"]),
        _maybe_rows(description["geometry"]["affine"]),
    )
    counts = description["label_voxels"]
    paths = (entry / "image.npy", entry / "mask.npy", entry / "foreground.npy")
    return Description(
        geometry,
        np.array(description["statistics"], dtype=np.float32),
        None if counts is None else tuple(counts),
        description["foreground_ends"],
        tuple(_array_in(path) if path.name != "mask.npy" or path.is_file() else None for path in paths),
    )


def _array_in(path: Path) -> StoredArray:
    """Read the header of what `np.save` wrote."""
    whole = np.load(path, mmap_mode="r")
    return StoredArray(path, whole.dtype, whole.shape, whole.offset)


def _mapped(array: StoredArray) -> NDArray[Any]:
    """A plain read-only array over the file; `np.memmap` takes ten times as long to make and three times to slice."""
    with array.path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(array.shape, array.dtype, pages, array.offset)


def open_likeness(entry: Path) -> Likeness:
    """What tells copies of an entry's image; a few kilobytes, and no pixel is touched."""
    description = json.loads((entry / "case.json").read_text(encoding="utf-8"))
    shortest = min(description["geometry"]["shape"][1:])
    return Likeness(description["pixels"], np.load(entry / "signature.npy"), shortest)


def entry_path(directory: Path, key: str) -> Path:
    """Where a store keeps the entry of that name."""
    return directory / key[:2] / key


def _write_entry(entry: Path, volume: Volume, labels: LabelMap, what: str) -> None:
    """Write beside the final place, then rename: another process that was faster wins."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
    try:
        image = storable(volume.image, what)
        sample, ends, counts = _foreground(volume.mask, labels)
        statistics = channel_statistics(image)
        copies = likeness(image, statistics)
        np.save(temporary / "image.npy", image)
        np.save(temporary / "foreground.npy", sample)
        np.save(temporary / "signature.npy", copies.signature)
        if volume.mask is not None:
            np.save(temporary / "mask.npy", np.ascontiguousarray(volume.mask))
        description = {
            "geometry": asdict(volume.geometry),
            "statistics": statistics.tolist(),
            "pixels": copies.pixels,
            "foreground_ends": ends,
            "label_voxels": counts,
        }
        (temporary / "case.json").write_text(json.dumps(description), encoding="utf-8")
        temporary.chmod(0o755)
        try:
            temporary.rename(entry)
        except OSError:
            if not (entry / "case.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def storable(image: NDArray[Any], what: str) -> NDArray[Any]:
    """Keep the types that scanners write; everything else becomes `float32`.

    Args:
        image: Raw values.
        what: What to call the case in an error.

    Raises:
        UnreadableFileError: There is no number in it.
    """
    kept = image.dtype.newbyteorder("=") if image.dtype.name in _KEPT_TYPES else np.float32
    stored = np.ascontiguousarray(image, dtype=kept)
    if stored.dtype.kind == "f" and not np.isfinite(stored).any():
        raise UnreadableFileError(f"{what} holds no number at all, only NaN or infinity. Remove the case.")
    return stored


def _foreground(
    mask: NDArray[np.uint8] | None, labels: LabelMap
) -> tuple[NDArray[np.int32], list[int], list[int] | None]:
    """At most a few thousand voxels of each label, drawn evenly, so that training can be sent to them.

    Returns:
        The voxels, where those of each label end, and how many each label has in all.
    """
    if mask is None:
        return np.zeros((0, 3), np.int32), [], None
    found = [np.flatnonzero(plane) for plane in labels.planes(mask)]
    samples = [_sample(flat, mask.shape[1:]) for flat in found]
    ends = np.cumsum([len(sample) for sample in samples]).tolist()
    return np.concatenate(samples), ends, [len(flat) for flat in found]


def _sample(flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.int32]:
    kept = np.random.default_rng(0).choice(flat, min(len(flat), _VOXELS_FOR_EACH_LABEL), replace=False)
    return np.stack(np.unravel_index(np.sort(kept), shape), axis=1).astype(np.int32)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _after(entry: Path, advance: Callable[[], None]) -> Path:
    advance()
    return entry


def _maybe_tuple(values: list[float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _maybe_rows(rows: list[list[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if rows is None else tuple(tuple(row) for row in rows)


def _code_of(kind: type) -> str:
    """The source text of a plug-in's module, so that an edit of its `read` is noticed; ours change with `FORMAT`."""
    if kind.__module__.startswith("medseg_pl."):
        return ""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):  # typed into an interpreter: there is no text to compare
        return ""
