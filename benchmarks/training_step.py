"""A step of `medseg fit`, with all that it loads, logs and guards, against a bare PyTorch loop on the same network.

Three take turns, step by step, in one process: `medseg fit`; a bare loop that sees the same batch again, so that its
data costs nothing; and a bare loop that loads. All have the same network, loss, optimizer and precision. A round is
as many steps as lie between two lines of the log; medians of the ratios of rounds. The network computes on one core
and leaves the others to what loads, as it does when it computes on a GPU. Where it takes all cores, what loads takes
them from it; that is measured too, and promised nothing.

    python benchmarks/training_step.py [results.json]
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from _report import Claim, finish, taken
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg_pl.__main__ import main as medseg
from medseg_pl.core.types import Batch

ROUNDS, ROUND, BATCH = 5, 10, 16
CONFIG = "configs/experiment/demo.yaml"
FIT, HELD, LOADING = "medseg fit", "bare loop, the same batch", "bare loop, loading"


class BareLoop:
    """Nothing but what a step computes, on a copy of the network."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.network = copy.deepcopy(module.model.network)
        self.optimizer = module.make_optimizer(self.network.parameters())

    def step(self, batch: Batch) -> None:
        image = self.module.model.normalization(batch.image, batch.statistics)
        logits = self.network(image.contiguous(memory_format=self.module.model.memory_format))
        loss = self.module.loss(logits, self.module.labels.target(batch.mask))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class StepTimer(Callback):
    """Writes how long each step of a training was; all that lies between two of its calls belongs to a step.

    Args:
        path: Where to.
        beside: Whether the two bare loops do a step after each step.
    """

    def __init__(self, path: str, beside: bool = False) -> None:
        self.path = Path(path)
        self.beside = beside
        self.spent: dict[str, list[float]] = {FIT: []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        if self.beside:
            self.spent |= {HELD: [], LOADING: []}
            self.held, self.loading = BareLoop(pl_module), BareLoop(pl_module)
            self.batches = iter(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        self.resumed = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, out: Any, batch: Batch, _: int) -> None:
        """Note the time, and let the others do their step."""
        self.spent[FIT].append(time.perf_counter() - self.resumed)
        if self.beside:
            self.spent[HELD].append(taken(lambda: self.held.step(batch)))
            self.spent[LOADING].append(taken(lambda: self.loading.step(next(self.batches))))
        self.resumed = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.spent))


def settings(work: Path, trainer: Mapping[str, object]) -> list[str]:
    """Of the demo, with nothing but training."""
    files = [f"--data.source.root={work / 'data'}", f"--data.cache_dir={work / 'store'}", f"--runs={work / 'runs'}"]
    training = {
        "accelerator": "cpu",
        "precision": "32-true",
        "check_val_every_n_epoch": 1,
        "limit_val_batches": 1,
        **trainer,
    }
    options = [f"--trainer.{name}={value}" for name, value in training.items()]
    return ["fit", "--config", CONFIG, "--plugins=training_step", "--data.num_workers=1", *files, *options]


def fit(work: Path, steps: int, *, beside: bool = False, threads: int = 1, **trainer: object) -> dict[str, list[float]]:
    """Seconds of each step of a training, which has a process of its own, so that it can start others for its ranks.

    Args:
        work: Has the phantoms in `data`.
        steps: How many; on several devices all together see as many times the samples.
        beside: See `StepTimer`.
        threads: What the network computes with.
        trainer: Settings of the trainer.
    """
    times = work / "times.json"
    timer = ["--trainer.callbacks+=training_step.StepTimer", f"--trainer.callbacks.path={times}"]
    timer.append(f"--trainer.callbacks.beside={beside}")
    samples = BATCH * steps * int(str(trainer.get("devices", 1)))
    length = ["--data.samples_per_epoch", str(samples), "--trainer.max_epochs", "1"]
    command = [sys.executable, "-m", "medseg_pl", *settings(work, trainer), *timer, *length]
    # Where the settings find the timer.
    where = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": str(threads)})
    found: dict[str, list[float]] = json.loads(times.read_text())
    return found


def rounds(seconds: list[float]) -> list[float]:
    """Seconds of each round but the first, in which all is slower."""
    return [sum(seconds[start : start + ROUND]) for start in range(ROUND, len(seconds), ROUND)]


def share(peer: list[float], ours: list[float]) -> float:
    """Our throughput as a share of the peer's."""
    return statistics.median(p / o for p, o in zip(rounds(peer), rounds(ours), strict=True))


def claims(spent: Mapping[str, list[float]], where: str, promised: float | None) -> list[Claim]:
    """Of one training, with its throughputs as shares of what need not load."""
    named = {"a training step, loading included": FIT, "a bare loop that loads": LOADING}
    found = {what: share(spent[HELD], spent[name]) for what, name in named.items()}
    target = "-" if promised is None else f"{promised} of its throughput"
    return [
        Claim(f"{what}, {where}", "a bare loop with its data", target, f"{part:.3f}", promised and part >= promised)
        for what, part in found.items()
    ]


def main() -> None:
    everything = torch.get_num_threads()
    ways = {"on one core": (1, 0.97), **({f"on all {everything} cores": (everything, None)} if everything > 1 else {})}
    found, shown = {}, []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        assert medseg(["phantom", str(work / "data")]) == 0
        for where, (threads, promised) in ways.items():
            found[where] = fit(work, ROUND * (ROUNDS + 1), beside=True, threads=threads)
            shown += claims(found[where], where, promised)
            for name, seconds in found[where].items():
                print(f"{where}: {name:26} {1000 * statistics.median(rounds(seconds)) / ROUND:8.1f} ms a step")
    print(f"{ROUNDS} rounds of {ROUND} steps; throughputs as a share of the peer's")
    finish(shown, found)


if __name__ == "__main__":
    main()
