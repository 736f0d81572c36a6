"""Memory-mapped index of cached cases: geometry, statistics, label counts, and where their arrays lie."""

from __future__ import annotations

import json
import math
import mmap
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.data.cache.case import OPEN_CASES, CachedCase, locate_case, read_signature
from medseg_pl.data.perceptual_hash import ImageSignature
from medseg_pl.io.atomic_files import write_atomically

_ARRAYS = ("image", "mask", "foreground")
_CHECKSUM_BYTES = 4
_BLOCK = 4096
"""Descriptions that exist as objects while rows are made of them: a million would take gigabytes."""
_MOST_OPEN = 256
"""Each mapped case takes three file descriptors, of which a process commonly has 1,024."""


# Not `eq`: whether two arrays are equal is an array.
@dataclass(frozen=True, eq=False)
class CacheIndex:
    """The cached cases of a run in their order.

    All is plain numbers, a few hundred bytes for each case. So a case is opened without its description being read
    again, and a process that loads data shares the rows with the one that it was forked from, which it would not do
    with as many objects.

    Args:
        directory: Of the cache.
        rows: As `read_rows` makes them; mapped, and shared by all selections.
        row_ids: The case of each row.
        selection: The rows that belong to the index, in its order.
    """

    directory: Path
    rows: Shaped[np.ndarray, " n"]
    row_ids: Shaped[np.ndarray, " n"]
    selection: Int64[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.selection)

    def __getitem__(self, number: int) -> CachedCase:
        """Map a case into memory.

        Each process keeps the 256 latest ones mapped.

        Raises:
            UnreadableFileError: It has gone since the run began, or is damaged.
        """
        row = self._get_row(number)
        key = (str(self.directory), row["key"])
        if (case := OPEN_CASES.pop(key, None)) is None:
            try:
                case = _map_case(self.locate_case(number), row)
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise UnreadableFileError(
                    f"Case {self.get_case_id(number)}: its folder in the cache, {self.locate_case(number)}, is gone or "
                    f"damaged ({type(error).__name__}). Delete what is left of it and go on with --ckpt_path last: the "
                    "case is then read again from its own files."
                ) from error
        OPEN_CASES[key] = case  # behind all others, for it was used last
        if len(OPEN_CASES) > _MOST_OPEN:
            del OPEN_CASES[next(iter(OPEN_CASES))]
        return case

    def open_case(self, case_id: str) -> CachedCase:
        """Map the case of this id into memory."""
        return self[int(np.flatnonzero(self.row_ids[self.selection] == case_id)[0])]

    def select(self, case_ids: Iterable[str]) -> CacheIndex:
        """Select some of the cases, in the order of their ids."""
        row_numbers = {case_id: number for number, case_id in enumerate(self.row_ids.tolist())}
        return replace(self, selection=np.array([row_numbers[case_id] for case_id in case_ids], np.int64))

    def get_case_id(self, number: int) -> str:
        """Return the id of a case."""
        return str(self.row_ids[self.selection[number]])

    def locate_case(self, number: int) -> Path:
        """Return the folder that holds a case."""
        return locate_case(self.directory, self._get_row(number)["key"].decode())

    def read_signature(self, number: int) -> ImageSignature:
        """Read what tells copies of a case's image."""
        return read_signature(self.locate_case(number))

    def get_geometry(self, number: int) -> Geometry:
        """Return the grid of a case."""
        return _read_geometry(self._get_row(number))

    def get_label_voxels(self, number: int) -> tuple[int, ...] | None:
        """Return the number of voxels of each label; `None` without a reference."""
        return _read_label_voxels(self._get_row(number))

    @classmethod
    def from_rows(cls, directory: Path, rows: Shaped[np.ndarray, " n"], case_ids: Sequence[str]) -> CacheIndex:
        """Make the index of all rows."""
        # Ids are numbers as well: a worker that counts a reference to an object copies the page that it lies on.
        return cls(directory, rows, np.array(list(case_ids), dtype=np.str_), np.arange(len(rows)))

    @property
    def keys(self) -> Shaped[np.ndarray, " n"]:
        """Hashes of what the cases were decoded from, as bytes."""
        return np.asarray(self.rows["key"][self.selection])

    @property
    def shapes(self) -> Int64[np.ndarray, "n 4"]:
        """`(C, D, H, W)` of each image."""
        return np.asarray(self.rows["image"]["shape"][self.selection])

    @property
    def dtypes(self) -> set[str]:
        """The data types that images have."""
        return {np.dtype(name.decode()).name for name in np.unique(self.rows["image"]["type"][self.selection])}

    @property
    def spacings_mm(self) -> Float64[np.ndarray, "n 3"]:
        """Spacing of each case along `(z, y, x)`; NaN where unknown."""
        return np.asarray(self.rows["spacing_mm"][self.selection])

    def _get_row(self, number: int) -> Any:
        return self.rows[self.selection[number]]


