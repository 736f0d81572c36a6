"""Metrics of cases in code that knows nothing else of medseg: a plain LightningModule, alone and on two processes."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric, MetricCollection

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseMetric, OverlapMetric, SurfaceMetric

LABELS = LabelMap(["liver", "tumour"], "multiclass")
SPACING = (3.0, 1.5, 0.5)
CASES = 7
Item = tuple[str, Tensor, Tensor]

quiet = pytest.mark.filterwarnings(
    "ignore:The '(train|val)_dataloader' does not have many workers",
    "ignore:The number of training batches",
    # Every process logs the same number: there is nothing to average.
    "ignore:It is recommended to use `self.log.*sync_dist=True",
)


def item(number: int) -> Item:
    """A volume whose image shows a mask with some faults, and the mask; the tumour is not in every case."""
    rng = np.random.default_rng(number)
    mask = np.zeros((2, 9, 8), np.int64)
    mask[:, 2:7, 1:6] = 1
    if number % 2:
        mask[1, 3:5, 2 : 4 + number % 3] = 2
    faulty = np.where(rng.random(mask.shape) < 0.1, rng.integers(0, 3, mask.shape), mask)
    return f"case{number}", torch.from_numpy(faulty).float(), torch.from_numpy(mask)


class TheirModule(LightningModule):
    """Rounds the image to a class; there is a weight, so that it can be trained."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.metric = metric
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[dict[str, float]] = []

    def training_step(self, batch: Item, index: int) -> Tensor:
        return self.weight**2

    def validation_step(self, batch: Item, index: int) -> None:
        case_id, image, reference = batch
        self.metric.update(Prediction.from_masks(case_id, image.round(), reference, spacing_mm=SPACING))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metric.compute())
        self.metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def loader(self) -> DataLoader[Item]:
        own = range(self.trainer.global_rank, CASES, self.trainer.world_size)
        return DataLoader([item(number) for number in own], batch_size=None)

    train_dataloader = val_dataloader = loader


def expected(*metrics: CaseMetric) -> dict[str, float]:
    """The means over all cases, without Lightning and on one process."""
    means = {}
    for metric in metrics:
        for number in range(CASES):
            case_id, image, reference = item(number)
            masks = image.round().numpy(), reference.numpy()
            metric.update(Prediction.from_masks(case_id, *masks, spacing_mm=SPACING))
        means.update({name: float(value) for name, value in metric.compute().items()})
    assert 0 < means.get("dice/tumour", means.get("nsd/tumour", math.nan)) < 1
    return means


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet_options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu",
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{**quiet_options, **options},
    )


def both() -> MetricCollection:
    return MetricCollection(
        {"overlap": OverlapMetric(LABELS), "surface": SurfaceMetric(LABELS, {"liver": 2, "tumour": 1})}
    )


MAKERS: list[Callable[[], Metric | MetricCollection]] = [
    lambda: OverlapMetric(LABELS),
    lambda: SurfaceMetric(LABELS),
    both,
]
ANY = pytest.mark.parametrize("make", MAKERS, ids=["overlap", "surface", "both in a collection"])


def alone(metric: Metric | MetricCollection) -> list[Any]:
    return list(metric.values()) if isinstance(metric, MetricCollection) else [metric]


@ANY
@quiet
def test_in_somebody_elses_module(make: Callable[[], Any], tmp_path: Path) -> None:
    (logged,) = trainer(tmp_path).validate(TheirModule(make()), verbose=False)
    assert logged == pytest.approx(expected(*alone(make())), rel=1e-6)


@ANY
@quiet
def test_in_somebody_elses_training(make: Callable[[], Any], tmp_path: Path) -> None:
    # With the sanity check before it and two epochs: what an epoch forgot would be a case that came twice.
    module = TheirModule(make())
    run = trainer(tmp_path, max_epochs=2, num_sanity_val_steps=2)
    run.fit(module)
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged == pytest.approx(expected(*alone(make())), rel=1e-6)
    assert [metric.table() for metric in alone(module.metric)] == [[] for _ in alone(module.metric)]


@ANY
@quiet
def test_on_two_processes_of_lightning(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    run = trainer(tmp_path, strategy="ddp_fork", devices=2)
    (logged,) = run.validate(TheirModule(make()), verbose=False)
    assert run.world_size == 2
    assert logged == pytest.approx(expected(*alone(make())), rel=1e-6)


@pytest.fixture
def two_processes(tmp_path: Path) -> Iterator[Callable[[Callable[[int], Any]], list[Any]]]:
    """Runs a function of the rank in two processes that know each other, and gives what it returned in each."""
    context = multiprocessing.get_context("fork")
    processes: list[Any] = []

    def run(work: Callable[[int], Any]) -> list[Any]:
        results = context.Queue()

        def on_rank(rank: int) -> None:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", rank=rank, world_size=2)
            results.put((rank, work(rank)))
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

        processes.extend(context.Process(target=on_rank, args=(rank,)) for rank in (0, 1))
        for process in processes:
            process.start()
        found = dict(results.get(timeout=30) for _ in processes)
        return [found[rank] for rank in (0, 1)]

    yield run
    for process in processes:
        process.join(30)
        process.kill()


# What torchmetrics says of a process that was given no case is true, and does no harm: the table is that of all.
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before the ``update``")
@ANY
@pytest.mark.parametrize("first_rank", [range(0, 7, 2), range(6), range(7)], ids=["4 and 3", "6 and 1", "7 and none"])
def test_every_process_computes_the_same(
    make: Callable[[], Any], first_rank: range, two_processes: Callable[[Callable[[int], Any]], list[Any]]
) -> None:
    def means(rank: int) -> dict[str, float]:
        metric = make()
        for number in reversed(range(CASES)):
            if (number in first_rank) == (rank == 0):
                case_id, image, reference = item(number)
                metric.update(Prediction.from_masks(case_id, image.round(), reference, spacing_mm=SPACING))
        return {name: repr(float(value)) for name, value in metric.compute().items()}

    reference = {name: repr(value) for name, value in expected(*alone(make())).items()}
    assert two_processes(means) == [reference, reference]
