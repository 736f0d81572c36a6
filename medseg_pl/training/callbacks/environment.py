"""What a training ran on, with what, and how: enough to repeat it; nothing that names a person, a host or a path."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer

from medseg_pl.data.splits import SIDES
from medseg_pl.io.git import git_state
from medseg_pl.models.optimizers import follows_scores
from medseg_pl.planning.fingerprint import survey
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.training_length import count_accumulated_batches

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


def environment(trainer: Trainer) -> dict[str, Any]:
    """Everything below; `data` is null for a data module of one's own."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": git_state(Path.cwd()),
        "hardware": hardware(),
        "training": training(trainer),
        "data": data_fingerprint(trainer),
    }


def training(trainer: Trainer) -> dict[str, Any]:
    """What a learning rate belongs to: how many samples each step of the optimizer sees, in how many processes."""
    data, module = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]
    batch = data.batch_size if isinstance(data, SegmentationDataModule) else None
    accumulated = count_accumulated_batches(trainer, trainer.current_epoch)
    schedules = [
        f"{type(each.scheduler).__name__} per {'validation' if follows_scores(each.scheduler) else each.interval}"
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
        "deterministic": _deterministic(),
        "threads": torch.get_num_threads(),
    }


def describe(facts: dict[str, Any]) -> str:
    """Put `training` in one line.

    >>> describe({"effective_batch": 32, "batch_size": 8, "world_size": 2, "accumulate_grad_batches": 2,
    ...     "learning_rate": [0.001], "schedule": "StepLR per epoch", "precision": "32-true", "seed": 0,
    ...     "deterministic": False})
    'effective batch 32 = 8 × 2 devices × 2 accumulated, learning rate 0.001 (StepLR per epoch), precision 32-true, \
seed 0'
    """
    factors = f"{facts['world_size']} devices × {facts['accumulate_grad_batches']} accumulated"
    batch = f"{facts['effective_batch']} = {facts['batch_size']} × {factors}"
    if facts["effective_batch"] is None:  # a data module of one's own
        batch = f"what the loaders give × {factors}"
    rate = ", ".join(f"{rate:g}" for rate in facts["learning_rate"])
    rate += f" ({facts['schedule']})" if facts["schedule"] else ""
    exact = {False: "", True: ", deterministic", "warn": ", deterministic where it can be"}[facts["deterministic"]]
    rest = f"precision {facts['precision']}, seed {facts['seed']}{exact}"
    return f"effective batch {batch}, learning rate {rate}, {rest}"


def _deterministic() -> bool | Literal["warn"]:
    """As `trainer.deterministic` has it."""
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return "warn" if warns else torch.are_deterministic_algorithms_enabled()


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs; nothing that tells one machine from another of its kind."""
    return {
        "cpu": _processor(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
    }


def data_fingerprint(trainer: Trainer) -> dict[str, Any] | None:
    """How much data each side has, what it is like, and a digest.

    The digest is of what files hold and how they are read, not of where they are.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, SegmentationDataModule):
        return None
    prepared = data.prepared
    sides = {side: getattr(prepared.split, side) for side in SIDES}
    keys = sorted(
        f"{side} {key.decode()}" for side, names in sides.items() for key in prepared.index.select(names).keys.tolist()
    )
    counted = {
        side: {"cases": len(names), "groups": len({prepared.cases[name].group for name in names})}
        for side, names in sides.items()
    }
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    found = survey(list(prepared.cases.values()), prepared.index, data.labels)
    return {"sha256": digest, **counted, "survey": asdict(found)}


def _processor(table: Path) -> str:
    """The name of the model where Linux says it, the architecture elsewhere."""
    listed = re.search(r"^model name\s*:\s*(.+)$", table.read_text(errors="replace"), re.M) if table.is_file() else None
    return listed[1] if listed else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def _gpu(number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
