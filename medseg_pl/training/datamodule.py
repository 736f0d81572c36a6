"""Data module of a run: cases of a source, split by patient, served as batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from medseg_pl.core.errors import DataError, SettingError, count_noun
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.stop_signals import leave_if_asked
from medseg_pl.core.training_profile import TrainingProfile
from medseg_pl.core.types import Batch, Case, EvaluationBatch, Rater, ResizeMode
from medseg_pl.core.validation import require_at_least
from medseg_pl.data.cache.case_cache import CaseCache, find_default_directory
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.datasets import PatchDataset, SliceDataset, collate_samples, collate_slices, make_worker_options
from medseg_pl.data.prepared_data import (
    PreparedData,
    find_annotated_labels,
    has_other_orientation,
    list_rater_cases,
    prepare_data_set,
    vary_source,
)
from medseg_pl.data.profiling import profile_training
from medseg_pl.data.samplers import CaseBatchSampler, EpochSampler, FixedSampler, TrainingLoader
from medseg_pl.data.sources import Source
from medseg_pl.data.splits import SplitSettings, refuse_trained_groups
from medseg_pl.data.transforms.augmentation import Augmentation
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.progress import show_progress
from medseg_pl.io.scores import SCORED_AGAIN
from medseg_pl.models.annotated_losses import check_soft_targets
from medseg_pl.training.checkpoints.callbacks import count_done_batches
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.recording import keep_settings
from medseg_pl.training.training_checks import (
    refuse_duplicates,
    refuse_faults,
    require_same_settings,
    warn_about_left_out,
    warn_about_unknown_patients,
)

log = logging.getLogger(__name__)


class SegmentationDataModule(LightningDataModule):
    """Serves batches of cases that are split by patient.

    Each case is decoded once.

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
        foreground_fraction: The share of training patches that are centered on a label.
        augmentation: What happens to training patches.
        raters: For each further rater the settings of the source that differ, such as `[{masks: masks_2nd}]`;
            validation and test keep to the source's own masks.
        rater: Whose masks are trained on: `first`, `random` at each sample, or the `mean` as a soft target.
        cache_dir: Where decoded cases are kept; `$MEDSEG_CACHE` or the user's cache folder by default.
        seed: Order and augmentation; linked from `seed_everything` on the command line.

    Raises:
        SettingError: A number is out of its range, or only one of `raters` and `rater` is set.
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
        raters: list[dict[str, Any]] | None = None,
        rater: Rater = "first",
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
        self.samples_per_epoch = samples_per_epoch
        self.foreground_fraction = foreground_fraction
        self.augmentation = augmentation
        if bool(raters) != (rater != "first"):
            raise SettingError(
                f"data.rater {rater} goes with {'data.raters' if rater != 'first' else 'no data.raters'}. Set rater to "
                "random or mean and name the other raters, or leave both out."
            )
        self.rater = rater
        self.rater_sources = [vary_source(source, settings) for settings in raters or ()]
        self.cache_dir = Path(cache_dir) if cache_dir else find_default_directory()
        self.seed = seed
        self._recorded: Mapping[str, Any] = {}
        self._prepared: PreparedData | None = None

    @classmethod
    def for_module(cls, module: SegmentationModule, source: Source, **settings: Any) -> SegmentationDataModule:
        """Make a data module with the settings that belong to the model.

        Args:
            module: The `SegmentationModule` to be trained.
            source: The data set.
            settings: Further arguments of the data module.
        """
        shared: dict[str, Any] = {
            "channels": module.model.channels,
            "context_slices": module.model.context_slices,
            "seed": module.seed,
            "resize": module.model.resize,
            "input_size": module.model.input_size,
            "spacing_mm": module.model.spacing_mm,
        }
        return cls(source, module.labels, **{**shared, **settings})

    @property
    def prepared(self) -> PreparedData:
        """The decoded and split data.

        Raises:
            RuntimeError: `setup` has not run yet.
        """
        if self._prepared is None:
            raise RuntimeError("The data are not prepared. Call prepare_data() and setup(stage) of the data module.")
        return self._prepared

    @property
    def profile(self) -> TrainingProfile | None:
        """Summary of the training cases, which only a training has."""
        return None if self._prepared is None else self._prepared.profile

    def use_checkpoint_split(self, recorded: Mapping[str, Any]) -> None:
        """Keep a checkpoint's split, and refuse its training patients.

        The split is kept unless another is asked for.

        Args:
            recorded: The result of `state_dict` when the checkpoint was written.
        """
        self._recorded = recorded

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to remember of the data."""
        return {} if self._prepared is None else self._prepared.record_training(self.split_settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that training resumes with the patients it began with.

        Raises:
            DataError: It would train on others.
        """
        if self.trainer is None or self.trainer.state.fn != "fit" or self._prepared is None:
            return
        before, now = set(state_dict.get("split", {}).get("train", ())), self._prepared.split.train
        if before != set(now):
            raise DataError(
                f"The checkpoint was trained on {count_noun(len(before), 'case')}, but the split now has {len(now)} or "
                "others for training. Set the split's settings and the data as they were, or start a new run."
            )

    def prepare_data(self) -> None:
        """Decode what the cache lacks, once per machine, and check it."""
        if self.trainer:
            require_same_settings(self, self.trainer.lightning_module)
            if self._unrecorded and self.trainer.state.fn == "fit" and self.trainer.checkpoint_callbacks:
                raise SettingError(self._unrecorded)
        prepared = self._prepare(decodes=True)
        warn_about_left_out(self.source, list(prepared.cases.values()))
        if self.trainer and self.trainer.state.fn == "fit":
            warn_about_unknown_patients(self.source, list(prepared.cases.values()), self.split_settings)
            module = self.trainer.lightning_module
            if self.rater == "mean" and isinstance(module, SegmentationModule):
                check_soft_targets(module.loss, self.labels)
            refuse_faults(prepared, self.labels, self.resize, validates=bool(self.trainer.limit_val_batches))
            copies = refuse_duplicates(prepared, self.cache_dir / "copies", allowed=self.allow_duplicates)
            prepared = replace(prepared, duplicates=copies, raters=self._prepare_raters(prepared, decodes=True))
        self._prepared = prepared

    def setup(self, stage: str) -> None:
        """List the cases, find them in the cache, and split them."""
        prepared = self._prepare(decodes=False, trains=stage == "fit")
        raters = self._prepare_raters(prepared, decodes=False) if stage == "fit" else ()
        self._prepared = replace(prepared, raters=raters)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Serve patches of the training cases, ordered by seed and epoch."""
        names = self.prepared.split.train
        dataset: Any = PatchDataset(
            self.prepared.index.select(names),
            self.resize,
            self.context_slices,
            self.foreground_fraction,
            self.augmentation,
            self.seed,
            find_annotated_labels([self.prepared.cases[name] for name in names], self.labels),
            self.prepared.raters,
            self.rater,
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
            **make_worker_options(self.num_workers),
            pin_memory=torch.cuda.is_available(),
        )
        if self.trainer:
            loader.begin_after(*count_done_batches(self.trainer.fit_loop))
        return loader

    def val_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Serve whole slices of the validation cases."""
        return self._evaluation_loader(self.prepared.split.val)

    def test_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Serve whole slices of the test cases, or else of validation's."""
        split = self.prepared.split
        if not split.test:
            log.warning(
                "The split has no test cases (%s), so %s Hold out cases by data.split_fractions.",
                split.origin,
                SCORED_AGAIN,
            )
        return self._evaluation_loader(self.prepared.test_names)

    def _evaluation_loader(self, names: Sequence[str]) -> DataLoader[EvaluationBatch]:
        cases = [self.prepared.cases[name] for name in names]
        refuse_trained_groups(cases, self._recorded.get("groups", ()))
        dataset = SliceDataset(cases, self.prepared.index.select(names), self.resize, self.context_slices)
        rank, ranks = self._rank()
        return DataLoader(
            dataset,
            batch_sampler=CaseBatchSampler(dataset.depths, dataset.sizes, self.eval_batch_size, rank, ranks),
            collate_fn=collate_slices,
            **make_worker_options(self.num_workers),
            pin_memory=torch.cuda.is_available(),
        )

    def _prepare(self, *, decodes: bool, trains: bool = False) -> PreparedData:
        prepared = self._prepare_source(decodes=decodes, trains=trains)
        # Only where cases lie otherwise: a source that is turned decodes into the cache anew.
        if self.source.orientation is None and has_other_orientation(prepared.index, prepared.orientation):
            self.source = self.source.orient(prepared.orientation)
            prepared = self._prepare_source(decodes=decodes, trains=trains)
        if trains:
            prepared = replace(prepared, profile=profile_training(prepared, self.labels, self.source))
        if (earlier := self._prepared) is None:
            return prepared
        # What was found for training stays known to whoever saves the model after a validation.
        values = prepared.mask_values if trains else earlier.mask_values
        profile = prepared.profile or earlier.profile
        return replace(prepared, duplicates=earlier.duplicates, mask_values=values, profile=profile)

    def _prepare_source(self, *, decodes: bool, trains: bool) -> PreparedData:
        return prepare_data_set(
            self.source,
            self.split_settings,
            partial(self._decode, self.source, decodes=decodes),
            recorded=self._recorded,
            channels=self.channels,
            resize=self.resize,
            mask_labels=self.labels if trains else None,
        )

    def _prepare_raters(self, prepared: PreparedData, *, decodes: bool) -> tuple[CacheIndex, ...]:
        """Decode the training cases once for each other rater."""
        training = [prepared.cases[name] for name in prepared.split.train]
        return tuple(
            self._decode(source, list_rater_cases(source, training), decodes=decodes)
            for source in (each.orient(self.source.orientation) for each in self.rater_sources)
        )

    def _decode(self, source: Source, cases: Sequence[Case], *, decodes: bool) -> CacheIndex:
        cache = CaseCache(self.cache_dir, source, self.labels)
        # The trainer has let one process of each machine prepare: the others need not ask for a million files again.
        index = None if decodes or self.trainer is None else cache.load_index(cases)
        if index is not None:
            return index
        # Machines that share a cache share the work: each begins at a case of its own.
        first = len(cases) * self.trainer.node_rank // self.trainer.num_nodes if self.trainer else 0
        with show_progress("Reading cases", len(cases), show=decodes) as advance:

            def next_case() -> None:
                advance()
                if decodes:  # on one process of each machine, and what is decoded stays
                    leave_if_asked()

            return cache.build(cases, max(2, self.num_workers), next_case, first)

    def _rank(self) -> tuple[int, int]:
        """Return this process and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
