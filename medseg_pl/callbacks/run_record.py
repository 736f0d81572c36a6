"""What a run was: its split and its environment, beside its configuration."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.io.files import write_text

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


class RunRecord(Callback):
    """Writes `splits.json` and `environment.json` when training starts.

    Where the run was started before, both stay; the environment that it goes on in is added to the `resumed` ones.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once, on rank zero, into the run folder."""
        directory = trainer.log_dir  # a broadcast: every rank takes part
        if not trainer.is_global_zero or directory is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        splits, record = Path(directory) / "splits.json", Path(directory) / "environment.json"
        if isinstance(data, SegmentationDataModule) and data.split is not None and not splits.exists():
            write_text(splits, json.dumps(data.split_record(), indent=1) + "\n")
        now = environment(trainer)
        if record.exists():
            before = json.loads(record.read_text(encoding="utf-8"))
            now = {**before, "resumed": [*before.get("resumed", []), now]}
        write_text(record, json.dumps(now, indent=1) + "\n", replace=True)


def environment(trainer: Trainer) -> dict[str, Any]:
    """Versions and hardware; nothing that names a person, a host or a path."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
