"""Records of a run: its configuration, split and environment, and its training cases in each checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from medseg_pl.core.training_profile import TrainingProfile, calibrate_predictions
from medseg_pl.core.types import Prediction
from medseg_pl.data.profiling import measure_prediction
from medseg_pl.data.splits import SIDES
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.config_files import list_differences
from medseg_pl.io.installation import find_version, read_git_state
from medseg_pl.metrics import gather_from_ranks
from medseg_pl.models.optimizers import is_score_driven
from medseg_pl.planning.fingerprint import survey_cases
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.progress import count_accumulated_batches

log = logging.getLogger(__name__)

PROFILE = "training_profile"
"""Name of the profile of the training cases in a checkpoint."""

_PACKAGES = (
    "medseg",
    "torch",
    "lightning",
    "segmentation-models-pytorch",
    "timm",
    "torchmetrics",
    "albumentations",
    "numpy",
)


class ConfigWriter(SaveConfigCallback):
    """Write `config.yaml` when a run starts.

    When a run resumes, that file stays; changed settings are written as `config_resumed_<n>.yaml` beside it, and named
    on the terminal.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write once, on rank zero, into the run folder."""
        directory = trainer.log_dir  # a broadcast: every rank takes part
        if self.already_saved or directory is None:
            return
        written = _list_configs(Path(directory)) if trainer.is_global_zero else []
        changes = self._list_changes_since(written[-1]) if written else []
        if trainer.is_global_zero and changes:
            log.warning("Settings differ from those that this run had before: %s.", ", ".join(changes))
        if written and not changes:
            self.already_saved = True
        elif written:
            self.config_filename = f"config_resumed_{len(written)}.yaml"
        # Rank zero decides whether to write and under which name: the others may not see its files yet.
        self.already_saved = trainer.strategy.broadcast(self.already_saved)
        self.config_filename = trainer.strategy.broadcast(self.config_filename)
        super().setup(trainer, pl_module, stage)

    def _list_changes_since(self, written: Path) -> list[str]:
        now = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        before = yaml.safe_load(written.read_text(encoding="utf-8"))
        # Both ways, since a setting may be new or gone.
        changes = dict.fromkeys([*list_differences(before, now), *list_differences(now, before)])
        return [name for name in changes if name != "ckpt_path"]


class ProvenanceWriter(Callback):
    """Write `splits.json` and `environment.json` when training starts.

    It also prints what makes up a training step. `splits.json` names the group of each case, so that anyone can see
    that none is on two sides. When a run resumes, both files stay; its new environment is added to the `resumed` ones.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write once, on rank zero, into the run folder."""
        directory = trainer.log_dir  # a broadcast: every rank takes part
        if not trainer.is_global_zero:
            return
        environment = describe_environment(trainer)
        sys.stdout.write(f"Training: {format_training(environment['training'])}\n")
        if directory is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        splits, record = Path(directory) / "splits.json", Path(directory) / "environment.json"
        if isinstance(data, SegmentationDataModule) and not splits.exists():
            groups = {name: case.group for name, case in sorted(data.prepared.cases.items())}
            write_text(splits, json.dumps({**data.prepared.record_split(), "groups": groups}, indent=1) + "\n")
        if record.exists():
            first = json.loads(record.read_text(encoding="utf-8"))
            environment = {**first, "resumed": [*first.get("resumed", []), environment]}
        write_text(record, json.dumps(environment, indent=1) + "\n", replace=True)


class ProfileWriter(Callback):
    """Write the profile of the training cases into each checkpoint.

    It also holds the limits of validation's predictions, those of the last validation before the checkpoint. All ranks
    write the same.
    """

    def __init__(self) -> None:
        self._facts: dict[str, dict[str, float]] = {}
        self._restored: dict[str, Any] | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the predictions of the last validation."""
        self._facts = {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Measure the cases that a batch completes."""
        # Predictions of untrained weights would widen the limits to everything.
        if trainer.sanity_checking or not isinstance(outputs, dict):
            return
        predictions: list[Prediction] = outputs.get("cases", [])
        for case in predictions:
            self._facts[case.case_id] = measure_prediction(case)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the facts of all ranks, before anyone saves a checkpoint."""
        self._facts = dict(sorted(gather_from_ranks(list(self._facts.items()))))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the profile into a checkpoint.

        Before the first validation of a resumed run, it is that of the checkpoint it came from.
        """
        data = getattr(trainer, "datamodule", None)
        profile: TrainingProfile | None = getattr(data, "profile", None)
        # A run that goes on saves before it validates again, and the limits of its past hold until then.
        if not self._facts and self._restored is not None:
            checkpoint[PROFILE] = self._restored
        elif profile is not None:
            checkpoint[PROFILE] = calibrate_predictions(profile, list(self._facts.values())).as_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the profile of the checkpoint that the run goes on from."""
        self._restored = checkpoint.get(PROFILE)


def describe_environment(trainer: Trainer) -> dict[str, Any]:
    """Describe the machine and the data of a training.

    `data` is null for a data module of one's own.
    """
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: find_version(name) for name in _PACKAGES},
        "git": read_git_state(Path.cwd()),
        "hardware": _describe_hardware(),
        "training": _describe_training(trainer),
        "data": fingerprint_data(trainer),
    }


