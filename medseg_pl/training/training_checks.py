"""Checks before a training: its data set, the settings of its Trainer, and parameters that DDP does not wait for."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    EarlyStopping,
    EMAWeightAveraging,
    SpikeDetection,
)
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medseg_pl.checks import LabelCounts, run_quick_checks, summarize_findings
from medseg_pl.core.errors import DataError, SettingError, count_noun
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.duplicates import Duplicate, find_duplicates_across_sides
from medseg_pl.data.prepared_data import PreparedData, find_annotated_labels, find_time_axes
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import describe_left_out, note_doubtful_pattern, note_unknown_patients
from medseg_pl.data.splits import SIDES, SplitSettings
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.models.optimizers import is_score_driven

log = logging.getLogger(__name__)

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

_SHORT = {"None": "32-true", "32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's other names of precisions."""

_MOST = 0.05
"""The share of an average that its first weights may have at the end of a run."""


def require_same_settings(data: object, model: object) -> None:
    """Check that data module and model agree on their images.

    Raises:
        SettingError: The model would see other images than it was made for.
    """
    for name in ("labels", "channels", "context_slices", "resize"):
        ours, theirs = getattr(data, name), getattr(model, name, None)
        if theirs is not None and theirs != ours:
            raise SettingError(
                f"{name} is {ours} in the data module, but {theirs} in the model. Make the data module with "
                "SegmentationDataModule.for_module(module, source), which takes it from there."
            )


def warn_about_left_out(source: Source, cases: Sequence[Case]) -> None:
    """Warn of unused files that may be images, and of time axes.

    Points in time are read as channels.
    """
    for note in find_time_axes(cases):
        log.warning("%s", note)
    lost = [each for each in source.list_left_out() if each.is_lost]
    if lost:
        log.warning(
            "Left out of the data set: %s that may hold an image. %s",
            count_noun(len(lost), "file"),
            describe_left_out(lost),
        )


def warn_about_unknown_patients(source: Source, cases: Sequence[Case], settings: SplitSettings) -> None:
    """Warn before a split is drawn of unknown or doubtful patients.

    Args:
        source: The data set.
        cases: Those of the training.
        settings: Of the split; one that a file or the data gives has settled who is whom.
    """
    if settings.find_explicit_split(cases) is None:
        for note in (*note_unknown_patients(source, cases), *note_doubtful_pattern(source, cases)):
            log.warning("%s.", note[0].upper() + note[1:])


def refuse_faults(data: PreparedData, labels: LabelMap, resize: Resize, *, validates: bool) -> None:
    """Run the checks that need no pixels, and warn of doubtful findings.

    Args:
        data: The data of the training.
        labels: Of its masks.
        resize: How images are resized for the network.
        validates: Whether weights are chosen by the validation cases.

    Raises:
        DataError: A check finds an error, or no validation case holds a label.
        SettingError: Labels were not annotated in some cases, and `labels.partial` does not allow it.
    """
    find_annotated_labels(list(data.cases.values()), labels)
    counted = {
        name: LabelCounts(data.index.get_geometry(number), data.index.get_label_voxels(number))
        for number, name in enumerate(data.cases)
    }
    sides = {side: getattr(data.split, side) for side in SIDES}
    findings = run_quick_checks(list(data.cases.values()), counted, labels, sides, resize)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        faults = " ".join(summarize_findings(errors))
        raise DataError(
            f"The data cannot be trained on as it is ({data.split.origin}). {faults} medseg check looks at every pixel "
            "and may find more."
        )
    annotated = [name for name in data.split.val if any(counted[name].label_voxels or ())]
    if not annotated and validates:
        raise DataError(
            f"None of {count_noun(len(data.split.val), 'validation case')} ({data.split.origin}) holds a label, so no "
            "score can choose the best weights. Move a patient who has one to the validation side."
        )
    for message in summarize_findings(findings):
        log.warning("%s", message)


