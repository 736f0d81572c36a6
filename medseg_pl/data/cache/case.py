"""One case of the store: arrays that all workers and ranks map into memory.

```
ab12…/image.npy        (C, D, H, W), raw values
      mask.npy         (M, D, H, W), absent without a reference
      foreground.npy   (n, 3), voxels (d, h, w) of each label in turn, a sample
      signature.npy    (z, 32, 32), what copies of the image have in common
      case.json        geometry, statistics, voxels of each label, where those of the sample begin
      checksums        of all these files, see `medseg_pl.data.checksums`
```

An entry appears by a rename, so it is whole or absent.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.checksums import find_damage, write_checksums
from medseg_pl.data.perceptual_hash import Likeness, likeness
from medseg_pl.io.arrays import write_array

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
        statistics: Of each channel, see `medseg_pl.core.intensity.channel_statistics`.
        foreground: A sample of each label's voxels `(d, h, w)`; empty without a reference.
        label_voxels: How many voxels each label has; `None` without a reference.
    """

    image: Shaped[np.ndarray, "c d h w"]
    mask: UInt8[np.ndarray, "m d h w"] | None
    geometry: Geometry
    statistics: Float32[np.ndarray, "c 4"]
    foreground: list[NDArray[np.int32]]
    label_voxels: tuple[int, ...] | None


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


_OPEN: dict[Hashable, StoredCase] = {}
"""The entries that this process has open, those used last at the end."""


def open_entry(entry: Path) -> StoredCase:
    """Map an entry into memory."""
    return open_described(entry, lambda: describe(entry))


def open_described(entry: Hashable, described: Callable[[], Description]) -> StoredCase:
    """Map an entry into memory; the 256 used last stay open in each process.

    Not more of them, for each takes three file descriptors, of which a process commonly has 1,024.

    Args:
        entry: What tells it from others: a path takes longer to make than an entry that is open takes to find.
        described: Says what is in it where it is not open.
    """
    case = _OPEN.pop(entry, None) or _mapped_case(described())
    _OPEN[entry] = case  # behind all others, for it was used last
    if len(_OPEN) > _MOST_OPEN:
        del _OPEN[next(iter(_OPEN))]
    return case


def _mapped_case(known: Description) -> StoredCase:
    image, mask, voxels = (None if array is None else _mapped(array) for array in known.arrays)
    assert image is not None and voxels is not None, "only masks may be absent"
    foreground = np.split(voxels, known.foreground_ends[:-1]) if len(voxels) else []
    return StoredCase(image, mask, known.geometry, known.statistics, foreground, known.label_voxels)


def describe(entry: Path) -> Description:
    """Read what is small of an entry; `medseg_pl.data.cache.index` does so once for all of a run."""
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
        if os.fstat(file.fileno()).st_size < array.offset + array.dtype.itemsize * math.prod(array.shape):
            raise UnreadableFileError(f"{array.path} in the cache is cut off. Start again: damaged cases are redone.")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(array.shape, array.dtype, pages, array.offset)


def open_likeness(entry: Path) -> Likeness:
    """What tells copies of an entry's image; a few kilobytes, and no pixel is touched."""
    description = json.loads((entry / "case.json").read_text(encoding="utf-8"))
    shortest = min(description["geometry"]["shape"][1:])
    return Likeness(description["pixels"], np.load(entry / "signature.npy"), shortest)


def write_entry(entry: Path, volume: Volume, labels: LabelMap, what: str) -> None:
    """Write beside the final place, then rename: another process that was faster wins.

    An entry that is there and damaged goes; processes that have mapped it keep what they have.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
    try:
        image = storable(volume.image, what)
        sample, ends, counts = _foreground(volume.mask, labels)
        statistics = channel_statistics(image)
        copies = likeness(image, statistics)
        write_array(temporary / "image.npy", image)
        write_array(temporary / "foreground.npy", sample)
        write_array(temporary / "signature.npy", copies.signature)
        if volume.mask is not None:
            write_array(temporary / "mask.npy", volume.mask)
        description = {
            "geometry": asdict(volume.geometry),
            "statistics": statistics.tolist(),
            "pixels": copies.pixels,
            "foreground_ends": ends,
            "label_voxels": counts,
        }
        (temporary / "case.json").write_text(json.dumps(description), encoding="utf-8")
        write_checksums(temporary)
        temporary.chmod(0o755)
        try:
            temporary.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise
            _replace_damaged(entry, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_damaged(entry: Path, temporary: Path) -> None:
    """Put a new entry in the place of one that is damaged; one that is whole stays."""
    if find_damage(entry) is None:
        return
    _OPEN.clear()
    damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=entry.parent))
    try:
        with suppress(FileNotFoundError):  # another process has just moved it
            entry.rename(damaged / entry.name)
        try:
            temporary.rename(entry)
        except OSError:
            if find_damage(entry) is not None:
                raise
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


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


def _maybe_tuple(values: list[float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _maybe_rows(rows: list[list[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if rows is None else tuple(tuple(row) for row in rows)
