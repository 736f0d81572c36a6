"""Datasets of cached cases: training patches, and whole slices for evaluation."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from medseg_pl.core.errors import MedsegError
from medseg_pl.core.intensity import LOW, replace_not_finite
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.stop_signals import ParentExitFlag, leave_signals_to_main
from medseg_pl.core.types import Batch, Case, EvaluationBatch, Rater, Sample, SliceReference, Volume
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.sources import Source
from medseg_pl.data.transforms.augmentation import Augmentation
from medseg_pl.data.transforms.grids import Padding, pad_constant, resize_image, resize_mask, stack_context
from medseg_pl.data.transforms.resize import Resize

Draw = tuple[int, int]
"""Epoch and index: everything random about a training sample follows from them and the seed."""


class SliceIndex:
    """Numbers the slices of many cases from 0, without storing each.

    >>> SliceIndex([3, 2]).locate(4)
    (1, 1)
    """

    def __init__(self, depths: Sequence[int] | NDArray[np.int64]) -> None:
        self._ends = np.cumsum(np.asarray(depths, dtype=np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, index: int) -> tuple[int, int]:
        """Return the case and the slice within it."""
        case = int(np.searchsorted(self._ends, index, side="right"))
        return case, index - (int(self._ends[case - 1]) if case else 0)


class PatchDataset(Dataset[Sample]):
    """Training patches, one for each slice and epoch.

    Some slices give way to a patch around a voxel of a label.

    Args:
        index: The cached cases.
        resize: Crops of `resize.size` on the native grid, or the whole slice scaled into it.
        context: Neighbors on each side of a slice.
        foreground_fraction: The share of samples that are centered on a voxel of a label, each label equally often.
        augmentation: Applied to the patch, or `None`.
        seed: With the epoch and the index, decides everything random.
        annotated: `(cases, N)`, whether each label was annotated; `None` where all were in all cases.
        raters: The same cases with the masks of other raters.
        rater: Whose masks are taken.
    """

    def __init__(
        self,
        index: CacheIndex,
        resize: Resize,
        context: int,
        foreground_fraction: float,
        augmentation: Augmentation | None,
        seed: int,
        annotated: Bool[np.ndarray, "cases n"] | None = None,
        raters: Sequence[CacheIndex] = (),
        rater: Rater = "first",
    ) -> None:
        self.index = index
        self.resize = resize
        self.context = context
        self.foreground_fraction = foreground_fraction
        self.augmentation = augmentation
        self.seed = seed
        self.annotated = annotated
        self.raters = tuple(raters)
        self.rater = rater
        self.slices = SliceIndex(index.shapes[:, 1])

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, draw: Draw) -> Sample:
        """Return the sample of a draw, the same in every process."""
        epoch, index = draw
        # Of the draw alone: not of the worker that happens to serve it, nor of what it served before.
        rng = np.random.default_rng((self.seed, epoch, index))
        number, depth = self.slices.locate(index % len(self))
        # Drawn only where there is a choice, so that other trainings stay as they are.
        indices = (self.index, *self.raters)
        first = int(rng.integers(len(indices))) if self.rater != "first" else 0
        case = indices[first][number]
        others = [index[number] for index in indices if index is not indices[first]]
        masks = [each.mask for each in (case, *(others if self.rater == "mean" else ()))]
        image, mask = self._patch(case, masks, depth, rng)
        # A neighbor is a channel like the slice itself, with the statistics of the whole case.
        statistics = np.tile(case.statistics, (2 * self.context + 1, 1))
        image = as_network_type(image, statistics)
        if self.augmentation is not None:
            image, mask = self.augmentation(image, mask, statistics, int(rng.integers(2**32)))
        if self.rater == "mean":
            mask = average_masks(mask.reshape(len(masks), -1, *mask.shape[1:]))
        return Sample(
            torch.from_numpy(image),
            torch.from_numpy(mask),
            torch.from_numpy(statistics),
            self.index.get_case_id(number),
            None if self.annotated is None else torch.from_numpy(self.annotated[number]),
        )

    def _patch(
        self,
        case: CachedCase,
        masks: Sequence[NDArray[np.uint8] | None],
        depth: int,
        rng: np.random.Generator,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cut a patch of the image and of all masks in turn."""
        center = self._draw_foreground_voxel(case, rng)
        if center is not None:
            depth = center[0]
        resize = self.resize.adapt_to(case.geometry)
        height, width = case.geometry.shape[1:]
        whole = resize.mode == "fit"
        box = (
            (0, 0, height, width)
            if whole
            else (*_choose_origin((height, width), resize.patch, center, rng), *resize.patch)
        )
        # Beyond the image it is as dark as the case's background; zero would be water in a CT.
        lowest = np.tile(case.statistics[:, LOW], 2 * self.context + 1)
        image = crop(stack_context(case.image, depth, self.context), box, lowest)
        drawn = np.concatenate([mask[:, depth] for mask in masks if mask is not None])
        mask = crop(drawn, box, np.zeros(len(drawn), np.uint8))
        if whole:
            return resize.apply(image, lowest), resize.apply_mask(mask)
        return resize_image(image, resize.size), resize_mask(mask, resize.size)

    def _draw_foreground_voxel(self, case: CachedCase, rng: np.random.Generator) -> tuple[int, int, int] | None:
        # By label first and voxel then: else a large organ would have nearly all patches.
        present = [voxels for voxels in case.foreground if len(voxels)]
        if rng.random() >= self.foreground_fraction or not present:
            return None
        voxels = present[rng.integers(len(present))]
        d, h, w = voxels[rng.integers(len(voxels))].tolist()
        return d, h, w


