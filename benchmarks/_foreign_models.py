"""Data sets and models of the benchmark of foreign images: five of them, each trained by `medseg fit`."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import DecathlonSource, FolderSource, Source
from medseg_pl.data.sources.files import read_image_file
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.data.synthetic.layouts import DataCard, LabeledScan, write_decathlon
from medseg_pl.models.segmentation_model import SegmentationModel

SLICES, SIZE = 24, (112, 96)
BATCH, EPOCHS = 8, 10
CROP = 128
ENCODER = "tu-mobilenetv3_small_100"

FRACTIONS = (0.6, 0.75)
"""Where the sorted patients are cut into those of training, of validation, and held out."""


class Recipe(NamedTuple):
    """How a model is trained.

    Attributes:
        labels: Names of the structures.
        channels: Channels of an image.
        context: Neighboring slices on each side.
        flips: Chances of mirroring left to right, and top to bottom.
    """

    labels: tuple[str, ...]
    channels: int
    context: int
    flips: tuple[float, float]


RECIPES: Mapping[str, Recipe] = {
    "phantom MRI": Recipe(ORGANS, 1, 1, (0.0, 0.0)),
    "phantom CT": Recipe(ORGANS, 1, 1, (0.0, 0.0)),
    "hippocampus": Recipe(("anterior", "posterior"), 1, 1, (0.5, 0.0)),
    "CHASE_DB1": Recipe(("vessel",), 3, 0, (0.5, 0.5)),
    "nuclei": Recipe(("nucleus",), 3, 0, (0.5, 0.5)),
}
PUBLIC = {"hippocampus": "msd_hippocampus", "CHASE_DB1": "chase_db1", "nuclei": "nuclei"}
"""Folders in MEDSEG_TEST_DATA."""
CHASE = {"masks": "masks_1st", "group": r"Image_(\d+)"}


class DataSet(NamedTuple):
    """A data set, split by patient.

    Attributes:
        name: One of `RECIPES`.
        source: Reads it.
        sides: Cases of training, of validation, and those of the test, which the model never sees.
        held_out: The latter.
    """

    name: str
    source: Source
    sides: Mapping[str, Sequence[str]]
    held_out: Sequence[Case]

    def read(self, index: int) -> Volume:
        """Read a held-out image as its file has it."""
        pixels, geometry = read_image_file(self.held_out[index].images[0])
        return Volume(pixels, None, geometry)


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        checkpoint: The file.
        dice: Mean over labels and validation cases.
    """

    checkpoint: Path
    dice: float


def list_data_sets(work: Path, phantoms: int) -> dict[str, DataSet]:
    """Open the data sets that are there; so many phantoms are made in the folder."""
    root = os.environ.get("MEDSEG_TEST_DATA")
    sets = {}
    for name in RECIPES:
        if name in PUBLIC and not (root and (Path(root) / PUBLIC[name]).is_dir()):
            continue
        source = _open_source(name, work / name.replace(" ", "_"), phantoms)
        cases = source.cases()
        sides = _split(cases)
        sets[name] = DataSet(name, source, sides, [case for case in cases if case.case_id in sides["test"]])
    return sets


def train_model(data: DataSet, work: Path, steps: int) -> Trained:
    """Train a model, unless it is in the folder."""
    folder = work / data.name.replace(" ", "_")
    if not (folder / "finished").exists():
        _fit(data, folder, steps)
    # Of several runs the last: those before it were killed.
    runs = sorted(folder.glob("runs/*/version_*/summary_val.json"), key=lambda path: path.stat().st_mtime)
    summary = json.loads(runs[-1].read_text())
    return Trained(runs[-1].parent / "checkpoints" / "best.ckpt", summary["foreground_mean"]["dice"])


def build_planned_model(data: DataSet, folder: Path) -> SegmentationModel:
    """Build the network that `medseg plan` chooses, with random weights: for how long a user's prediction takes."""
    plan = folder / "plan.yaml"
    options = ["--masks", CHASE["masks"], "--group", CHASE["group"]] if data.name == "CHASE_DB1" else []
    root = str(data.source.root)  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "medseg_pl", "plan", root, "-o", str(plan), "--device", "cpu", "--no_probe"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    names = inspect.signature(SegmentationModel).parameters
    settings = {name: value for name, value in yaml.safe_load(plan.read_text())["model"].items() if name in names}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationModel, "model", fail_untyped=False)
    chosen = parser.parse_object({"model": {**settings, "pretrained": None}})
    model: SegmentationModel = parser.instantiate(chosen).model
    return model.eval().requires_grad_(False)


