"""What is small of many stored cases, in one array that all processes of a machine map into memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case import Description, StoredArray, StoredCase, describe, open_described
from medseg_pl.data.cache.store import Store, entry_path
from medseg_pl.io.atomic_files import whole_file

_CHECKSUM_BYTES = 4
_AT_ONCE = 4096
"""Descriptions that exist as objects while rows are made of them: a million would take gigabytes."""


class Catalog(Sequence[Path]):
    """The entries of many cases, in their order, and what `describe` reads of each: a few hundred bytes a case.

    Rows are plain numbers. So a case is opened without its description being read again, and a process that loads data
    shares the rows with the one that it was forked from, which it would not do with as many objects.

    Args:
        directory: Of the store.
        rows: As `catalog_of` makes them.
        places: Which of the rows, in which order; all by default.
    """

    def __init__(self, directory: Path, rows: NDArray[Any], places: Int64[np.ndarray, " n"] | None = None) -> None:
        self.directory = directory
        self.rows = rows
        self.places = np.arange(len(rows)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> Catalog: ...
    def __getitem__(self, place: int | slice) -> Path | Catalog:
        if isinstance(place, slice):
            return Catalog(self.directory, self.rows, self.places[place])
        return entry_path(self.directory, self._row(place)["key"].decode())

    def of(self, places: Sequence[int]) -> Catalog:
        """Some of the cases, in the order of their places."""
        return Catalog(self.directory, self.rows, self.places[np.asarray(places, np.int64)])

    def open(self, place: int) -> StoredCase:
        """What `open_entry` gives for the entry, without a look at anything but its arrays."""
        row = self._row(place)
        return open_described((str(self.directory), row["key"]), lambda: _description(self[place], row))

    @property
    def keys(self) -> Shaped[np.ndarray, " n"]:
        """The names of the entries."""
        return np.asarray(self.rows["key"][self.places])

    @property
    def shapes(self) -> Int64[np.ndarray, "n 4"]:
        """`(C, D, H, W)` of each image."""
        return np.asarray(self.rows["image"]["shape"][self.places])

    @property
    def types(self) -> set[str]:
        """The data types that images have."""
        return {np.dtype(name.decode()).name for name in np.unique(self.rows["image"]["type"][self.places])}

    @property
    def spacings_mm(self) -> Float64[np.ndarray, "n 3"]:
        """Along `(z, y, x)`; NaN where a case does not say."""
        return np.asarray(self.rows["spacing_mm"][self.places])

    def geometry(self, place: int) -> Geometry:
        """The grid of a case."""
        return _geometry(self._row(place))

    def label_voxels(self, place: int) -> tuple[int, ...] | None:
        """How many voxels each label has; `None` without a reference."""
        return _counts(self._row(place))

    def without_spacing(self) -> list[int]:
        """The places of the cases that do not say their spacing."""
        return np.flatnonzero(np.isnan(self.spacings_mm[:, 0])).tolist()

    def _row(self, place: int) -> Any:
        return self.rows[self.places[place]]


class NamedEntries(Mapping[str, Path]):
    """The entries of a catalog by the ids of their cases; paths are made when they are asked for.

    Args:
        names: In the catalog's order.
        catalog: The entries.
    """

    def __init__(self, names: Iterable[str], catalog: Catalog) -> None:
        self.catalog = catalog
        self._places = {name: place for place, name in enumerate(names)}

    def __getitem__(self, name: str) -> Path:
        return self.catalog[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, names: Iterable[str]) -> Catalog:
        """The entries of some cases, in the order of their names."""
        return self.catalog.of([self._places[name] for name in names])


def prepared_catalog(store: Store, cases: Sequence[Case], entries: Sequence[Path]) -> Catalog:
    """The catalog of cases that the store has just built, kept for the processes that only set up.

    Args:
        store: Theirs.
        cases: All of a run.
        entries: What `Store.build` gave for them.
    """
    path = store.listing(cases)
    kept = _opened(path, store.directory)
    if kept is not None and np.array_equal(kept.keys, np.array([entry.name.encode() for entry in entries], "S40")):
        return kept
    made = catalog_of(entries)
    with suppress(OSError):  # a store that may only be read, or is full, serves all the same
        path.unlink(missing_ok=True)  # where the new one cannot be written, no process may take the old one for it
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, replace=True) as temporary:  # processes that have mapped an older one keep it
            np.save(temporary, made.rows)
            with temporary.open("ab") as file:
                file.write(_checksum(made.rows))
    return made


def known_catalog(store: Store, cases: Sequence[Case]) -> Catalog | None:
    """What `prepared_catalog` kept of these cases, which no file is looked at for; `None` where it kept nothing."""
    return _opened(store.listing(cases), store.directory)


def catalog_of(entries: Sequence[Path]) -> Catalog:
    """Read the description of each entry once; a catalog is its own."""
    if isinstance(entries, Catalog):
        return entries
    directory = entries[0].parent.parent if len(entries) else Path()
    blocks = [_rows(entries[start : start + _AT_ONCE]) for start in range(0, len(entries), _AT_ONCE)]
    return Catalog(directory, _joined(blocks))


def _opened(path: Path, directory: Path) -> Catalog | None:
    try:
        # As a plain array: rows of `np.memmap` take several times as long to read.
        rows = np.asarray(np.load(path, mmap_mode="r"))
        with path.open("rb") as file:
            file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            return Catalog(directory, rows) if file.read() == _checksum(rows) else None
    except (OSError, ValueError, EOFError):  # none yet, or cut off when a machine was lost
        return None


def _checksum(rows: NDArray[Any]) -> bytes:
    return zlib.crc32(rows.data).to_bytes(_CHECKSUM_BYTES, "big")


def _row_type(channels: int, labels: int) -> np.dtype[Any]:
    array = [("type", "S4"), ("shape", "<i8", (4,)), ("offset", "<i8")]
    return np.dtype(
        [
            ("key", "S40"),
            *((name, array) for name in ("image", "mask", "foreground")),
            ("spacing_mm", "<f8", (3,)),
            ("affine", "<f8", (4, 4)),
            ("statistics", "<f4", (channels, 4)),
            ("labels", "<i8"),
            ("label_voxels", "<i8", (labels,)),
            ("foreground_ends", "<i8", (labels,)),
        ]
    )


def _rows(entries: Iterable[Path]) -> NDArray[Any]:
    """Numbers that are not there are NaN, or of a type without a name."""
    known = [(entry, describe(entry)) for entry in entries]
    channels = max(len(each.statistics) for _, each in known)
    labels = max(len(each.foreground_ends) for _, each in known)
    rows = np.zeros(len(known), _row_type(channels, labels))
    rows["spacing_mm"], rows["affine"] = np.nan, np.nan
    for row, (entry, each) in zip(rows, known, strict=True):
        row["key"] = entry.name.encode()
        for name, array in zip(("image", "mask", "foreground"), each.arrays, strict=True):
            if array is not None:
                shape = (*array.shape, *[0] * (4 - len(array.shape)))
                row[name] = (array.dtype.str.encode(), shape, array.offset)
        if each.geometry.spacing_mm is not None:
            row["spacing_mm"] = each.geometry.spacing_mm
        if each.geometry.affine is not None:
            row["affine"] = each.geometry.affine
        row["statistics"][: len(each.statistics)] = each.statistics
        row["labels"] = -1 if each.label_voxels is None else len(each.label_voxels)
        row["label_voxels"][: len(each.label_voxels or ())] = each.label_voxels or ()
        row["foreground_ends"][: len(each.foreground_ends)] = each.foreground_ends
    return rows


def _joined(blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array, as wide as the widest of them."""
    widths = [(len(block["statistics"][0]), len(block["label_voxels"][0])) for block in blocks]
    widest = _row_type(*(max(width) for width in zip((0, 0), *widths, strict=True)))
    joined = np.zeros(sum(len(block) for block in blocks), widest)
    start = 0
    for block in blocks:
        part = joined[start : start + len(block)]
        for name in widest.names or ():
            place = (slice(None), slice(block[name].shape[1])) if block[name].ndim == 2 else ...
            part[name][place] = block[name]
        start += len(block)
    return joined