def refuse_duplicates(data: PreparedData, results: Path, *, allowed: bool) -> tuple[Duplicate, ...]:
    """Search for the same image on two sides of the split.

    It is a leak as much as a patient on both sides is, though no group tells.

    Args:
        data: The data of the training.
        results: A folder for the results of the search.
        allowed: Whether to warn of certain copies instead of refusing them.

    Returns:
        The certain copies.

    Raises:
        DataError: There are certain copies, and they are not allowed.
    """
    alike = find_duplicates_across_sides(data.split, data.cases, data.index, results)
    if similar := [str(duplicate) for duplicate in alike if not duplicate.certain]:
        log.warning(
            "%s like a case on another side of the split: %s. Look at them; if they are copies, give "
            "both the same patient (data.source.group).",
            count_noun(len(similar), "case looks", "cases look"),
            "; ".join(similar[:3]),
        )
    certain = tuple(duplicate for duplicate in alike if duplicate.certain)
    if not certain:
        return ()
    listed = "; ".join(str(duplicate) for duplicate in certain[:3])
    amount = count_noun(len(certain), "case shows", "cases show")
    message = f"{amount} what a case on another side of the split shows: {listed}"
    if not allowed:
        raise DataError(
            f"{message}. Scores would look better than they are. Remove the copies, or give both the same patient "
            "(data.source.group); data.allow_duplicates=true trains all the same, and the run records it."
        )
    log.warning("%s. They are allowed, and recorded in splits.json.", message)
    return certain


