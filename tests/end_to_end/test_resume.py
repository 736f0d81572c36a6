"""A training that is stopped anywhere and resumed ends as if it had never been stopped, bit for bit."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.data.sources import DecathlonSource
from tests.end_to_end.ranks import on_ranks
from tests.end_to_end.stopping import EPOCHS, Plan, run

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")  # a run folder for each part of a training

SAMPLES = 56  # in batches of 4: 14 of them in an epoch
Stop = tuple[str, int]
"""A hook, and how many batches are done."""

CONFIG = """
seed_everything: 3
model:
  network:
    class_path: segmentation_models_pytorch.FPN
    init_args:
      encoder_name: tu-test_resnet
      encoder_depth: 3
      upsampling: 1
      encoder_weights: null
      decoder_pyramid_channels: 16
      decoder_segmentation_channels: 32
      decoder_dropout: 0.3
  labels:
    names: [large_bowel, small_bowel, stomach]
    task: multiclass
  input_size: [32, 32]
  surface_metrics: false
  normalization: {class_path: medseg_pl.ZScore}
  loss: {class_path: medseg_pl.DiceCELoss}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 3.0e-3, fused: true}}
  lr_scheduler: {class_path: medseg_pl.WarmupPolynomialLR, init_args: {warmup_steps: 7}}
data:
  source: {class_path: medseg_pl.DecathlonSource}
  augmentation: {class_path: medseg_pl.StandardAugmentation}
  batch_size: 4
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 3
  log_every_n_steps: 1
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a training on seven volumes of eight slices, with another one to validate on."""
    folder = tmp_path_factory.mktemp("resume")
    root = folder / "data"
    write_phantom(root, "decathlon", cases=8, seed=4, slices=8, size=(40, 36))
    names = [case.case_id for case in DecathlonSource(str(root)).cases()]
    (folder / "split.json").write_text(json.dumps({"train": names[:7], "val": names[7:], "test": []}))
    (folder / "config.yaml").write_text(CONFIG)
    data = [f"--data.source.root={root}", f"--data.split_file={folder / 'split.json'}"]
    return ["--config", str(folder / "config.yaml"), *data]


def resumed_from(folder: Path, options: list[str], stops: Sequence[Stop]) -> Plan:
    """A training that is not stopped, and others that go on from what it saved on the way."""
    resumed = [
        {"name": f"{hook}-{done}", "options": options, "resume": str(folder / f"whole-{hook}-{done}.ckpt")}
        for hook, done in stops
    ]
    return [{"name": "whole", "options": options, "stops": stops}, *resumed]


def seen(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{name}.{rank}.json").read_text())


def same(first: Any, second: Any, where: str = "") -> None:
    """Assert that two checkpoints are equal, to the last bit of each tensor."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            same(one, other, f"{where}[{place}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second or (math.isnan(first) and math.isnan(second)), f"{where}: {first} is not {second}"


def final(folder: Path, name: str) -> dict[str, Any]:
    checkpoint = torch.load(folder / f"{name}.final.ckpt", weights_only=True)
    callbacks = checkpoint["callbacks"].items()
    # Which file is the best belongs to a run folder, and each part of a training has its own here.
    checkpoint["callbacks"] = {callback: state for callback, state in callbacks if "BestCheckpoint" not in callback}
    return checkpoint


def once_in_an_epoch(folder: Path, ranks: int = 1, epochs: int = EPOCHS) -> None:
    """Each sample is seen once in each epoch, by one of the ranks."""
    draws = [draw for rank in range(ranks) for _, drawn in seen(folder, "whole", rank)["batches"] for draw in drawn]
    assert sorted(draws) == [[epoch, index] for epoch in range(epochs) for index in range(SAMPLES)]


def as_if_never_stopped(folder: Path, stops: Sequence[Stop], ranks: int = 1) -> None:
    """What was resumed drew what was left, validated when it was due and had not, and ended alike."""
    for hook, done in stops:
        for rank in range(ranks):
            whole, resumed = seen(folder, "whole", rank), seen(folder, f"{hook}-{done}", rank)
            assert resumed["batches"] == whole["batches"][done:], (hook, done)
            left = [after for after in whole["validations"] if after + (hook == "batch_end") > done]
            assert resumed["validations"] == left, (hook, done)
        same(final(folder, f"{hook}-{done}"), final(folder, "whole"), f"{hook} {done}: ")


def run_on_ranks(plan: Plan, folder: Path, ranks: int) -> list[int]:
    """Run a plan in processes that train together; their exit codes."""
    (folder / "plan.json").write_text(json.dumps(plan))
    return on_ranks(["-m", "tests.end_to_end.stopping", folder / "plan.json", folder], ranks)


@pytest.mark.processes
def test_in_the_middle_of_an_epoch_and_at_its_end(options: list[str], tmp_path: Path) -> None:
    stops = [("batch_end", 14), ("batch_end", 20)]
    run(resumed_from(tmp_path, [*options, "--data.num_workers=0", "--trainer.max_epochs=2"], stops), tmp_path)
    once_in_an_epoch(tmp_path, epochs=2)
    as_if_never_stopped(tmp_path, stops)


THAWED = ["--model.freeze=encoder", "--model.unfreeze_epoch=1", "--model.encoder_lr_factor=0.1"]


@pytest.mark.processes
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_frozen_encoder_thaws_on_all_ranks(options: list[str], tmp_path: Path, ranks: int) -> None:
    """Saved while frozen, when it is thawed, and after; the encoder is alike until then, with all its statistics."""
    stops = [("batch_end", 7), ("batch_end", 14), ("batch_end", 20)]
    settings = [*options, "--data.num_workers=0", "--trainer.max_epochs=2", f"--data.batch_size={4 // ranks}", *THAWED]
    assert run_on_ranks(resumed_from(tmp_path, settings, stops), tmp_path, ranks) == [0] * ranks
    as_if_never_stopped(tmp_path, stops, ranks)
    early, end, thawed = (load_encoder(tmp_path / f"whole-{hook}-{done}.ckpt") for hook, done in stops)
    same(end, early)
    assert any("running_mean" in name for name in early)
    assert not any(torch.equal(thawed[name], early[name]) for name in early if name.endswith("weight"))


def load_encoder(path: Path) -> dict[str, torch.Tensor]:
    weights = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in weights.items() if name.startswith("model.network.encoder.")}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_at_every_tenth_step(options: list[str], tmp_path: Path, workers: int, ranks: int) -> None:
    stops = [("batch_end", done) for done in (10, 14, 20, 28, 30, 40)]
    sizes = [f"--data.num_workers={workers}", f"--data.batch_size={4 // ranks}"]
    assert run_on_ranks(resumed_from(tmp_path, [*options, *sizes], stops), tmp_path, ranks) == [0] * ranks
    once_in_an_epoch(tmp_path, ranks)
    as_if_never_stopped(tmp_path, stops, ranks)


