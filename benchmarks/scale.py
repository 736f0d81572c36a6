"""Scale: what start-up, memory and batches cost as the slices grow in number, and what 64 ranks would need.

A cache is filled for each size, in two shapes: every slice a case of its own, and volumes of 100 slices. Few cases are
decoded; the others get hard links of their files, copies of their pixels, and a signature of their own, so that none is
a duplicate. Each size is then measured in a process of its own: a `fit` until its first batch, with the cache present,
once without what a fit keeps beside it and once more; what that process and one that loads hold in memory of their own;
the order of one rank of 64, computed without the others; the tables of scores of 64 ranks, merged. At last batches are
drawn from all stores in turns, from anywhere in each. "CPU" is the time of the processor, which other programs on the
machine hardly change; waiting for a disk is not in it. Linux only (`/proc`).

    python benchmarks/scale.py [--slices 2000 200000] [--shapes images volumes] [--folder DIR] [results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from _report import Claim, finish, taken
from lightning.pytorch import LightningModule, Trainer

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case import locate_case, write_checksums
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.datasets import PatchDataset
from medseg_pl.data.samplers import EpochSampler
from medseg_pl.data.sources import FolderSource
from medseg_pl.io.nifti import write_nifti
from medseg_pl.io.raster import write_png
from medseg_pl.metrics import OverlapMetric
from medseg_pl.metrics.case_metric import CaseScore, MetricTable
from medseg_pl.metrics.summary import summarize
from medseg_pl.training.datamodule import SegmentationDataModule

SIDE, DEPTH, DECODED, RANKS = 64, 100, 10, 64
LABELS = LabelMap(["square"], "binary")
BATCH, BATCHES, WORKERS = 8, 300, 5
SLICES = {"images": [2000, 20000], "volumes": [50000, 200000]}
"""Of each shape more cases than a process keeps open, also in the smaller store: below that a batch costs less."""


def fill(root: Path, cases: int, depth: int) -> None:
    """A data set with its store; `depth` 1 makes images, more of it volumes."""
    suffix = ".png" if depth == 1 else ".nii.gz"
    rng = np.random.default_rng(0)
    for number in range(cases):
        for kind in ("images", "masks"):
            path = root / kind / f"{number // 1000:04}" / f"{number:07}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < DECODED:
                _write(path, _pixels(rng, depth, kind))
            else:
                few = f"{number % DECODED:07}{suffix}"
                path.hardlink_to(root / kind / "0000" / few)
    source = FolderSource(str(root))
    cache = CaseCache(root / "store", source, LABELS)
    listed = source.cases()
    for place, (before, folder) in enumerate(_copies(cache, listed, cache.build(listed[:DECODED], threads=1))):
        _make_different(before, folder, place)


def _pixels(rng: np.random.Generator, depth: int, kind: str) -> np.ndarray:
    if kind == "images":
        return rng.integers(0, 256, (depth, SIDE, SIDE), dtype=np.uint8)
    mask = np.zeros((depth, SIDE, SIDE), np.uint8)
    mask[:, 16:40, 20:44] = 1
    return mask


def _write(path: Path, pixels: np.ndarray) -> None:
    if len(pixels) == 1:
        write_png(path, pixels[0])
    else:
        write_nifti(path, pixels, Geometry(pixels.shape, (2.0, 1.0, 1.0)))


def _copies(cache: CaseCache, cases: list[Case], decoded: CacheIndex) -> Iterator[tuple[Path, Path]]:
    decoding = cache._describe_decoding()
    for place, case in enumerate(cases[DECODED:]):
        before = decoded.locate_case(place % DECODED)
        folder = locate_case(cache.directory, cache._compute_key(case, decoding))
        folder.mkdir(parents=True)
        for file in before.glob("*.npy"):
            if file.name == "image.npy":
                shutil.copyfile(file, folder / file.name)  # pages of its own
            elif file.name != "signature.npy":
                (folder / file.name).hardlink_to(file)
        yield before, folder


def _make_different(before: Path, folder: Path, place: int) -> None:
    """Else all would be duplicates of few."""
    described = json.loads((before / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps({**described, "pixels": f"{described['pixels']}-{place}"}))
    shape = np.load(before / "signature.npy", mmap_mode="r").shape
    np.save(folder / "signature.npy", np.random.default_rng(place).uniform(-1, 1, shape).astype(np.float16))
    write_checksums(folder)  # a case without them is decoded again


class FirstBatch(LightningModule):
    """The smallest network, which notes when its first batch has come."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.came_at = self.worked = 0.0

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        self.came_at, self.worked = time.perf_counter(), time.process_time()
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Timed(SegmentationDataModule):
    """Notes how much work each part of the start is."""

    def prepare_data(self) -> None:
        self.spent = {"prepare_cpu_s": cpu(super().prepare_data)}

    def setup(self, stage: str) -> None:
        self.spent["setup_cpu_s"] = cpu(lambda: super(Timed, self).setup(stage))


