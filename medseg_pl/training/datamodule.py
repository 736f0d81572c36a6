"""The data of a run: source, split, store and loaders."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from medseg_pl.checks import Counted, cheap_findings, in_brief
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.settings import require_at_least
from medseg_pl.core.stop_signals import ParentExitFlag, StopSignals, leave_signals_to_main
from medseg_pl.core.types import Batch, Case, EvaluationBatch, ResizeMode
from medseg_pl.data.cache.index import Catalog, NamedEntries, catalog_of, known_catalog, prepared_catalog
from medseg_pl.data.cache.store import Store, default_directory
from medseg_pl.data.datasets import PatchDataset, SliceDataset, collate_samples, collate_slices
from medseg_pl.data.duplicates import Duplicate, duplicates_across_sides
from medseg_pl.data.samplers import CaseBatchSampler, EpochSampler, FixedSampler
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.unread import describe_left_out
from medseg_pl.data.splits import SIDES, Split, SplitSettings, kept_split, refuse_trained_groups
from medseg_pl.data.time_axes import find_time_axes
from medseg_pl.data.transforms.augmentation import Augmentation
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.data.written_values import find_mask_values
from medseg_pl.io.progress import progress_bar
from medseg_pl.training.checkpoints.loop_state import count_done_batches
from medseg_pl.training.dataloader import TrainingLoader
from medseg_pl.training.recording import keep_settings

log = logging.getLogger(__name__)


@runtime_checkable
class SharedSettings(Protocol):
    """What the data takes from the model."""

    labels: LabelMap
    channels: int
    context_slices: int
    resize: Resize
    seed: int


class SegmentationDataModule(LightningDataModule):
    """Cases of a source, split by patient, decoded once, and served as batches.

    `labels`, `channels`, `context_slices`, `resize`, `input_size` and `spacing_mm` belong to the model and are
    linked from it on the command line; a script calls `SegmentationDataModule.for_module`.

    Args:
        source: The data set.
        labels: The structures in the masks.
        channels: Channels that an image must have.
        context_slices: Neighboring slices on each side.
        resize: `none` or `fit`.
        input_size: `(height, width)` of a training patch.
        spacing_mm: `(y, x)` that slices are resampled to, or `None`.
        batch_size: Training samples in a batch, on each device.
        eval_batch_size: Slices in a batch of validation, test and prediction.
        num_workers: Processes that load; 0 loads in the main one.
        fold: The fold that is held out for validation.
        folds: How many folds there are.
        split_fractions: Shares of patients for train, validation and test; takes the place of folds.
        split_file: A `splits.json`; takes the place of both.
        split_seed: Shuffles the patients; apart from the training's seed, so that runs stay comparable.
        allow_duplicates: Whether the same image may be on two sides of the split; it is recorded in the run.
        samples_per_epoch: How long an epoch is; each slice once by default.
        foreground_fraction: The share of training patches that are centerd on a label.
        augmentation: What happens to training patches.
        cache_dir: Where decoded cases are kept; `$MEDSEG_CACHE` or the user's cache folder by default.
        seed: Order and augmentation; linked from `seed_everything` on the command line.
    """

    def __init__(
        self,
        source: Source,
        labels: LabelMap,
        channels: int = 1,
        context_slices: int = 0,
        resize: ResizeMode = "none",
        input_size: tuple[int, int] = (256, 256),
        spacing_mm: tuple[float, float] | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int = 2,
        fold: int = 0,
        folds: int = 5,
        split_fractions: tuple[float, float, float] | None = None,
        split_file: str | None = None,
        split_seed: int = 0,
        allow_duplicates: bool = False,
        samples_per_epoch: int | None = None,
        foreground_fraction: float = 0.33,
        augmentation: Augmentation | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self._unrecorded = keep_settings(self, given, "data")
        require_at_least(
            "data", batch_size=(batch_size, 1), eval_batch_size=(eval_batch_size, 1), num_workers=(num_workers, 0)
        )
        if samples_per_epoch is not None:
            require_at_least("data", samples_per_epoch=(samples_per_epoch, 1))
        if not 0 <= foreground_fraction <= 1:
            raise SettingError(f"data.foreground_fraction must be from 0 to 1; got {foreground_fraction}.")
        self.source = source
        self.labels = labels
        self.channels = channels
        self.context_slices = context_slices
        self.resize = Resize(resize, (input_size[0], input_size[1]), spacing_mm and (spacing_mm[0], spacing_mm[1]))
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.split_settings = SplitSettings(
            fold, folds, split_fractions and tuple(split_fractions), split_file, split_seed
        )
        self.allow_duplicates = allow_duplicates
        self.duplicates: list[Duplicate] = []
        self.samples_per_epoch = samples_per_epoch
        self.foreground_fraction = foreground_fraction
        self.augmentation = augmentation
        self.cache_dir = Path(cache_dir) if cache_dir else default_directory()
        self.seed = seed
        self.split: Split | None = None
        self.mask_values: list[int] | None = None
        self.cases: dict[str, Case] = {}
        self.entries = NamedEntries([], catalog_of([]))
        self.stop = StopSignals()
        self._trained: Mapping[str, Any] = {}

    @classmethod
    def for_module(cls, module: SharedSettings, source: Source, **settings: Any) -> SegmentationDataModule:
        """Make a data module that takes labels, channels, context, resizing, size, spacing and seed from the model.

        Args:
            module: The `SegmentationModule` to be trained.
            source: The data set.
            settings: Further arguments of the data module.
        """
        resize = module.resize
        shared: dict[str, Any] = {
            "channels": module.channels,
            "context_slices": module.context_slices,
        }
        shared |= {
            "seed": module.seed,
            "resize": resize.mode,
            "input_size": resize.size,
            "spacing_mm": resize.spacing_mm,
        }
        return cls(source, module.labels, **{**shared, **settings})

    def score_as_trained(self, trained: Mapping[str, Any]) -> None:
        """Score a checkpoint: keep its split unless another is asked for, and refuse what it was trained on.

        Args:
            trained: What `state_dict` gave when the checkpoint was written.
        """
        self._trained = trained

    def given_split(self, cases: Sequence[Case]) -> Split | None:
        """The checkpoint's split where its settings are unchanged, else one that a file or the data set gives."""
        if self._trained and self._trained["settings"] == self.split_settings.as_dict():
            return kept_split(self._trained["split"], cases)
        return self.split_settings.given(cases)

    def scored(self, stage: str) -> dict[str, str]:
        """Which side of which split the scores of a stage are of; for the summary, so that nobody has to guess."""
        assert self.split is not None, "setup comes first"
        side = "test" if stage == "test" and self.split.test else "val"
        return {"side": side, "split": self.split.origin}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to remember of the data: who was trained on, and the values in their masks."""
        if self.split is None:
            return {}
        groups = sorted({self.cases[name].group for name in self.split.train})
        return {
            "split": self.split_record(),
            "groups": groups,
            "settings": self.split_settings.as_dict(),
            "mask_values": self.mask_values,
        }

    def split_record(self) -> dict[str, Any]:
        """The split, and the duplicates on its sides that were allowed; reads back as `data.split_file`."""
        assert self.split is not None, "setup comes first"
        accepted = [duplicate.as_dict() for duplicate in self.duplicates]
        return {**self.split.as_dict(), **({"accepted_duplicates": accepted} if accepted else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See that training goes on with the patients it began with."""
        before = set(state_dict.get("split", {}).get("train", ()))
        if self.trainer and self.trainer.state.fn == "fit" and self.split and before != set(self.split.train):
            raise DataError(
                f"The checkpoint was trained on {len(before)} cases, but the split now has {len(self.split.train)} or "
                "others for training. Set the split's settings and the data as they were, or start a new run."
            )

    def prepare_data(self) -> None:
        """Decode what is not in the store yet, on one process of each machine, and find faults before a run begins."""
        self._check_module()
        self._find(preparing=True)
        self._warn_of_left_out()
        if self.trainer and self.trainer.state.fn == "fit":
            self._refuse_faults()
            self._refuse_duplicates()

    def setup(self, stage: str) -> None:
        """Find the cases and their entries, and split them; see how the masks of training are written."""
        self._find(preparing=False)
        if stage == "fit" and self.split is not None:
            training = [self.cases[name] for name in self.split.train]
            self.mask_values = find_mask_values(self.source, training, self.labels)

    def _check_module(self) -> None:
        """Raise `SettingError` where the model would see other images than it was made for."""
        if (trainer := self.trainer) is None:
            return
        for name in ("labels", "channels", "context_slices", "resize"):
            mine, models = getattr(self, name), getattr(trainer.lightning_module, name, None)
            if models is not None and models != mine:
                raise SettingError(
                    f"{name.removesuffix('_to')} is {mine} in the data module, but {models} in the model. Make the "
                    "data module with SegmentationDataModule.for_module(module, source), which takes it from there."
                )
        if self._unrecorded and trainer.state.fn == "fit" and trainer.checkpoint_callbacks:
            raise SettingError(self._unrecorded)

    def _find(self, *, preparing: bool) -> None:
        cases = self.source.cases()
        self._require_masks(cases)
        self.split = self.given_split(cases)
        if self.split is not None:
            named = {*self.split.train, *self.split.val, *self.split.test}
            cases = [case for case in cases if case.case_id in named]
        self.cases = {case.case_id: case for case in cases}
        self.entries = NamedEntries(self.cases, self._decode(cases, preparing=preparing))
        if self.split is None:
            counted = {name: self.entries.catalog.label_voxels(place) for place, name in enumerate(self.cases)}
            voxels = {name: counts for name, counts in counted.items() if counts is not None}
            self.split = self.split_settings.choose(cases, voxels)
        self._check_channels()
        self._check_spacing()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Patches of the training cases, in an order that follows from seed and epoch."""
        assert self.split is not None, "setup comes first"
        dataset: Any = PatchDataset(
            self.entries.of(self.split.train),
            self.split.train,
            self.resize,
            self.context_slices,
            self.foreground_fraction,
            self.augmentation,
            self.seed,
        )
        rank, ranks = self._rank()
        fixed = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        make_sampler = FixedSampler if fixed else EpochSampler
        sampler = make_sampler(len(dataset), self.seed, self.samples_per_epoch, rank, ranks)
        # Lightning opens the first iterator before it tells the sampler the epoch, which matters after a resume.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        loader = TrainingLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate_samples,
            drop_last=len(sampler) >= self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=partial(_begin_to_load, ParentExitFlag()),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        if self.trainer:
            loader.begin_after(*count_done_batches(self.trainer.fit_loop))
        return loader

    def val_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Whole slices of the validation cases."""
        assert self.split is not None, "setup comes first"
        return self._evaluation_loader(self.split.val)

    def test_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Whole slices of the test cases; of the validation cases where the split has no test cases."""
        assert self.split is not None, "setup comes first"
        if not self.split.test:
            log.warning("The split has no test cases (%s): testing on the validation cases.", self.split.origin)
        return self._evaluation_loader(self.split.test or self.split.val)

    def _evaluation_loader(self, names: Sequence[str]) -> DataLoader[EvaluationBatch]:
        cases = [self.cases[name] for name in names]
        refuse_trained_groups(cases, self._trained.get("groups", ()))
        dataset = SliceDataset(cases, self.entries.of(names), self.resize, self.context_slices)
        rank, ranks = self._rank()
        return DataLoader(
            dataset,
            batch_sampler=CaseBatchSampler(dataset.depths, dataset.sizes, self.eval_batch_size, rank, ranks),
            collate_fn=collate_slices,
            num_workers=self.num_workers,
            worker_init_fn=partial(_begin_to_load, ParentExitFlag()),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _decode(self, cases: Sequence[Case], *, preparing: bool) -> Catalog:
        store = Store(self.cache_dir, self.source, self.labels)
        # The trainer has let one process of each machine prepare: the others need not ask for a million files again.
        known = None if preparing or self.trainer is None else known_catalog(store, cases)
        if known is not None:
            return known
        with progress_bar("Reading cases", len(cases), show=preparing) as advance:

            def next_case() -> None:
                advance()
                if preparing:  # on one process of each machine, and what is decoded stays
                    self.stop.leave_before_training()

            entries = store.build(cases, max(2, self.num_workers), next_case, first=self._first_of_node(len(cases)))
        return prepared_catalog(store, cases, entries)

    def _refuse_faults(self) -> None:
        """What `medseg check` finds without a look at pixels: errors stop the run, and what is doubtful is told."""
        assert self.split is not None, "setup comes first"
        known = self.entries.catalog
        counted = {
            name: Counted(known.geometry(place), known.label_voxels(place)) for place, name in enumerate(self.cases)
        }
        sides = {side: getattr(self.split, side) for side in SIDES}
        findings = cheap_findings(list(self.cases.values()), counted, self.labels, sides, self.resize)
        errors = [finding for finding in findings if finding.level == "error"]
        if errors:
            raise DataError(
                f"The data cannot be trained on as it is ({self.split.origin}). {' '.join(in_brief(errors))} medseg "
                "check looks at every pixel and may find more."
            )
        annotated = [name for name in self.split.val if any(counted[name].label_voxels or ())]
        if not annotated and self.trainer and self.trainer.limit_val_batches:
            raise DataError(
                f"None of the {len(self.split.val)} validation cases ({self.split.origin}) holds a label, so no score "
                "can choose the best weights. Move a patient who has one to the validation side."
            )
        for said in in_brief(findings):
            log.warning("%s", said)

    def _warn_of_left_out(self) -> None:
        for note in find_time_axes(list(self.cases.values())):
            log.warning("%s", note)
        lost = [each for each in self.source.left_out() if each.is_lost]
        if lost:
            log.warning(
                "%d file(s) of the data set may hold an image and are left out. %s", len(lost), describe_left_out(lost)
            )

    def _refuse_duplicates(self) -> None:
        """The same image on two sides is a leak as well as a patient is, and no group tells."""
        assert self.split is not None, "setup comes first"
        alike = duplicates_across_sides(self.split, self.cases, self.entries, self.cache_dir / "copies")
        self.duplicates = [duplicate for duplicate in alike if duplicate.certain]
        if similar := [str(duplicate) for duplicate in alike if not duplicate.certain]:
            log.warning(
                "%d cases look like a case on another side of the split: %s. Look at them; if they are copies, give "
                "both the same patient (data.source's group).",
                len(similar),
                "; ".join(similar[:3]),
            )
        if not self.duplicates:
            return
        listed = "; ".join(str(duplicate) for duplicate in self.duplicates[:3])
        found = f"{len(self.duplicates)} cases show what a case on another side of the split shows: {listed}"
        if not self.allow_duplicates:
            raise DataError(
                f"{found}. Scores would look better than they are. Remove the copies, or give both the same patient "
                "(data.source's group); data.allow_duplicates=true trains all the same, and the run records it."
            )
        log.warning("%s. They are allowed, and recorded in splits.json.", found)

    def _check_channels(self) -> None:
        found = self.entries.catalog.shapes[:, 0]
        for place in np.flatnonzero(found != self.channels)[:1].tolist():
            raise SettingError(
                f"{self._named(place)} has {found[place]} channel(s), but model.channels is {self.channels}. Set "
                f"model.channels to {found[place]}, or convert the images that differ."
            )

    def _check_spacing(self) -> None:
        for place in self.entries.catalog.without_spacing()[:1] if self.resize.spacing_mm is not None else ():
            raise SettingError(
                f"{self._named(place)} does not say its spacing, but model.spacing_mm is {self.resize.spacing_mm}. Set "
                "model.spacing_mm to null, or convert the images to a format that holds the spacing."
            )

    def _named(self, place: int) -> str:
        case = list(self.cases.values())[place]
        return f"Case {case.case_id} ({case.images[0]})"

    def _require_masks(self, cases: Sequence[Case]) -> None:
        unlabeled = [case.case_id for case in cases if not case.masks]
        if unlabeled:
            raise DataError(
                f"{len(unlabeled)} of {len(cases)} cases have no mask, {unlabeled[0]} among them. Add the masks or "
                "leave the cases out; images without masks are for predict."
            )

    def _first_of_node(self, cases: int) -> int:
        """Where this machine begins to decode: those that share a store share the work."""
        return cases * self.trainer.node_rank // self.trainer.num_nodes if self.trainer else 0

    def _rank(self) -> tuple[int, int]:
        """This process and how many there are; alone without a trainer, as in a notebook."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _begin_to_load(parent: ParentExitFlag, worker: int) -> None:
    """Leave what the worker was forked with alone: to look for garbage in it would copy the pages that it lies on."""
    leave_signals_to_main(parent)
    gc.freeze()