KILLED_AT = 24  # of 28 batches in two epochs
SAVING = {
    # Where the state is that is found, and the settings that make it so.
    "at the epoch's end": (14, []),
    "at every step": (
        24,
        ["--trainer.callbacks=medseg_pl.training.checkpoints.LastCheckpoint", "--trainer.callbacks.minutes=0"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("saving", SAVING)
def test_killed_in_the_middle_of_an_epoch(options: list[str], tmp_path: Path, ranks: int, saving: str) -> None:
    """`kill -9`, and the same command again with `--ckpt_path last`; the loading processes are left to themselves."""
    done, settings = SAVING[saving]
    settings = [*options, *settings, "--data.num_workers=1", f"--data.batch_size={4 // ranks}"]
    whole = {"name": "whole", "options": settings}
    killed = {"name": "killed", "options": settings, "killed_at": KILLED_AT}
    assert run_on_ranks([whole, killed], tmp_path, ranks) == [-signal.SIGKILL] * ranks
    assert [len(seen(tmp_path, "killed", rank)["batches"]) for rank in range(ranks)] == [KILLED_AT] * ranks

    assert run_on_ranks([{"name": "killed", "options": settings, "resume": "last"}], tmp_path, ranks) == [0] * ranks
    assert [path.name for path in (tmp_path / "runs" / "killed").iterdir()] == ["version_0"]
    for rank in range(ranks):
        assert seen(tmp_path, "killed", rank)["batches"] == seen(tmp_path, "whole", rank)["batches"][done:]
    same(final(tmp_path, "killed"), final(tmp_path, "whole"))


ENDS = [("batch_end", 14), ("validation_end", 14), ("epoch_end", 14), ("validation_end", 28), ("batch_end", 30)]
VARIANTS = {
    "hooks": ([], ENDS),
    "bf16": (["--trainer.precision=bf16-mixed"], [("batch_end", 20)]),
    "deterministic": (["--trainer.deterministic=true"], [("batch_end", 20)]),
    "accumulate": (["--trainer.accumulate_grad_batches=3"], [("batch_end", 9), ("batch_end", 14), ("batch_end", 20)]),
    "validations within an epoch": (
        ["--trainer.val_check_interval=0.5"],
        [(hook, done) for done in (7, 14) for hook in ("batch_end", "validation_end")],
    ),
    "validations by steps": (
        ["--trainer.val_check_interval=10", "--trainer.check_val_every_n_epoch=null"],
        [("batch_end", 10), ("validation_end", 20), ("epoch_end", 14), ("batch_end", 28)],
    ),
    "plateau": (
        [
            "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
            "--model.lr_scheduler.monitor=val/loss",
            "--model.lr_scheduler.threshold=9",
            "--model.lr_scheduler.patience=0",
        ],
        ENDS,
    ),
    "average": (
        [
            "--trainer.callbacks=medseg_pl.training.callbacks.WarmupEMA",
            "--trainer.callbacks.decay=0.9",
        ],
        ENDS,
    ),
    "plain average": (
        [
            "--trainer.callbacks=lightning.pytorch.callbacks.EMAWeightAveraging",
            "--trainer.callbacks.decay=0.9",
        ],
        [("batch_end", 20)],
    ),
    "schedule of epochs": (
        ["--model.lr_scheduler=torch.optim.lr_scheduler.StepLR", "--model.lr_scheduler.step_size=1"],
        [*ENDS, ("batch_end", 20)],
    ),
    "validation at the end": (
        ["--trainer.check_val_every_n_epoch=2"],
        [("batch_end", 28), ("epoch_end", 28), ("batch_end", 42)],
    ),
    "early stopping": (
        [
            "--trainer.callbacks=lightning.pytorch.callbacks.EarlyStopping",
            "--trainer.callbacks.monitor=val/dice",
            "--trainer.callbacks.mode=max",
            "--trainer.callbacks.min_delta=1",
            "--trainer.callbacks.patience=1",
        ],
        [("batch_end", 10), *ENDS[:3]],
    ),
    "steps": (["--trainer.max_steps=40", "--trainer.max_epochs=-1"], [*ENDS, ("batch_end", 20)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_with_everything_that_has_a_memory(variant: str, options: list[str], tmp_path: Path) -> None:
    settings, stops = VARIANTS[variant]
    assert run_on_ranks(resumed_from(tmp_path, [*options, "--data.num_workers=0", *settings], stops), tmp_path, 1) == [
        0
    ]
    as_if_never_stopped(tmp_path, stops)