def format_training(training: dict[str, Any]) -> str:
    """Put the `training` of `describe_environment` in one line.

    >>> format_training({"effective_batch": 32, "batch_size": 8, "world_size": 2, "accumulate_grad_batches": 2,
    ...     "learning_rate": [0.001], "schedule": "StepLR per epoch", "precision": "32-true", "seed": 0,
    ...     "deterministic": False})
    'effective batch 32 = 8 × 2 devices × 2 accumulated, learning rate 0.001 (StepLR per epoch), precision 32-true, \
seed 0'
    """
    factors = f"{training['world_size']} devices × {training['accumulate_grad_batches']} accumulated"
    batch = f"{training['effective_batch']} = {training['batch_size']} × {factors}"
    if training["effective_batch"] is None:  # a data module of one's own
        batch = f"what the loaders give × {factors}"
    rate = ", ".join(f"{rate:g}" for rate in training["learning_rate"])
    rate += f" ({training['schedule']})" if training["schedule"] else ""
    exact = {False: "", True: ", deterministic", "warn": ", deterministic where it can be"}[training["deterministic"]]
    rest = f"precision {training['precision']}, seed {training['seed']}{exact}"
    return f"effective batch {batch}, learning rate {rate}, {rest}"


def fingerprint_data(trainer: Trainer) -> dict[str, Any] | None:
    """Describe each side of the split in figures, with a digest.

    The digest covers what files hold, how they are read and on which side they are, not where they are.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, SegmentationDataModule):
        return None
    prepared = data.prepared
    sides = {side: getattr(prepared.split, side) for side in SIDES}
    keys = sorted(
        f"{side} {key.decode()}" for side, names in sides.items() for key in prepared.index.select(names).keys.tolist()
    )
    counts = {
        side: {"cases": len(names), "groups": len({prepared.cases[name].group for name in names})}
        for side, names in sides.items()
    }
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    surveyed = survey_cases(list(prepared.cases.values()), prepared.index, data.labels)
    return {"sha256": digest, **counts, "survey": asdict(surveyed)}


def _describe_training(trainer: Trainer) -> dict[str, Any]:
    """Describe what a learning rate depends on."""
    data, module = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]
    batch = data.batch_size if isinstance(data, SegmentationDataModule) else None
    accumulated = count_accumulated_batches(trainer, trainer.current_epoch)
    schedules = [
        f"{type(each.scheduler).__name__} per {'validation' if is_score_driven(each.scheduler) else each.interval}"
        for each in trainer.lr_scheduler_configs
    ]
    rates = [group.get("initial_lr", group["lr"]) for each in trainer.optimizers for group in each.param_groups]
    return {
        "seed": module.seed if isinstance(module, SegmentationModule) else None,
        "world_size": trainer.world_size,
        "batch_size": batch,
        "accumulate_grad_batches": accumulated,
        "effective_batch": None if batch is None else batch * trainer.world_size * accumulated,
        "learning_rate": sorted({float(rate) for rate in rates}),
        "schedule": ", ".join(schedules) or None,
        "precision": str(trainer.precision),
        "deterministic": _read_determinism(),
        "threads": torch.get_num_threads(),
    }


def _read_determinism() -> bool | Literal["warn"]:
    """Read torch's state as the values that `trainer.deterministic` takes."""
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return "warn" if warns else torch.are_deterministic_algorithms_enabled()


def _describe_hardware() -> dict[str, Any]:
    """Describe processor, cores, memory and GPUs, but no single machine."""
    return {
        "cpu": _read_processor(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _read_memory_gib(),
        "gpus": [_describe_gpu(number) for number in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
    }


def _read_processor(table: Path) -> str:
    """Read the processor's model on Linux, elsewhere its architecture."""
    model = re.search(r"^model name\s*:\s*(.+)$", table.read_text(errors="replace"), re.M) if table.is_file() else None
    return model[1] if model else platform.machine()


def _read_memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def _describe_gpu(number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}


def _list_configs(folder: Path) -> list[Path]:
    """List the configurations in a run folder, oldest first."""
    first, later = folder / "config.yaml", list(folder.glob("config_resumed_*.yaml"))
    return [first, *sorted(later, key=lambda path: (len(path.name), path.name))] if first.is_file() else []
