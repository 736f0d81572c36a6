"""What a data set is like, in the few numbers from which a configuration follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.intensity import STD
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.splits import SplitSettings
from medseg_pl.planning.objects import ObjectSize, measure_objects, measure_vertical_order

MOST_FOLDS = 5
"""Folds of a plan; fewer where there are fewer patients."""


@dataclass(frozen=True)
class Survey:
    """Properties of a data set known without its pixels.

    Args:
        cases: The number of cases.
        groups: The number of their patients.
        slices: The number of slices they have together.
        channels: Channels of an image, the largest number where they differ.
        types: Of the stored values: `("uint8",)` where all images hold 8 bit.
        sizes: `(height, width)` of the slices at the 5th, 50th and 95th percentile of the cases.
        depth: Slices of a case, the median.
        spacing_mm: `(z, y, x)`, the medians; `None` where a case does not know its own.
        spacing_varies: The 90th percentile of the in-plane spacing over the 10th.
        label_shares: The share of each label in all annotated voxels.
        label_cases: In how many cases each label is.
    """

    cases: int
    groups: int
    slices: int
    channels: int
    types: tuple[str, ...]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    depth: int
    spacing_mm: tuple[float, float, float] | None
    spacing_varies: float
    label_shares: Mapping[str, float]
    label_cases: Mapping[str, int]


@dataclass(frozen=True)
class Fingerprint(Survey):
    """A data set in numbers; planning from it is a pure function.

    Args:
        modalities: The modality of each channel as the data set says, in capitals; empty where it says nothing.
        lowest: The smallest intensity of each channel in any case.
        foreground_intensities: The 0.5th and the 99.5th percentile of the labeled voxels of training cases, of each
            channel.
        contrast_varies: The 90th percentile of the training cases' standard deviations over the 10th.
        share_varies: The same of the share of their voxels that are labeled.
        objects: How large the objects of each label are.
        vertical_order: How much all images have the same side up, see `measure_vertical_order`.
    """

    modalities: tuple[str, ...]
    lowest: tuple[float, ...]
    foreground_intensities: tuple[tuple[float, float], ...]
    contrast_varies: float
    share_varies: float
    objects: Mapping[str, ObjectSize]
    vertical_order: float


def survey_cases(cases: Sequence[Case], index: CacheIndex, labels: LabelMap) -> Survey:
    """Survey all cases by what the cache knows of each.

    Args:
        cases: All of them, with references.
        index: Of the same cases in the cache.
        labels: The labels of the masks.
    """
    # Of (C, D, H, W): channels are no part of a size.
    shapes = index.shapes[:, 1:]
    counts = np.array([index.get_label_voxels(number) for number in range(len(index))])
    # One case without a spacing is enough: sizes in mm would be compared with sizes in pixels.
    spacings_mm = None if np.isnan(index.spacings_mm).any() else index.spacings_mm
    return Survey(
        cases=len(cases),
        groups=len({case.group for case in cases}),
        slices=int(shapes[:, 0].sum()),
        channels=int(index.shapes[:, 0].max()),
        types=tuple(sorted(index.dtypes)),
        sizes=_compute_size_percentiles(shapes[:, 1:]),
        depth=int(np.median(shapes[:, 0])),
        spacing_mm=None if spacings_mm is None else _median_spacing(spacings_mm),
        spacing_varies=1.0 if spacings_mm is None else _compute_spread(spacings_mm[:, 1:]),
        label_shares={
            name: float(counts[:, label].sum() / shapes.prod(axis=1).sum()) for label, name in enumerate(labels.names)
        },
        label_cases={name: int((counts[:, label] > 0).sum()) for label, name in enumerate(labels.names)},
    )


def compute_fingerprint(
    cases: Sequence[Case], index: CacheIndex, labels: LabelMap, modalities: Sequence[str] = ()
) -> Fingerprint:
    """Compute the fingerprint from the pixels of every training case.

    Validation cases teach nothing but their sizes.

    Args:
        cases: All of them, with references.
        index: Of the same cases in the cache.
        labels: The labels of the masks.
        modalities: The modality of each channel as the data set says; one name stands for all of them.
    """
    counted = survey_cases(cases, index, labels)
    training = index.select(_find_training_cases(cases, index))
    by_channel = [
        [_sample_intensities(training[number], channel) for number in range(len(training))]
        for channel in range(counted.channels)
    ]
    # A description may name fewer channels than the files have; the rest is unknown.
    named = list(modalities) * counted.channels if len(modalities) == 1 else list(modalities)
    return Fingerprint(
        **vars(counted),
        modalities=tuple(name.upper() for name in (named + [""] * counted.channels)[: counted.channels]),
        lowest=tuple(min(lowest for lowest, _ in channel) for channel in by_channel),
        foreground_intensities=tuple(
            _compute_percentiles(np.concatenate([foreground for _, foreground in channel])) for channel in by_channel
        ),
        contrast_varies=_compute_spread(
            np.array([training[number].statistics[:, STD].mean() for number in range(len(training))])
        ),
        share_varies=_compute_spread(_compute_labeled_shares(training)),
        objects=measure_objects(training, labels),
        vertical_order=measure_vertical_order(training),
    )


def _find_training_cases(cases: Sequence[Case], index: CacheIndex) -> tuple[str, ...]:
    """Find the cases that `fit` will train on in fold 0."""
    # Where one patient makes no split, they are all cases.
    groups = len({case.group for case in cases})
    settings = SplitSettings(fold=0, folds=min(MOST_FOLDS, groups), fractions=None, file=None, seed=0)
    if groups < 2:
        return tuple(case.case_id for case in cases)
    if (split := settings.find_explicit_split(cases)) is None:
        counts = {case.case_id: index.get_label_voxels(number) for number, case in enumerate(cases)}
        split = settings.choose(cases, {name: voxels for name, voxels in counts.items() if voxels is not None})
    return split.train


def _sample_intensities(case: CachedCase, channel: int) -> tuple[float, NDArray[np.float32]]:
    """Find a channel's lowest value, and the cached sample of labeled voxels.

    A case without the channel has none; `fit` refuses it.
    """
    if channel >= len(case.image):
        return np.inf, np.zeros(0, np.float32)
    pixels = case.image[channel]
    # Volumes that were resampled elsewhere may hold NaN outside of the scan, and any percentile of NaN is NaN.
    finite = pixels[np.isfinite(pixels)]
    values = [np.zeros(0, np.float32)]
    for voxels in case.foreground:
        # Indexing reads these voxels alone: the image is mapped from the disk, and may be large.
        d, h, w = np.asarray(voxels).T
        values.append(np.asarray(pixels[d, h, w], dtype=np.float32))
    foreground = np.concatenate(values)
    lowest = float(finite.min()) if finite.size else np.inf
    return lowest, foreground[np.isfinite(foreground)]


def _compute_labeled_shares(index: CacheIndex) -> NDArray[np.float64]:
    labeled = np.array([index.get_label_voxels(number) for number in range(len(index))])
    return np.asarray(labeled.sum(axis=1) / index.shapes[:, 1:].prod(axis=1))


def _compute_percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _compute_size_percentiles(sizes: NDArray[np.int64]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    # Nearest, so that each is a size that some image has, and no mean of two.
    low, middle, high = (np.percentile(sizes, share, axis=0, method="nearest").astype(int) for share in (5, 50, 95))
    return (int(low[0]), int(low[1])), (int(middle[0]), int(middle[1])), (int(high[0]), int(high[1]))


def _compute_spread(values: NDArray[np.floating[Any]]) -> float:
    # Not the extremes: one odd scanner among hundreds must not decide for all.
    low, high = np.percentile(values, [10, 90], axis=0)
    return float((high / np.maximum(low, np.finfo(np.float32).tiny)).max())


def _median_spacing(spacings_mm: NDArray[np.float64]) -> tuple[float, float, float]:
    z, y, x = np.median(spacings_mm, axis=0).tolist()
    return z, y, x
