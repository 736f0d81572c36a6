"""One decoded case in the cache: arrays that all workers and ranks map into memory.

```
ab12…/image.npy        (C, D, H, W), raw values
      mask.npy         (M, D, H, W), absent without a reference
      foreground.npy   (n, 3), voxels (d, h, w) of each label in turn, a sample
      signature.npy    (z, 32, 32), what copies of the image have in common
      case.json        geometry, statistics, voxels of each label, where those of the sample end
      checksums        of all these files, see `medseg_pl.data.cache.case`
```

A folder appears by a rename, so it is whole or absent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.perceptual_hash import ImageSignature, compute_image_signature
from medseg_pl.io.atomic_files import describe_stat, write_array

_NAME = "checksums"
_BLOCK = 1 << 20
_ATTEMPTS = 3
"""Another process may verify the same entry, and rename its checksums, in between."""


def write_checksums(entry: Path) -> None:
    """Write the checksums of all files of an entry."""
    checksums = {path.name: compute_checksum(path) for path in sorted(entry.iterdir())}
    (entry / _NAME).write_text(json.dumps(checksums), encoding="utf-8")


def find_damage(entry: Path) -> str | None:
    """Find a file of an entry that changed after it was written.

    Returns:
        Its name; `None` where all files are whole.

    Raises:
        FileNotFoundError: There is no such entry.
    """
    for _ in range(_ATTEMPTS):
        states, record = _list_files(entry)
        if record is None:
            return _NAME
        verified = f"{_NAME}-{_hash_states(states)}"
        if record == verified:
            return None
        with suppress(FileNotFoundError):
            damaged = _verify_files(entry, states, record)
            if damaged is None:
                with suppress(OSError):  # a cache of others may only be read; it is verified at each start
                    (entry / record).rename(entry / verified)
            return damaged
    raise FileNotFoundError(entry)


def compute_checksum(path: Path) -> int:
    """Compute the CRC-32 of a file, at about 1 GB a second."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _list_files(entry: Path) -> tuple[dict[str, str], str | None]:
    """List each file's state, and the file name of the checksums."""
    with os.scandir(entry) as files:
        states = {file.name: describe_stat(file.stat()) for file in files}
    record = next((name for name in states if name.startswith(_NAME)), None)
    return {name: state for name, state in sorted(states.items()) if name != record}, record


def _verify_files(entry: Path, states: Mapping[str, str], record: str) -> str | None:
    try:
        expected = json.loads((entry / record).read_text(encoding="utf-8"))
        pairs = [(str(name), int(value)) for name, value in expected.items()]
    except (ValueError, TypeError, AttributeError):
        return record
    return next((name for name, value in pairs if name not in states or compute_checksum(entry / name) != value), None)


def _hash_states(states: Mapping[str, str]) -> str:
    text = "\0".join(f"{name} {state}" for name, state in states.items())
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


_MOST_VOXELS_PER_LABEL = 4096
_CACHE_DTYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class CachedCase:
    """A memory-mapped case of the cache, read as it is indexed.

    Args:
        image: Raw values.
        mask: As `LabelMap.encode` writes it; `None` without a reference.
        geometry: The grid that both share.
        statistics: Of each channel, see `medseg_pl.core.intensity.compute_channel_statistics`.
        foreground: A sample of each label's voxels `(d, h, w)`; empty without a reference.
        label_voxels: The number of voxels of each label; `None` without a reference.
    """

    image: Shaped[np.ndarray, "c d h w"]
    mask: UInt8[np.ndarray, "m d h w"] | None
    geometry: Geometry
    statistics: Float32[np.ndarray, "c 4"]
    foreground: list[NDArray[np.int32]]
    label_voxels: tuple[int, ...] | None


OPEN_CASES: dict[Hashable, CachedCase] = {}
"""The cases that this process has mapped, those used last at the end."""


