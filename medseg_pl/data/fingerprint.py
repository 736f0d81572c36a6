"""What a data set is like, in the few numbers from which a configuration follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.store import StoredCase, open_entry


@dataclass(frozen=True)
class Fingerprint:
    """A data set in numbers; planning from it is a pure function.

    Args:
        cases: How many there are.
        groups: Of how many patients.
        slices: How many slices they have together.
        channels: Channels of an image, the largest number where they differ.
        modality: What the data set says of itself, in capitals; empty where it says nothing.
        is_8bit: Whether all images hold 8 bit.
        sizes: `(height, width)` of the slices at the 5th, 50th and 95th percentile of the cases.
        depth: Slices of a case, the median.
        spacing_mm: `(z, y, x)`, the medians; `None` where a case does not know its own.
        spacing_varies: The 90th percentile of the in-plane spacing over the 10th.
        lowest: The smallest intensity of any case.
        foreground_intensities: The 0.5th and the 99.5th percentile of all labelled voxels.
        label_shares: The share of each label in all annotated voxels.
        label_cases: In how many cases each label is.
    """

    cases: int
    groups: int
    slices: int
    channels: int
    modality: str
    is_8bit: bool
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    depth: int
    spacing_mm: tuple[float, float, float] | None
    spacing_varies: float
    lowest: float
    foreground_intensities: tuple[float, float]
    label_shares: Mapping[str, float]
    label_cases: Mapping[str, int]


def fingerprint(cases: Sequence[Case], entries: Sequence[Path], labels: LabelMap, modality: str = "") -> Fingerprint:
    """Look at every stored case once.

    Args:
        cases: All of them, with references.
        entries: Where the store keeps each.
        labels: What the masks hold.
        modality: What the data set says of itself.
    """
    measured = [_measure(open_entry(entry)) for entry in entries]  # one open at a time: each takes file descriptors
    shapes = np.array([one.geometry.shape for one in measured])
    counts = np.array([one.label_voxels for one in measured])
    spacings = [one.geometry.spacing_mm for one in measured]
    known = None if None in spacings else np.array(spacings, dtype=np.float64)
    return Fingerprint(
        cases=len(cases),
        groups=len({case.group for case in cases}),
        slices=int(shapes[:, 0].sum()),
        channels=max(one.channels for one in measured),
        modality=modality.upper(),
        is_8bit=all(one.is_8bit for one in measured),
        sizes=_size_percentiles(shapes[:, 1:]),
        depth=int(np.median(shapes[:, 0])),
        spacing_mm=None if known is None else _three(np.median(known, axis=0)),
        spacing_varies=1.0 if known is None else _spread(known[:, 1:]),
        lowest=min(one.lowest for one in measured),
        foreground_intensities=_percentiles(np.concatenate([one.foreground for one in measured])),
        label_shares={
            name: float(counts[:, index].sum() / shapes.prod(axis=1).sum()) for index, name in enumerate(labels.names)
        },
        label_cases={name: int((counts[:, index] > 0).sum()) for index, name in enumerate(labels.names)},
    )


class _Measured(NamedTuple):
    """What is kept of a case when it has been looked at: no array of the store."""

    geometry: Geometry
    label_voxels: tuple[int, ...] | None
    channels: int
    is_8bit: bool
    lowest: float
    foreground: NDArray[np.float32]


def _measure(case: StoredCase) -> _Measured:
    lowest = float(case.image[np.isfinite(case.image)].min())
    is_8bit = case.image.dtype == np.uint8
    return _Measured(case.geometry, case.label_voxels, len(case.image), is_8bit, lowest, _foreground_values(case))


def _foreground_values(case: StoredCase) -> NDArray[np.float32]:
    """Intensities of the store's sample of labelled voxels, all channels together."""
    values = [np.zeros(0, np.float32)]
    for voxels in case.foreground:
        d, h, w = np.asarray(voxels).T
        values.append(np.asarray(case.image[:, d, h, w], dtype=np.float32).ravel())
    found = np.concatenate(values)
    return found[np.isfinite(found)]


def _percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _size_percentiles(sizes: NDArray[np.int64]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    low, middle, high = (np.percentile(sizes, share, axis=0, method="nearest").astype(int) for share in (5, 50, 95))
    return (int(low[0]), int(low[1])), (int(middle[0]), int(middle[1])), (int(high[0]), int(high[1]))


def _spread(in_plane: NDArray[np.float64]) -> float:
    low, high = np.percentile(in_plane, [10, 90], axis=0)
    return float((high / low).max())


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in values)
    return z, y, x