def read_rows(folders: Sequence[Path]) -> Shaped[np.ndarray, " n"]:
    """Read the description of each cached case into a structured array.

    Missing numbers are NaN, or have a type without a name.
    """
    blocks = [_read_block(folders[start : start + _BLOCK]) for start in range(0, len(folders), _BLOCK)]
    widths = [(block["statistics"].shape[1], block["label_voxels"].shape[1]) for block in blocks]
    rows = np.zeros(len(folders), _make_row_type(*(max(width) for width in zip((0, 0), *widths, strict=True))))
    for number, block in enumerate(blocks):
        part = rows[number * _BLOCK : number * _BLOCK + len(block)]
        for name in rows.dtype.names or ():
            columns = (slice(None), slice(block[name].shape[1])) if block[name].ndim == 2 else ...
            part[name][columns] = block[name]
    return rows


def save_rows(path: Path, rows: Shaped[np.ndarray, " n"]) -> None:
    """Save rows for the processes that only read them.

    Processes that have mapped older rows keep those.
    """
    path.unlink(missing_ok=True)  # where the new file cannot be written, no process may take the old one for it
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, replace=True) as temporary:
        np.save(temporary, rows)
        with temporary.open("ab") as file:
            file.write(_compute_checksum(rows))


def load_rows(path: Path) -> Shaped[np.ndarray, " n"] | None:
    """Map saved rows into memory; `None` where they are missing or damaged."""
    with suppress(OSError, ValueError, EOFError):  # none yet, or cut off when a machine was lost
        # As a plain array: rows of `np.memmap` take several times as long to read.
        rows = np.asarray(np.load(path, mmap_mode="r"))
        with path.open("rb") as file:
            file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            return rows if file.read() == _compute_checksum(rows) else None
    return None


def _compute_checksum(rows: Shaped[np.ndarray, " n"]) -> bytes:
    return zlib.crc32(rows.data).to_bytes(_CHECKSUM_BYTES, "big")


def _make_row_type(channels: int, labels: int) -> np.dtype[Any]:
    array = [("type", "S4"), ("shape", "<i8", (4,)), ("offset", "<i8")]
    return np.dtype(
        [
            ("key", "S40"),  # hexadecimal digits of the case's hash
            *((name, array) for name in _ARRAYS),
            ("spacing_mm", "<f8", (3,)),
            ("affine", "<f8", (4, 4)),
            ("statistics", "<f4", (channels, 4)),
            ("labels", "<i8"),
            ("label_voxels", "<i8", (labels,)),
            ("foreground_ends", "<i8", (labels,)),
        ]
    )


def _read_block(folders: Sequence[Path]) -> Shaped[np.ndarray, " n"]:
    described = [json.loads((folder / "case.json").read_text(encoding="utf-8")) for folder in folders]
    channels = max(len(description["statistics"]) for description in described)
    labels = max(len(description["foreground_ends"]) for description in described)
    rows = np.zeros(len(folders), _make_row_type(channels, labels))
    rows["spacing_mm"], rows["affine"] = np.nan, np.nan
    for row, folder, description in zip(rows, folders, described, strict=True):
        row["key"] = folder.name.encode()
        for name in _ARRAYS:
            path = folder / f"{name}.npy"
            if name != "mask" or path.is_file():
                array = np.load(path, mmap_mode="r")  # only the header is read
                row[name] = (array.dtype.str.encode(), (*array.shape, *[0] * (4 - array.ndim)), array.offset)
        geometry, counts, ends = (description[name] for name in ("geometry", "label_voxels", "foreground_ends"))
        for name in ("spacing_mm", "affine"):
            if geometry[name] is not None:
                row[name] = geometry[name]
        row["statistics"][: len(description["statistics"])] = description["statistics"]
        row["labels"] = -1 if counts is None else len(counts)
        row["label_voxels"][: len(counts or ())] = counts or ()
        row["foreground_ends"][: len(ends)] = ends
    return rows


def _map_case(folder: Path, row: Any) -> CachedCase:
    label_voxels = _read_label_voxels(row)
    image, mask, voxels = (_map_array(folder / f"{name}.npy", row[name]) for name in _ARRAYS)
    assert image is not None and voxels is not None, "only masks may be absent"
    # Rows are as wide as the case with most labels.
    ends = row["foreground_ends"][: len(label_voxels or ())].tolist()
    foreground = np.split(voxels, ends[:-1]) if len(voxels) else []
    statistics = np.array(row["statistics"][: len(image)])
    return CachedCase(image, mask, _read_geometry(row), statistics, foreground, label_voxels)


def _map_array(path: Path, row: Any) -> NDArray[Any] | None:
    """Map a file as a plain read-only array."""
    if not row["type"]:
        return None
    dtype, offset = np.dtype(row["type"].decode()), int(row["offset"])
    shape = tuple(row["shape"][: 2 if path.name == "foreground.npy" else 4].tolist())
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < offset + dtype.itemsize * math.prod(shape):
            raise UnreadableFileError(f"{path} in the cache is cut off. Start again: damaged cases are redone.")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, pages, offset)


def _read_geometry(row: Any) -> Geometry:
    d, h, w = row["image"]["shape"][1:].tolist()
    spacing, affine = row["spacing_mm"].tolist(), row["affine"].tolist()
    return Geometry(
        (d, h, w),
        None if np.isnan(spacing[0]) else (spacing[0], spacing[1], spacing[2]),
        None if np.isnan(affine[0][0]) else tuple(tuple(line) for line in affine),
    )


def _read_label_voxels(row: Any) -> tuple[int, ...] | None:
    return None if row["labels"] < 0 else tuple(row["label_voxels"][: row["labels"]].tolist())