def cpu(run: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def measure(root: Path) -> dict[str, float]:
    """All figures of one data set, in a fresh process."""
    for kept in ("listings", "copies"):
        shutil.rmtree(root / "store" / kept, ignore_errors=True)
    first = _start(_data(root))
    data = _data(root)
    found = {"first_cpu_s": first["start_cpu_s"], **_start(data), "own_mb": own_mb(os.getpid())}
    cache, cases = CaseCache(data.cache_dir, data.source, LABELS), list(data.prepared.cases.values())
    found["index_mb"] = cache.locate_index(cases).stat().st_size / 2**20
    found["index_cpu_s"] = cpu(lambda: cache.load_index(cases))
    found["worker_mb"] = statistics.median(_worker_mb(data) for _ in range(WORKERS))
    slices = len(data.train_dataloader().dataset)
    found["order_1_cpu_s"] = cpu(lambda: list(EpochSampler(slices, 0)))
    found["order_64_cpu_s"] = cpu(lambda: list(EpochSampler(slices, 0, rank=RANKS - 1, ranks=RANKS)))
    found["split_mb"] = len(pickle.dumps(data.state_dict())) / 2**20
    return {**found, **_scoring(len(cases))}


def _data(root: Path) -> Timed:
    return Timed(
        source=FolderSource(str(root)),
        labels=LABELS,
        input_size=(SIDE, SIDE),
        batch_size=BATCH,
        num_workers=0,
        split_fractions=(0.8, 0.2, 0.0),
        cache_dir=str(root / "store"),
    )


def _start(data: Timed) -> dict[str, float]:
    module = FirstBatch()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, use_distributed_sampler=False, **quiet)
    started, worked = time.perf_counter(), time.process_time()
    trainer.fit(module, datamodule=data)
    return {"start_s": module.came_at - started, "start_cpu_s": module.worked - worked, **data.spent}


