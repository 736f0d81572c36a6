"""The shipped batch scripts on a real Slurm cluster of two nodes, which happen to be one machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from tests.cluster.slurm import SlurmCluster, wait_until
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.cluster

STEPS = 100
"""Of an epoch: enough to be stopped in the middle of one."""
LIFETIME = 600
"""Seconds that a job may take on a machine that does other things, too."""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What follows the name of the batch script: small data, a small network, two processes on CPUs."""
    folder = tmp_path_factory.mktemp("data")
    write_phantom(folder / "phantom", "uw_madison", cases=8, seed=0, slices=6, size=(40, 36))
    logger = {
        # Beside the run's own, which is written every hundred steps: the test has to know when training goes on.
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "watch", "flush_logs_every_n_steps": 5},
    }
    (folder / "watch.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [logger]}}))
    return [
        *("--config", str(Path("configs/experiment/demo.yaml").resolve())),
        *("--config", str(Path("configs/trainer/ddp_cpu.yaml").resolve())),
        *("--config", str(folder / "watch.yaml")),
        *SMALL,
        f"--data.source.root={folder / 'phantom'}",
        "--data.batch_size=2",
        f"--data.samples_per_epoch={2 * 2 * STEPS}",
        "--data.num_workers=1",
        "--trainer.max_epochs=2",
    ]


def submit(cluster: SlurmCluster, script: str, folder: Path, arguments: list[str], *options: str) -> str:
    """Start a job in a folder; its id."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "medseg").write_text(f'#!/bin/sh\nexec {sys.executable} -m medseg_pl "$@"\n')
    (programs / "medseg").chmod(0o755)
    environment = {
        "PATH": os.pathsep.join((str(programs), cluster.environment["PATH"])),
        "PYTHONPATH": str(Path.cwd()),
        "MASTER_ADDR": "127.0.0.1",  # the nodes' names are known to Slurm alone
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    fewer = ["--gpus-per-node=0", "--cpus-per-task=1"]
    command = ["sbatch", "--parsable", *fewer, *options, str(Path(script).resolve()), *arguments]
    return cluster.call(*command, cwd=folder, environment=environment).strip()


def finish(cluster: SlurmCluster, job: str, log: Path) -> dict[str, str]:
    """Wait for a job's end, which has to be a good one."""
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    wait_until(lambda: cluster.job(job)["JobState"] in over, LIFETIME, cluster)
    found = cluster.job(job)
    assert found["JobState"] == "COMPLETED", log.read_text()[-3000:]
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a training ended with."""
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2 * STEPS
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def test_a_training_on_two_nodes_that_is_put_back_into_the_queue(
    cluster: SlurmCluster, arguments: list[str], tmp_path: Path
) -> None:
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    first = submit(cluster, "configs/slurm/train.sbatch", disturbed, arguments, "--nodes=2")
    watched = disturbed / "watch" / "lightning_logs" / "version_0" / "metrics.csv"
    wait_until(lambda: watched.exists() and len(watched.read_text().splitlines()) > STEPS // 5, LIFETIME, cluster)
    cluster.call("scancel", "--signal=USR1", first)
    finished = finish(cluster, first, disturbed / f"medseg_{first}.log")
    assert finished["Restarts"] == "1"
    assert finished["NumNodes"] == "2"

    log = (disturbed / f"medseg_{first}.log").read_text()
    saved = [int(step) for step in re.findall(r"Asked to stop \(SIGUSR1\)\. Step (\d+) is saved", log)]
    assert len(set(saved)) == 1, log
    assert 0 < saved[0] < STEPS, "in mid-epoch"

    second = submit(cluster, "configs/slurm/train.sbatch", undisturbed, arguments, "--nodes=2")
    assert finish(cluster, second, undisturbed / f"medseg_{second}.log")["Restarts"] == "0"

    runs = [disturbed / "runs" / f"medseg_{first}", undisturbed / "runs" / f"medseg_{second}"]
    assert [[path.name for path in run.iterdir()] for run in runs] == [["version_0"], ["version_0"]]
    resumed, expected = (weights(run / "version_0") for run in runs)
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name

    scores = [(run / "version_0" / "scores_val.csv").read_bytes() for run in runs]
    assert scores[0] == scores[1]
    alone = tmp_path / "alone"
    (alone / "checkpoints").mkdir(parents=True)
    shutil.copy(runs[0] / "version_0" / "checkpoints" / "best.ckpt", alone / "checkpoints")
    single = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
    assert main(["validate", "--ckpt_path", str(alone / "checkpoints" / "best.ckpt"), *single]) == 0
    assert (alone / "scores_val.csv").read_bytes() == scores[0]


def test_each_fold_is_a_job(cluster: SlurmCluster, arguments: list[str], tmp_path: Path) -> None:
    short = ["--data.samples_per_epoch=4", "--data.folds=2", "--trainer.max_epochs=1"]
    folder = tmp_path / "folds"
    job = submit(cluster, "configs/slurm/crossval.sbatch", folder, [*arguments, *short], "--array=0-1%1")
    for fold in range(2):
        finish(cluster, f"{job}_{fold}", folder / f"crossval_{job}_{fold}.log")
        run = folder / "runs" / f"crossval_{job}" / f"fold_{fold}" / "version_0"
        assert (run / "scores_val.csv").is_file()
        assert yaml.safe_load((run / "config.yaml").read_text())["data"]["fold"] == fold
    # Whichever ends last puts them together.
    assert (folder / "runs" / f"crossval_{job}" / "ensemble.json").is_file()
