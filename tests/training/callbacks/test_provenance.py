"""`environment.json` and the line that is printed: what was run on what, the state of the code, no host, no place."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.optim.lr_scheduler import StepLR

from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource
from medseg_pl.training.callbacks.provenance import (
    ProvenanceWriter,
    describe_environment,
    fingerprint_data,
    format_training,
    read_git_state,
)
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from tests.sample_files import blocks, noise, save_raster


def images_of(root: Path, changed: bool = False) -> Path:
    """Six images of six patients; one pixel of one of them may differ."""
    for number in range(6):
        image = noise((16, 16), seed=number)
        image[3, 3] += np.uint8(changed and number == 4)
        save_raster(root / "images" / f"{number}.png", image)
        save_raster(root / "masks" / f"{number}.png", blocks((16, 16), 1))
    return root


def data_of(root: Path, fold: int = 0) -> SegmentationDataModule:
    data = SegmentationDataModule(
        FolderSource(str(root)),
        LabelMap(["lesion"], "binary"),
        input_size=(16, 16),
        batch_size=8,
        num_workers=0,
        cache_dir=str(root / "store"),
        folds=3,
        fold=fold,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def trainer(data: Any, **settings: Any) -> Any:
    """As much of a trainer as is looked at: two devices, three batches a step."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 1e-5, "initial_lr": 3e-4}, {"lr": 1e-3}])
    return Mock(
        spec=Trainer,
        **{
            "datamodule": data,
            "lightning_module": Mock(spec=SegmentationModule, seed=7),
            "world_size": 2,
            "accumulate_grad_batches": 3,
            "optimizers": [optimizer],
            "lr_scheduler_configs": [SimpleNamespace(scheduler=object.__new__(StepLR), interval="epoch")],
            "callbacks": [],
            "current_epoch": 0,
            "precision": "bf16-mixed",
            "fast_dev_run": False,
            **settings,
        },
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationDataModule:
    return data_of(images_of(tmp_path_factory.mktemp("environment")))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Leave torch as it was."""
    yield
    torch.use_deterministic_algorithms(False)


def test_versions_git_and_hardware_are_those_of_this_machine(data: SegmentationDataModule) -> None:
    facts = describe_environment(trainer(data))
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == version("torch")
    assert {"medseg", "lightning", "segmentation-models-pytorch", "numpy"} <= facts["packages"].keys()
    assert all(facts["packages"].values())
    assert facts["git"] == read_git_state(Path.cwd())
    hardware = facts["hardware"]
    assert hardware["cpu"]
    assert hardware["cores"] == len(os.sched_getaffinity(0))
    assert hardware["memory_gib"] > 0.1
    assert len(hardware["gpus"]) == torch.cuda.device_count()
    assert hardware.keys() == {"cpu", "cores", "memory_gib", "gpus", "cuda", "cudnn"}, "no host, no user"
    text = json.dumps(facts)
    assert str(Path.cwd()) not in text and str(data.source.root) not in text


def test_the_training_says_what_a_step_of_it_is(data: SegmentationDataModule) -> None:
    facts = describe_environment(trainer(data))["training"]
    assert facts["seed"] == 7
    assert (facts["batch_size"], facts["world_size"], facts["accumulate_grad_batches"]) == (8, 2, 3)
    assert facts["effective_batch"] == 48
    assert facts["learning_rate"] == [3e-4, 1e-3]  # of the schedule's begin, and of a group without one
    assert format_training(facts) == (
        "effective batch 48 = 8 × 2 devices × 3 accumulated, learning rate 0.0003, 0.001 (StepLR per epoch), "
        "precision bf16-mixed, seed 7"
    )


def test_a_data_module_of_ones_own_has_no_batch_and_no_fingerprint() -> None:
    facts = describe_environment(trainer(Mock(spec=LightningDataModule)))
    assert facts["data"] is None and facts["training"]["effective_batch"] is None
    assert format_training(facts["training"]).startswith(
        "effective batch what the loaders give × 2 devices × 3 accumulated, "
    )


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("setting", [False, True, "warn"])
def test_how_far_results_repeat_is_recorded(setting: Any, data: SegmentationDataModule) -> None:
    torch.use_deterministic_algorithms(bool(setting), warn_only=setting == "warn")
    facts = describe_environment(trainer(data))["training"]
    assert facts["deterministic"] == setting
    assert ("deterministic" in format_training(facts)) == bool(setting)


def test_the_fingerprint_is_of_what_files_hold_and_who_is_trained_on(
    data: SegmentationDataModule, tmp_path: Path
) -> None:
    fingerprint = fingerprint_data(trainer(data))
    assert fingerprint is not None
    for side in ("train", "val", "test"):
        names = getattr(data.prepared.split, side)
        assert fingerprint[side] == {"cases": len(names), "groups": len(names)}
    moved = data_of(images_of(tmp_path / "moved"))
    assert fingerprint_data(trainer(moved)) == fingerprint
    changed = fingerprint_data(trainer(data_of(images_of(tmp_path / "changed", changed=True))))
    split_anew = fingerprint_data(trainer(data_of(tmp_path / "moved", fold=1)))
    assert changed is not None and split_anew is not None
    assert len({fingerprint["sha256"], changed["sha256"], split_anew["sha256"]}) == 3


def test_a_run_that_goes_on_adds_what_it_goes_on_with(
    data: SegmentationDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for world_size in (2, 4):
        running = trainer(data, world_size=world_size, log_dir=str(tmp_path), is_global_zero=True)
        ProvenanceWriter().on_fit_start(running, running.lightning_module)
        assert capsys.readouterr().out.startswith(f"Training: effective batch {24 * world_size} = 8 × {world_size} dev")
    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["training"]["world_size"] == 2
    assert [each["training"]["world_size"] for each in written["resumed"]] == [4]
    assert written["data"] == json.loads(json.dumps(fingerprint_data(trainer(data))))


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=n@example.invalid"]
    command = ["git", *who, "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit of one file."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message=one")
    return tmp_path


def test_the_commit_and_whether_files_differ_from_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "results").mkdir()
    (repository / "results" / "new.txt").write_text("of no matter to the code that runs\n")
    assert read_git_state(repository / "results") == {"commit": commit, "dirty": False}
    (repository / "code.py").write_text("2\n")
    assert read_git_state(repository) == {"commit": commit, "dirty": True}


def test_there_is_none(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    assert read_git_state(tmp_path / "empty") is None, "before the first commit"
    monkeypatch.setenv("PATH", "")
    assert read_git_state(repository) is None, "without git"


def test_no_program_is_run_that_a_repository_names(repository: Path) -> None:
    git(repository, "config", "core.fsmonitor", f"touch {repository / 'canary'}")
    assert read_git_state(repository) is not None
    assert not (repository / "canary").exists()