def draw(roots: list[Path]) -> dict[str, float]:
    """Milliseconds of the processor for a batch drawn from anywhere in each cache: medians, in turns."""
    spent: dict[str, list[float]] = {root.name: [] for root in roots}
    patches = {root.name: _patches(root) for root in roots}
    rng = np.random.default_rng(0)
    for _ in range(BATCHES):
        for name, dataset in patches.items():
            places = rng.integers(len(dataset), size=BATCH).tolist()
            spent[name].append(1000 * cpu(lambda: [dataset[0, place] for place in places]))  # noqa: B023
    return {name: statistics.median(times[BATCHES // 10 :]) for name, times in spent.items()}


def _patches(root: Path) -> PatchDataset:
    data = _data(root)
    index = CaseCache(data.cache_dir, data.source, LABELS).load_index(data.source.cases())
    assert index is not None, "`measure` has prepared it"
    return PatchDataset(index, data.resize, 0, data.foreground_fraction, None, 0)


def _worker_mb(data: Timed) -> float:
    data.num_workers = 1
    loading = iter(data.train_dataloader())
    for _ in range(BATCHES):
        if next(loading, None) is None:
            break
    return own_mb(loading._workers[0].pid)


def own_mb(process: int) -> float:
    """Memory that no other process shares, and that the system cannot take back."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_Dirty:\s+(\d+) kB", text)) / 1024


def _scoring(cases: int) -> dict[str, float]:
    """What each rank does when all have scored their share of the cases."""
    values = {"tp": 1, "fp": 2, "fn": 3, "dice": 0.5, "iou": 0.25, "precision": 0.5, "recall": 0.5}
    scores = [[CaseScore(f"{i:07}", f"{i:07}", "square", dict(values), "ok", "mm")] for i in range(cases)]
    parts = [pickle.dumps(scores[rank::RANKS]) for rank in range(RANKS)]
    ledger = MetricTable([OverlapMetric(LABELS)])

    def merge() -> None:
        ledger.metrics[0]._scores = [rows for part in parts for rows in pickle.loads(part)]
        summarize(ledger.table(), LABELS.names, intervals=False)

    return {"scores_cpu_s": cpu(merge), "scores_mb": sum(map(len, parts)) / 2**20}


COLUMNS = {
    "first_cpu_s": "first CPU s",
    "start_s": "start s",
    "start_cpu_s": "start CPU s",
    "prepare_cpu_s": "prepare CPU s",
    "setup_cpu_s": "setup CPU s",
    "index_cpu_s": "index CPU s",
    "index_mb": "index MB",
    "own_mb": "trainer MB",
    "worker_mb": "worker MB",
    "batch_cpu_ms": "batch CPU ms",
    "order_1_cpu_s": "order 1 CPU s",
    "order_64_cpu_s": "order 64 CPU s",
    "scores_cpu_s": "scores CPU s",
    "scores_mb": "scores MB",
    "split_mb": "split MB",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up, memory and batches as the slices grow in number.")
    parser.add_argument("--slices", type=int, nargs="+", help="how many, for each of the sizes; for each shape alike")
    parser.add_argument("--shapes", nargs="+", default=["images", "volumes"], choices=["images", "volumes"])
    parser.add_argument("--folder", help="where the data is made, and left; a temporary folder by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--draw", type=Path, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("results", nargs="?")
    asked = parser.parse_args()
    if asked.measure or asked.draw:
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        print(json.dumps(measure(asked.measure) if asked.measure else draw(asked.draw)))
        return
    sizes = {shape: asked.slices or SLICES[shape] for shape in asked.shapes}
    with tempfile.TemporaryDirectory() as temporary:
        found = of_all(Path(asked.folder or temporary), sizes)
    print("shape | slices | " + " | ".join(COLUMNS.values()))
    for shape, rows in found.items():
        for slices, values in rows.items():
            print(f"{shape} | {slices} | " + " | ".join(f"{values[name]:.3g}" for name in COLUMNS))
    finish(list(claims(found)), found, cores=1)


def of_all(folder: Path, sizes: dict[str, list[int]]) -> dict[str, dict[int, dict[str, float]]]:
    """Fill and measure one size of each shape after the other, then draw from all of them."""
    roots = {(shape, slices): folder / f"{shape}-{slices}" for shape in sizes for slices in sizes[shape]}
    found: dict[str, dict[int, dict[str, float]]] = {shape: {} for shape in sizes}
    for (shape, slices), root in roots.items():
        if not root.exists():
            depth = 1 if shape == "images" else DEPTH
            spent = taken(lambda: fill(root, slices // depth, depth))  # noqa: B023
            os.sync()  # a page that is not on the disk yet would count as memory of whoever maps it
            print(f"{root.name}: made in {spent:.0f} s", flush=True)
        found[shape][slices] = _in_a_process("--measure", root)
        print(f"{root.name}: {found[shape][slices]['start_s']:.1f} s to the first batch", flush=True)
    drawn = _in_a_process("--draw", *roots.values())
    for (shape, slices), root in roots.items():
        found[shape][slices]["batch_cpu_ms"] = drawn[root.name]
    return found


def _in_a_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def claims(found: dict[str, dict[int, dict[str, float]]]) -> Iterator[Claim]:
    """What must not grow."""
    for shape, sizes in found.items():
        few, many = min(sizes), max(sizes)
        peer = f"{few} slices"
        ratio = sizes[many]["batch_cpu_ms"] / sizes[few]["batch_cpu_ms"]
        work = f"work of a batch, {many} slices as {shape}"
        yield Claim(work, peer, "<= 1.25 times", f"{ratio:.2f} times", ratio <= 1.25)
        more = (sizes[many]["worker_mb"] - sizes[few]["worker_mb"]) * 2**20 / max(many - few, 1)
        what, measured = f"memory of a worker, {many} slices as {shape}", f"{more:.0f} bytes a slice"
        yield Claim(what, peer, "<= 100 bytes a slice", measured, more <= 100)


if __name__ == "__main__":
    main()
