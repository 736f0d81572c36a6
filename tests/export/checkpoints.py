"""Checkpoints of networks that were never trained, as `medseg fit` would have written them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

OURS = "tests.export.networks"
ZSCORE = {"class_path": "medseg_pl.ZScore", "init_args": {"clip": True}}
PHOTOGRAPH = {
    "class_path": "medseg_pl.MeanStd",
    "init_args": {"mean": [0.5] * 3, "std": [0.25] * 3},
}


def write_checkpoint(
    path: Path,
    *,
    network: str = f"{OURS}.Coarse",
    arguments: dict[str, Any] | None = None,
    names: tuple[str, ...] = ("a", "b"),
    task: str = "multiclass",
    labels: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    validation: tuple[str, ...] = (),
    precision: str = "32-true",
    **settings: Any,
) -> str:
    """Write a checkpoint of a network with random weights that are the same in every run.

    Args:
        path: The file.
        network: Its class.
        arguments: What it is made with.
        names: The labels.
        task: How they go together.
        labels: What else is known of them.
        source: The data set that it claims to come from.
        validation: The cases on the validation side of its split.
        precision: In which it was trained.
        settings: Of the model, where they are not the usual ones.
    """
    known = {"names": list(names), "task": task, "values": None, "ignore_value": None, "colors": None, "tolerance": 0}
    shared: dict[str, Any] = {
        "labels": known | (labels or {}),
        "channels": 1,
        "context_slices": 0,
        "resize": "none",
        "input_size": [32, 32],
        "spacing_mm": None,
    }
    model = shared | {
        "network": {"class_path": network, "init_args": arguments or {}},
        "loss": {"class_path": "medseg_pl.DiceCELoss", "init_args": {}},
        "normalization": ZSCORE,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
        "size_divisor": 8,
        "window_overlap": 0.5,
        "whole_image_max_pixels": 1 << 20,
        "tta": "none",
        "postprocess": None,
        "compile_network": False,
    }
    model |= settings
    shared = {name: model[name] for name in shared}
    data = {"source": source or {"class_path": "medseg_pl.FolderSource", "init_args": {"root": "gone"}}}
    inputs = model["channels"] * (2 * model["context_slices"] + 1)
    made = _made(network, arguments or {}, inputs, len(names) + (task == "multiclass"))
    common = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
    torch.save(
        {
            "pytorch-lightning_version": "2.6.0",
            "state_dict": {f"model.network.{name}": value for name, value in made.state_dict().items()},
            "hparams_name": "kwargs",
            "hyper_parameters": model | common,
            "datamodule_hparams_name": "kwargs",
            "datamodule_hyper_parameters": {**data, **shared, "num_workers": 0, **common},
            **({"SegmentationDataModule": {"split": {"val": list(validation)}, "groups": []}} if validation else {}),
            "precision": precision,
        },
        path,
    )
    return str(path)


def _made(class_path: str, arguments: dict[str, Any], in_channels: int, classes: int) -> nn.Module:
    """The network, adjusted to noise until it finds every class somewhere: as it is made, it may know one alone."""
    torch.manual_seed(0)
    module, name = class_path.rsplit(".", 1)
    network: nn.Module = getattr(importlib.import_module(module), name)(
        in_channels=in_channels, classes=classes, **arguments
    )
    size = 128 if arguments else 32
    images = torch.randn(4, in_channels, size, size) + torch.randn(4, in_channels, 1, 1)
    last = [part for part in network.modules() if isinstance(part, nn.Conv2d) and part.out_channels == classes][-1]
    assert last.bias is not None
    with torch.no_grad():
        for _ in range(10):
            network.train()(images)  # the statistics of batch normalization
        logits = network.eval()(images)
        last.bias -= logits.mean(dim=(0, 2, 3))
        spread = logits.std(dim=(0, 2, 3))
        last.weight /= spread[:, None, None, None]
        last.bias /= spread
    return network