def _open_source(name: str, folder: Path, phantoms: int) -> Source:
    """Open a data set; phantoms are made where they are not there yet."""
    if name not in PUBLIC:
        if not (folder / "data" / "dataset.json").exists():
            card = DataCard("phantom", "Synthetic scans", "CC0-1.0", name.split()[1], ORGANS)
            write_decathlon(folder / "data", _make_phantoms(phantoms, ct=name == "phantom CT"), card)
        return DecathlonSource(str(folder / "data"))
    root = Path(os.environ["MEDSEG_TEST_DATA"]) / PUBLIC[name]
    if name == "hippocampus":
        return DecathlonSource(str(root))
    # `CHASE` keeps the two eyes of a child together.
    return FolderSource(str(root), **CHASE) if name == "CHASE_DB1" else FolderSource(str(root))


def _make_phantoms(number: int, *, ct: bool) -> Iterator[LabeledScan]:
    """Make one scan of each of many patients, as MRI or with the values of a CT."""
    rng = np.random.default_rng(0)
    patients: set[str] = set()
    scans = (scan for scan in make_scans(10 * number, int(ct), SLICES, SIZE) if scan.group not in patients)
    for scan in islice(scans, number):
        patients.add(scan.group)
        yield scan._replace(image=_to_hounsfield(scan.image, rng)) if ct else scan


def _to_hounsfield(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int16]:
    values = image / np.percentile(image, 99)
    return np.rint(np.where(values > 0.12, -100 + 260 * values, -1000) + rng.normal(0, 12, image.shape)).astype(
        np.int16
    )


def _split(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Split by patient, in an order that has nothing to do with their names."""
    patients = sorted({case.group for case in cases})
    drawn = [patients[index] for index in np.random.default_rng(1).permutation(len(patients))]
    first, second = (round(fraction * len(drawn)) for fraction in FRACTIONS)
    sides = {"train": drawn[:first], "val": drawn[first:second], "test": drawn[second:]}
    return {side: sorted(case.case_id for case in cases if case.group in chosen) for side, chosen in sides.items()}


def _fit(data: DataSet, folder: Path, steps: int) -> None:
    config, split = folder / "config.yaml", folder / "split.json"
    folder.mkdir(parents=True, exist_ok=True)
    split.write_text(json.dumps(data.sides))
    config.write_text(yaml.safe_dump(_configure(data, split, steps)))
    command = [sys.executable, "-m", "medseg_pl", "fit", "--config", str(config), "--runs", str(folder / "runs")]
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    (folder / "finished").touch()


def _configure(data: DataSet, split: Path, steps: int) -> dict[str, Any]:
    name, source, recipe = data.name, data.source, RECIPES[data.name]
    horizontal, vertical = recipe.flips
    reading = {"root": str(source.root), **(CHASE if name == "CHASE_DB1" else {})}
    return {
        "experiment": name.replace(" ", "_"),
        "seed_everything": 0,
        "model": {
            "network": {
                "class_path": "segmentation_models_pytorch.Unet",
                "init_args": {
                    "encoder_name": ENCODER,
                    "encoder_weights": None,
                    "encoder_depth": 4,
                    "decoder_channels": [64, 32, 16, 8],
                },
            },
            "labels": {"names": list(recipe.labels), "task": "binary" if len(recipe.labels) == 1 else "multiclass"},
            "channels": recipe.channels,
            "context_slices": recipe.context,
            "resize": "none",
            "input_size": [CROP, CROP],
            "normalization": {"class_path": "medseg_pl.ZScore"},
            "loss": {"class_path": "medseg_pl.DiceCELoss"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3, "fused": True}},
            "lr_scheduler": {"class_path": "medseg_pl.WarmupPolynomialLR", "init_args": {"warmup_fraction": 0.08}},
            "channels_last": True,
        },
        "data": {
            "source": {"class_path": f"medseg_pl.{type(source).__name__}", "init_args": reading},
            "split_file": str(split),
            "allow_duplicates": True,
            "batch_size": BATCH,
            "num_workers": 0,
            "samples_per_epoch": steps * BATCH // EPOCHS,
            "foreground_fraction": 0.5,
            "augmentation": {
                "class_path": "medseg_pl.StandardAugmentation",
                "init_args": {"flip_horizontal": horizontal, "flip_vertical": vertical},
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "precision": "32-true",
            "max_epochs": EPOCHS,
            "check_val_every_n_epoch": 2,
            "log_every_n_steps": 10,
        },
    }
