"""Trainings that are stopped and resumed, and what each of them saw: `python stopping.py PLAN FOLDER` runs one rank.

A plan is a list of trainings, each with its `name` and `options`, and perhaps with a checkpoint to `resume`, and with
`stops` and `killed_at` as `Stopper` has them.
Rank and number of processes come from the environment, as on a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from medseg_pl.__main__ import main
from medseg_pl.cli.lightning_cli import MedsegCLI
from medseg_pl.data.datasets import PatchDataset

RANKS = os.environ.get("WORLD_SIZE", "1")
EPOCHS = 3
Plan = list[dict[str, Any]]


class Stopper(Checkpoint):
    """Saves checkpoints `NAME-HOOK-BATCHES.ckpt` on the way, and perhaps kills its process.

    Args:
        folder: Of the checkpoints.
        name: Of the training.
        stops: The hooks and the numbers of batches, of all epochs, after which they are saved.
        killed_at: The number of batches after which the process is killed.
    """

    def __init__(self, folder: Path, name: str, stops: Sequence[tuple[str, int]], killed_at: int | None) -> None:
        self.folder = folder
        self.name = name
        self.stops = [tuple(stop) for stop in stops]
        self.killed_at = killed_at

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._stop(trainer, "batch_end")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer, "validation_end")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer, "epoch_end")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer, "train_end")

    def _stop(self, trainer: Trainer, hook: str) -> None:
        done = trainer.fit_loop.total_batch_idx + 1
        if done == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if (hook, done) in self.stops:
            trainer.save_checkpoint(self.folder / f"{self.name}-{hook}-{done}.ckpt")


class Witness(Checkpoint):
    """Notes which samples every batch held, found by their pixels, when validations ran, and how the training ended."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.batches: list[tuple[int, list[list[int]]]] = []
        self.validations: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        known = drawn_as(trainer.train_dataloader.dataset)
        draws = [known[digest(image, mask)] for image, mask in zip(batch.image, batch.mask, strict=True)]
        self.batches.append((batch_idx, draws))
        self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validations.append(trainer.fit_loop.total_batch_idx + 1)
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{self.name}.final.ckpt")

    def _write(self, trainer: Trainer) -> None:
        seen = {"batches": self.batches, "validations": self.validations}
        (self.folder / f"{self.name}.{trainer.global_rank}.json").write_text(json.dumps(seen))


def digest(image: torch.Tensor, mask: torch.Tensor) -> bytes:
    return hashlib.sha256(image.numpy().tobytes() + mask.numpy().tobytes()).digest()


@cache
def drawn_as(dataset: PatchDataset) -> dict[bytes, list[int]]:
    """The epoch and the index of every sample that there can be."""
    draws = [(epoch, index) for epoch in range(EPOCHS) for index in range(len(dataset))]
    known = {}
    for draw in draws:
        sample = dataset[draw]
        known[digest(sample.image, sample.mask)] = list(draw)
    assert len(known) == len(draws), "samples are told apart by their pixels"
    return known


def fit(arguments: Sequence[str], callbacks: Sequence[Callback]) -> int:
    """`medseg fit` with further callbacks."""
    original = MedsegCLI.instantiate_trainer

    def instantiate_trainer(self: MedsegCLI, **kwargs: Any) -> Trainer:
        trainer = original(self, **kwargs)
        trainer.callbacks += callbacks  # type: ignore[attr-defined]
        return trainer

    MedsegCLI.instantiate_trainer = instantiate_trainer  # type: ignore[method-assign]
    try:
        return main(["fit", *arguments])
    finally:
        MedsegCLI.instantiate_trainer = original  # type: ignore[method-assign]


def run(plan: Plan, folder: Path) -> None:
    """Run trainings one after the other; one that ends leaves `NAME.final.ckpt`."""
    for training in plan:
        if int(RANKS) > 1:
            os.environ["WORLD_SIZE"] = RANKS  # Lightning removes it after each run
        name = training["name"]
        stopper = Stopper(folder, name, training.get("stops", ()), training.get("killed_at"))
        resume = ["--ckpt_path", training["resume"]] if "resume" in training else []
        runs = ["--runs", str(folder / "runs"), "--experiment", name]
        devices = [f"--trainer.devices={RANKS}", *(["--trainer.strategy=ddp"] if int(RANKS) > 1 else [])]
        assert fit([*training["options"], *runs, *devices, *resume], [Witness(folder, name), stopper]) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