def average_masks(masks: UInt8[np.ndarray, "r m h w"]) -> Float32[np.ndarray, "m h w"]:
    """Average the masks of several raters.

    A voxel that one of them ignored stays ignored.

    Args:
        masks: `(R, M, h, w)`, stored masks of R raters.

    Returns:
        The share of raters who drew the label; 255 where ignored.

    >>> average_masks(np.array([[[[0, 1, 1]]], [[[1, 1, 255]]]], np.uint8)).tolist()
    [[[0.5, 1.0, 255.0]]]
    """
    mean = masks.mean(axis=0, dtype=np.float32)
    return np.where((masks == IGNORE).any(axis=0), np.float32(IGNORE), mean)


class SliceDataset(Dataset[EvaluationBatch]):
    """Whole slices of whole cases, for evaluation and prediction.

    An item is a batch of one slice. `depths` and `sizes` are the slices of each case and their size once resized.

    Args:
        cases: The cases, in the order of the index.
        index: Their decoded pixels.
        resize: How slices are resized for the network.
        context: Neighbors on each side of a slice.
    """

    def __init__(self, cases: Sequence[Case], index: CacheIndex, resize: Resize, context: int) -> None:
        self.cases = list(cases)
        self.index = index
        self.resize = resize
        self.context = context
        geometries = [index.get_geometry(number) for number in range(len(index))]
        self.depths = [geometry.shape[0] for geometry in geometries]
        self.sizes = [resize.adapt_to(geometry).compute_fitted_size(geometry.shape[1:]) for geometry in geometries]
        self.slices = SliceIndex(self.depths)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> EvaluationBatch:
        """Slice `index`, counted through all cases."""
        number, depth = self.slices.locate(index)
        case, cached = self.cases[number], self.index[number]
        resize = self.resize.adapt_to(cached.geometry)
        image, statistics = prepare_slice(cached.image, cached.statistics, depth, self.context, resize)
        return EvaluationBatch(
            image=torch.from_numpy(image)[None],
            statistics=torch.from_numpy(statistics)[None],
            slices=[SliceReference(case.case_id, case.group, depth, cached.geometry, case.annotated_labels)],
            masks=[] if cached.mask is None else [np.array(cached.mask[:, depth])],
        )