def check_trainer(trainer: Trainer, module: nn.Module) -> None:
    """Check that a trainer can train, and trains what it says.

    Args:
        trainer: About to fit.
        module: The model, with an encoder as `backbone` where it has one.

    Raises:
        SettingError: It would fail, or train something else.
    """
    check_precision(str(trainer.precision))
    if not trainer.limit_train_batches:
        raise SettingError("trainer.limit_train_batches is 0, so nothing would be trained. Set it to 1.0.")
    if any(isinstance(callback, SpikeDetection) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise SettingError(
            "Lightning's SpikeDetection cannot be saved in a checkpoint. Leave it out of trainer.callbacks: medseg "
            "stops at the first loss that is not finite."
        )
    several = trainer.world_size > 1
    if several and trainer._accelerator_connector.use_distributed_sampler:
        raise SettingError(
            "trainer.use_distributed_sampler would divide among processes what the data module has divided. "
            "Set it to false."
        )
    finetuning = [callback for callback in trainer.callbacks if isinstance(callback, BaseFinetuning)]  # type: ignore[attr-defined]
    for callback in finetuning if several and isinstance(trainer.strategy, DDPStrategy) else ():
        raise SettingError(
            f"{type(callback).__name__} thaws parameters that DDP does not know, so each process would train its own. "
            "Set trainer.devices to 1, or leave the callback out."
        )
    if any(isinstance(callback, BackboneFinetuning) for callback in finetuning) and not hasattr(module, "backbone"):
        raise SettingError(
            "BackboneFinetuning needs a network with an encoder. Call your network's feature extractor `encoder`, "
            "or leave the callback out."
        )


def check_precision(precision: str) -> None:
    """Raise `SettingError` for a precision whose weights are not of 32 bits.

    >>> check_precision("bf16-mixed")
    """
    if _SHORT.get(precision, precision) in _PRECISIONS:
        return
    nearest = f"{precision.removesuffix('-true')}-mixed" if precision in ("16-true", "bf16-true") else "32-true"
    why = "would score in half precision too" if nearest.endswith("mixed") else "is none that medseg computes in"
    raise SettingError(f"trainer.precision {precision} {why}. Set it to {nearest}.")


def require_validation(trainer: Trainer, schedulers: Iterable[Any]) -> None:
    """Refuse a training without the validation that something waits for.

    Any other training without validation gets a warning.

    Args:
        trainer: Starts to fit.
        schedulers: Schedules of the learning rate.

    Raises:
        SettingError: Early stopping or a schedule would find no scores.
    """
    if trainer.enable_validation or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    waiting = [type(callback).__name__ for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    waiting += [type(scheduler).__name__ for scheduler in schedulers if is_score_driven(scheduler)]
    if waiting:
        raise SettingError(
            f"{waiting[0]} waits for scores, but trainer.limit_val_batches is 0: there is no validation. Leave out one "
            "of them."
        )
    log.warning(
        "trainer.limit_val_batches is 0: without a validation there is no best.ckpt, and there are no scores. "
        "last.ckpt has the weights."
    )


def exclude_from_ddp(strategy: DDPStrategy, module: nn.Module, names: Sequence[str]) -> list[str]:
    """Exclude parameters that never get a gradient from DDP.

    A strategy that looks for them itself is left alone.

    Args:
        strategy: Has not wrapped the module yet.
        module: Will be wrapped.
        names: Its parameters without a gradient.

    Returns:
        The names that were excluded.
    """
    if not names or strategy._ddp_kwargs.get("find_unused_parameters"):
        return []
    # Frozen ones would be missing in the optimizer, and checkpoints differ from those of one process.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, list(names))  # type: ignore[no-untyped-call]
    _warn_about_excluded(names)
    return list(names)


def find_unused_parameters(strategy: DDPStrategy) -> None:
    """Let DDP find the parameters that take part in each step.

    DDP has to know a frozen encoder from the beginning, or its gradients would not be shared after it is thawed.

    Args:
        strategy: Has not wrapped the module yet.
    """
    strategy._ddp_kwargs["find_unused_parameters"] = True


def refuse_gradients(module: nn.Module, names: Sequence[str]) -> None:
    """Refuse gradients of parameters that no other process knows.

    Raises:
        SettingError: One of them got a gradient.
    """
    for name in names:
        if module.get_parameter(name).grad is not None:
            raise SettingError(
                f"{name} gets a gradient in some steps only, which DDP does not expect. "
                "Set trainer.strategy to ddp_find_unused_parameters_true."
            )


@rank_zero_only
def _warn_about_excluded(names: Sequence[str]) -> None:
    log.warning(
        "%d parameters of the network take no part in its output (%s, ...); DDP does not wait for their gradients.",
        len(names),
        names[0].removeprefix("model.network."),
    )


def warn_about_slow_average(trainer: Trainer, steps: float) -> None:
    """Warn if Lightning's plain average ends as the run's first weights.

    Args:
        trainer: Whose callbacks are looked at.
        steps: Optimizer steps of the run.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMAWeightAveraging) and (share := compute_first_share(callback, steps)) > _MOST:
            log.warning(
                "At the end of this run's %.0f steps %.0f %% of the averaged weights are those it began with: "
                "EMAWeightAveraging has too slow a decay. Use medseg_pl.training.callbacks.WarmupEMA in its place.",
                steps,
                100 * share,
            )


def compute_first_share(callback: EMAWeightAveraging, steps: float) -> float:
    """Compute the share that the first weights keep in the average.

    Args:
        callback: Says when it averages, and how slowly.
        steps: Optimizer steps of the run, infinite if unknown.

    Returns:
        In [0, 1]; 0 if it averages once an epoch, or never.
    """
    if math.isinf(steps):
        return 0.0
    begin = callback.update_starting_at_step or 0
    updates = (steps - begin) // max(1, callback.update_every_n_steps)
    if callback.update_starting_at_epoch is not None or updates < 1:
        return 0.0  # averages once an epoch or never: not a matter of steps
    return float(_get_plain_decay(callback) ** (updates - 1))


def _get_plain_decay(callback: EMAWeightAveraging) -> float:
    """Ask the averaging function: Lightning keeps the decay nowhere else."""
    average: Callable[[Tensor, Tensor, int], Tensor] = callback._kwargs["avg_fn"]
    return float(average(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 1))