def _description(entry: Path, row: Any) -> Description:
    counts = _counts(row)
    ends = row["foreground_ends"][: 0 if counts is None else len(counts)].tolist()
    names = ("image", "mask", "foreground")
    arrays = tuple(_array(entry / f"{name}.npy", row[name], 2 if name == "foreground" else 4) for name in names)
    channels = int(row["image"]["shape"][0])
    return Description(_geometry(row), np.array(row["statistics"][:channels]), counts, ends, arrays)


def _array(path: Path, row: Any, axes: int) -> StoredArray | None:
    if not row["type"]:
        return None
    shape = tuple(row["shape"][:axes].tolist())
    return StoredArray(path, np.dtype(row["type"].decode()), shape, int(row["offset"]))


def _geometry(row: Any) -> Geometry:
    d, h, w = row["image"]["shape"][1:].tolist()
    spacing, affine = row["spacing_mm"].tolist(), row["affine"].tolist()
    return Geometry(
        (d, h, w),
        None if np.isnan(spacing[0]) else (spacing[0], spacing[1], spacing[2]),
        None if np.isnan(affine[0][0]) else tuple(tuple(line) for line in affine),
    )


def _counts(row: Any) -> tuple[int, ...] | None:
    return None if row["labels"] < 0 else tuple(row["label_voxels"][: row["labels"]].tolist())