def locate_case(directory: Path, key: str) -> Path:
    """Return the folder of a case by its key."""
    return directory / key[:2] / key


def read_signature(folder: Path) -> ImageSignature:
    """Read what tells copies of a case's image, without its pixels."""
    description = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    shortest = min(description["geometry"]["shape"][1:])
    return ImageSignature(description["pixels"], np.load(folder / "signature.npy"), shortest)


def write_case(folder: Path, volume: Volume, labels: LabelMap, name: str) -> None:
    """Write a case beside its final folder, then rename it.

    If another process was faster, its case stays. A damaged one is replaced; processes that have mapped it keep what
    they have.

    Args:
        folder: The folder of the case.
        volume: The decoded case.
        labels: The labels of its mask.
        name: The case's name in errors.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        image = as_cache_dtype(volume.image, name)
        foreground, ends, label_voxels = _sample_foreground(volume.mask, labels)
        statistics = compute_channel_statistics(image)
        signature = compute_image_signature(image, statistics)
        write_array(temporary / "image.npy", image)
        write_array(temporary / "foreground.npy", foreground)
        write_array(temporary / "signature.npy", signature.frequencies)
        if volume.mask is not None:
            write_array(temporary / "mask.npy", volume.mask)
        description = {
            "geometry": asdict(volume.geometry),
            "statistics": statistics.tolist(),
            "pixels": signature.pixel_digest,
            "foreground_ends": ends,
            "label_voxels": label_voxels,
        }
        (temporary / "case.json").write_text(json.dumps(description), encoding="utf-8")
        write_checksums(temporary)
        # `mkdtemp` lets nobody else in, and a group may share its cache.
        temporary.chmod(0o755)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_cache_dtype(image: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    """Keep the types that scanners write; convert everything else to `float32`.

    Args:
        image: Raw values.
        name: The case's name in errors.

    Raises:
        UnreadableFileError: There is no number in it.
    """
    # Files may be big-endian, which neither OpenCV nor torch takes.
    dtype = image.dtype.newbyteorder("=") if image.dtype.name in _CACHE_DTYPES else np.float32
    converted = np.ascontiguousarray(image, dtype=dtype)
    if converted.dtype.kind == "f" and not np.isfinite(converted).any():
        raise UnreadableFileError(f"{name} holds no number at all, only NaN or infinity. Remove the case.")
    return converted


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Move a case to its folder, unless a whole one is there."""
    for _ in range(_ATTEMPTS):
        try:
            temporary.rename(folder)
            return
        except OSError as error:
            # Nothing else but a folder that is not empty, as every case is, may be in the way.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another process has just moved it
            if find_damage(folder) is None:
                return
            _remove_damaged(folder)
    raise FileExistsError(folder)


def _remove_damaged(folder: Path) -> None:
    OPEN_CASES.clear()
    damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
    try:
        # At once, so that nobody finds a part of it.
        folder.rename(damaged / folder.name)
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


def _sample_foreground(
    mask: UInt8[np.ndarray, "m d h w"] | None, labels: LabelMap
) -> tuple[NDArray[np.int32], list[int], list[int] | None]:
    """Draw at most a few thousand voxels of each label.

    Returns:
        The voxels, where those of each label end, and the number that each label has in all.
    """
    if mask is None:
        return np.zeros((0, 3), np.int32), [], None
    voxels = [np.flatnonzero(plane) for plane in labels.planes(mask)]
    samples = []
    for flat in voxels:
        count = min(len(flat), _MOST_VOXELS_PER_LABEL)
        # A fixed seed: whichever process decodes the case writes the same bytes.
        drawn = np.sort(np.random.default_rng(0).choice(flat, count, replace=False))
        samples.append(np.stack(np.unravel_index(drawn, mask.shape[1:]), axis=1).astype(np.int32))
    ends = np.cumsum([len(sample) for sample in samples]).tolist()
    return np.concatenate(samples), ends, [len(flat) for flat in voxels]
