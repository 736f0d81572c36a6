"""A step of `medseg fit`, with everything that it logs and guards, against a bare PyTorch loop on the same network.

Both see the same batches from the same kind of loader, with the same loss, optimizer and precision. A second bare loop
sees one batch again and again, which tells what loading costs. Medians of the steps of interleaved rounds.

    python benchmarks/training_step.py [results.json]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from _report import Claim, finish
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.__main__ import main as medseg
from medseg_pl.checkpointing import read_trained
from medseg_pl.core.types import Batch
from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.predictor import load_module

ROUNDS, STEPS, WARM, BATCH = 5, 60, 10, 16
CONFIG = "configs/experiment/demo.yaml"


class StepTimer(Callback):
    """Writes when each step ended.

    Args:
        path: Where to.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.ends))


def settings(work: Path, trainer: Mapping[str, object]) -> list[str]:
    """Of the demo, with nothing but training."""
    files = [f"--data.source.root={work / 'data'}", f"--data.store={work / 'store'}", f"--runs={work / 'runs'}"]
    training = {"precision": "32-true", "check_val_every_n_epoch": 1, "limit_val_batches": 1, **trainer}
    options = [f"--trainer.{name}={value}" for name, value in training.items()]
    return ["fit", "--config", CONFIG, "--plugins=training_step", *files, *options]


def fit(work: Path, **trainer: object) -> list[float]:
    """Seconds of each step of a training; on `devices` of them all together see as many times the samples."""
    times = work / "times.json"
    timer = ["--trainer.callbacks+=training_step.StepTimer", f"--trainer.callbacks.path={times}"]
    devices = int(str(trainer.get("devices", 1)))
    samples = ["--data.samples_per_epoch", str(BATCH * STEPS * devices), "--trainer.max_epochs", "1"]
    assert medseg([*settings(work, trainer), *timer, *samples]) == 0
    return durations(json.loads(times.read_text()))


def bare(work: Path, checkpoint: Path, *, resident: bool) -> list[float]:
    """Seconds of each step of a loop that does nothing else."""
    trained = read_trained(str(checkpoint))
    module = load_module(trained).requires_grad_(True).train()
    data = SegmentationDataModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    data.prepare_data()
    data.setup("fit")
    loader: Iterable[Batch] = data.train_dataloader()
    batches = repeat(next(iter(loader))) if resident else loader
    optimizer = module.make_optimizer(module.parameters())
    ends = []
    for batch in islice(batches, STEPS):
        loss = module.loss(module(batch.image, batch.statistics), module.labels.target(batch.mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return durations(ends)


def durations(ends: list[float]) -> list[float]:
    """Of the steps behind the first ones, which are slower."""
    return [after - before for before, after in zip(ends[WARM:-1], ends[WARM + 1 :], strict=True)]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))  # where the settings find the timer
    names = ("medseg fit", "bare loop", "bare loop, one batch again and again")
    steps: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        assert medseg(["phantom", str(work / "data")]) == 0
        for number in range(ROUNDS):
            steps[names[0]] += fit(work, accelerator="cpu")
            checkpoint = work / "runs" / "demo" / f"version_{number}" / "checkpoints" / "last.ckpt"
            steps[names[1]] += bare(work, checkpoint, resident=False)
            steps[names[2]] += bare(work, checkpoint, resident=True)
    medians = {name: statistics.median(seconds) for name, seconds in steps.items()}
    for name, seconds in medians.items():
        print(f"{name:38} {1000 * seconds:8.1f} ms a step")
    step, loop, resident = medians.values()
    claims = [
        Claim("a training step", "a bare loop on the same network", "0.97", f"{loop / step:.3f}", loop / step >= 0.97),
        Claim("real data", "one batch again and again", "0.97", f"{resident / loop:.3f}", resident / loop >= 0.97),
    ]
    print(f"{torch.get_num_threads()} threads, {ROUNDS} rounds of {STEPS} steps; throughputs as a share of the peer's")
    finish(claims, medians)


if __name__ == "__main__":
    main()