def collate_samples(samples: list[Sample]) -> Batch:
    """Stack patches, of mixed types as `float32`."""
    images = [sample.image for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [image.float() for image in images]
    annotated = [sample.annotated for sample in samples if sample.annotated is not None]
    return Batch(
        share_batch(torch.stack(images)),
        share_batch(torch.stack([sample.mask for sample in samples])),
        share_batch(torch.stack([sample.statistics for sample in samples])),
        tuple(sample.case_id for sample in samples),
        share_batch(torch.stack(annotated)) if annotated else None,
    )


def collate_slices(items: list[EvaluationBatch]) -> EvaluationBatch:
    """Join slices of one resized size to a batch.

    Without slices the batch is empty, for a rank without a case.
    """
    if not items:
        return EvaluationBatch(torch.zeros(0, 1, 1, 1), torch.zeros(0, 1, 4), [], [])
    return EvaluationBatch(
        image=share_batch(torch.cat([item.image for item in items])),
        statistics=share_batch(torch.cat([item.statistics for item in items])),
        slices=[reference for item in items for reference in item.slices],
        masks=[mask for item in items for mask in item.masks],
    )


def share_batch(batch: Tensor) -> Tensor:
    """Move a batch to shared memory in the process that loads it.

    The queue to the main process would do it in a thread of its own, whose error nobody hears where `/dev/shm` is full:
    training would wait for this batch for ever.
    """
    return batch if get_worker_info() is None else batch.share_memory_()  # type: ignore[no-untyped-call]


def prepare_slice(
    image: Shaped[np.ndarray, "c d h w"],
    statistics: Float32[np.ndarray, "c 4"],
    depth: int,
    context: int,
    resize: Resize,
) -> tuple[Shaped[np.ndarray, "n H W"], Float32[np.ndarray, "n 4"]]:
    """Prepare a slice with its neighbors as input of the network.

    Args:
        image: A whole case, raw values.
        statistics: Of its channels.
        depth: The number of the slice.
        context: Neighbors on each side.
        resize: For this case.

    Returns:
        `(C * (2 * context + 1), H, W)` pixels, and the statistics of each of these channels.
    """
    repeated = np.tile(statistics, (2 * context + 1, 1))
    pixels = np.array(stack_context(image, depth, context))  # a copy: a stored image is read-only
    return as_network_type(resize.apply(pixels, repeated[:, LOW]), repeated), repeated


def crop(planes: Shaped[np.ndarray, "c h w"], box: tuple[int, int, int, int], fill: NDArray[Any]) -> NDArray[Any]:
    """Cut a box that may reach beyond the image.

    Args:
        planes: `(C, h, w)`.
        box: Top, left, height and width; the first two may be negative.
        fill: The value of each channel outside the image.

    Returns:
        A copy.
    """
    top, left, height, width = box
    rows, columns = planes.shape[1:]
    inner = planes[:, max(0, top) : min(rows, top + height), max(0, left) : min(columns, left + width)]
    beyond = Padding(max(0, -top), max(0, top + height - rows), max(0, -left), max(0, left + width - columns))
    return pad_constant(np.array(inner), beyond, fill)  # a copy: the store is read-only


def as_network_type(image: NDArray[Any], statistics: Float32[np.ndarray, "c 4"]) -> NDArray[Any]:
    """Keep 8-bit images; convert all others to finite `float32`.

    Args:
        image: `(C, H, W)` raw values.
        statistics: `(C, 4)`, for `replace_not_finite`.
    """
    if image.dtype == np.uint8:
        return image
    return replace_not_finite(image.astype(np.float32), statistics)


def _choose_origin(
    size: tuple[int, int],
    patch: tuple[int, int],
    center: tuple[int, int, int] | None,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Choose where a patch begins: anywhere, or around a voxel."""
    origin = []
    for axis, (length, side) in enumerate(zip(size, patch, strict=True)):
        space = length - side
        if space <= 0:
            origin.append(-(-space // 2))  # the odd row at the end, as `center_padding` has it
        elif center is None:
            origin.append(int(rng.integers(space + 1)))
        else:
            origin.append(min(max(center[axis + 1] - side // 2, 0), space))
    return origin[0], origin[1]


T = TypeVar("T")


class LoadedCase(NamedTuple):
    """A case with its pixels, or with the fault of its files.

    Attributes:
        case: The case.
        volume: `None` where the files cannot be read.
        fault: Why they cannot; empty where they can.
    """

    case: Case
    volume: Volume | None
    fault: str = ""


class CaseDataset(Dataset[LoadedCase]):
    """Reads a case when it is asked for.

    A damaged file is a fault of its case and does not stop the others.
    """

    def __init__(self, cases: Sequence[Case], source: Source, labels: LabelMap) -> None:
        self.cases = list(cases)
        self.source = source
        self.labels = labels

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> LoadedCase:
        """Decode case `index`."""
        case = self.cases[index]
        try:
            return LoadedCase(case, self.source.read(case, self.labels))
        except MedsegError as error:
            return LoadedCase(case, None, str(error))


def make_case_loader(cases: Sequence[Case], source: Source, labels: LabelMap, workers: int) -> DataLoader[LoadedCase]:
    """Make a loader of single cases that reads ahead.

    Args:
        cases: The cases to read.
        source: Reads them.
        labels: The labels of their masks.
        workers: The largest number of loading processes, each of them one case ahead.
    """
    return DataLoader(
        CaseDataset(cases, source, labels),
        batch_size=None,  # volumes differ in size, so that none can be stacked
        num_workers=min(workers, len(cases)),
        prefetch_factor=1 if workers and cases else None,
        collate_fn=_as_it_is,
        worker_init_fn=partial(_start_worker, ParentExitFlag()),
    )


def make_worker_options(num_workers: int) -> dict[str, Any]:
    """Make the options of a `DataLoader` with processes that persist."""
    start = partial(_start_worker, ParentExitFlag())
    return {"num_workers": num_workers, "worker_init_fn": start, "persistent_workers": num_workers > 0}


def _start_worker(parent: ParentExitFlag, worker: int) -> None:
    # A terminal sends Ctrl-C to workers as well, whose traces would bury the main process's message.
    leave_signals_to_main(parent)
    # The collector writes into the headers of all objects, which copies every page that was shared by the fork.
    gc.freeze()


def _as_it_is(item: T) -> T:
    return item
