"""What a run was: its split and its environment, beside its configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.io.atomic_files import write_text
from medseg_pl.training.callbacks.environment import describe, environment
from medseg_pl.training.datamodule import SegmentationDataModule


class ProvenanceWriter(Callback):
    """Writes `splits.json` and `environment.json` when training starts, and says what a step of it is.

    `splits.json` names the group of each case, so that anyone can see that none is on two sides.

    Where the run was started before, both stay; the environment that it goes on in is added to the `resumed` ones.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once, on rank zero, into the run folder."""
        directory = trainer.log_dir  # a broadcast: every rank takes part
        if not trainer.is_global_zero:
            return
        now = environment(trainer)
        sys.stdout.write(f"Training: {describe(now['training'])}\n")
        if directory is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        splits, record = Path(directory) / "splits.json", Path(directory) / "environment.json"
        if isinstance(data, SegmentationDataModule) and not splits.exists():
            groups = {name: case.group for name, case in sorted(data.prepared.cases.items())}
            write_text(splits, json.dumps({**data.prepared.record_split(), "groups": groups}, indent=1) + "\n")
        if record.exists():
            before = json.loads(record.read_text(encoding="utf-8"))
            now = {**before, "resumed": [*before.get("resumed", []), now]}
        write_text(record, json.dumps(now, indent=1) + "\n", replace=True)
