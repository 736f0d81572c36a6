"""Checkpoints: which are kept, and what can be read from one."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError

SHARED = (
    "labels.names",
    "labels.task",
    "labels.values",
    "labels.ignore_value",
    "labels.colours",
    "labels.tolerance",
    "channels",
    "context",
    "fit",
    "size",
    "spacing_mm",
)
"""Settings that the data takes from the model, because they travel with the weights."""


def best_and_last() -> ModelCheckpoint:
    """`best.ckpt` by validation Dice, and `last.ckpt`."""
    return ModelCheckpoint(
        monitor="val/dice",
        mode="max",
        filename="best",
        save_last=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or its own folder where it was moved.

    >>> run_folder_of(Path("runs/demo/version_0/checkpoints/best.ckpt")).as_posix()
    'runs/demo/version_0'
    """
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


class Trained(NamedTuple):
    """What a checkpoint says of its making.

    Attributes:
        path: The checkpoint.
        settings: Of model, data and precision, as a configuration.
        data: Who was trained on, as the data module's `state_dict` has it.
    """

    path: str
    settings: dict[str, Any]
    data: dict[str, Any]


def read_trained(name: str) -> Trained:
    """Read everything but the weights.

    Args:
        name: The path of a file; Lightning would load a URL as well, and run the code in it.

    Raises:
        SettingError: The name is that of a URL.
        MissingDataError: There is no such file.
        UnreadableFileError: The file is no checkpoint of medseg, or would run code when loaded.
    """
    if "://" in name:
        raise SettingError(f"--ckpt_path {name} is a URL; checkpoints are loaded from files alone. Download it first.")
    path = Path(name)
    if not path.is_file():
        raise MissingDataError(
            f"There is no checkpoint {path}. Set --ckpt_path to a file such as checkpoints/best.ckpt."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:  # torch reads weights without looking at their checksums
                raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        # `weights_only` refuses everything that is not plain data: a stranger's file runs no code.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        settings = _settings(checkpoint)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        AttributeError,
        KeyError,
        TypeError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
    ) as error:
        raise UnreadableFileError(
            f"{path} is not a checkpoint that medseg fit wrote, or it is damaged "
            f"({type(error).__name__}). Use best.ckpt or last.ckpt of a run folder."
        ) from error
    return Trained(name, settings, checkpoint.get("SegmentationDataModule", {}))


def _settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    parts = [dict(checkpoint[name]) for name in ("hyper_parameters", "datamodule_hyper_parameters")]
    model, data = ({key: value for key, value in part.items() if key != "_instantiator"} for part in parts)
    for name in (*SHARED, "seed"):
        data.pop(name.split(".")[0], None)
    # The weights come from the checkpoint: nothing is downloaded or read to start from.
    model["initial_weights"] = None
    arguments = model["network"].get("init_args") or {}
    if "encoder_weights" in arguments:
        arguments["encoder_weights"] = None
    return {"model": model, "data": data, "trainer": {"precision": str(checkpoint["precision"])}}
