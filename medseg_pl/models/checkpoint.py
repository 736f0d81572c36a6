"""Reading a checkpoint: plain data whose checksums are right, and never code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.core.import_policy import check_stored
from medseg_pl.core.validation import iterate_texts
from medseg_pl.io.progress import announce_choice
from medseg_pl.io.scores import choose_run, require_run_folder, suggest_run
from medseg_pl.io.torch_archive import make_checkpoint_error

SHARED = (
    "labels.names",
    "labels.task",
    "labels.values",
    "labels.ignore_value",
    "labels.colors",
    "labels.tolerance",
    "labels.partial",
    "channels",
    "context_slices",
    "resize",
    "input_size",
    "spacing_mm",
)
"""Settings that the data takes from the model, because they travel with the weights."""

_RUNS = Path("runs")
_BEST = ("best.ckpt", "checkpoints/best.ckpt")
"""Where a run folder has its best weights, the surest place last."""

MapLocation: TypeAlias = Any
"""What `torch.load` takes: a device, its name, a function, a dictionary."""


def get_run_folder(checkpoint: Path) -> Path:
    """Return a checkpoint's run folder, or its own folder if moved.

    >>> get_run_folder(Path("runs/demo/version_0/checkpoints/best.ckpt")).as_posix()
    'runs/demo/version_0'
    """
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


class CheckpointInfo(NamedTuple):
    """A checkpoint without its weights.

    Attributes:
        path: The checkpoint.
        settings: Settings of model, data and precision, as a configuration.
        data: The training cases, as the data module's `state_dict` has them.
        profile: Summary of the training images, see `TrainingProfile`; `None` in old checkpoints.
        pretrained: Weights that training began with, see `SegmentationModel`; `None` where it named none.
    """

    path: str
    settings: dict[str, Any]
    data: dict[str, Any]
    profile: dict[str, Any] | None = None
    pretrained: str | None = None

    @property
    def orientation(self) -> str | None:
        """Axis codes of the training slices, where all of them were known."""
        return self.data.get("orientation")

    @property
    def mask_values(self) -> list[int] | None:
        """Value of each label in the training masks.

        It is `None` where there is no choice, or it is not known.
        """
        values = self.data.get("mask_values")
        return None if values is None else [int(value) for value in values]


def find_checkpoint(name: str, runs: Path = _RUNS, experiment: str = "*") -> str:
    """Find the file that `--ckpt_path` means, and announce it unless named.

    Args:
        name: A file; a run folder, or an experiment with several, for the `best.ckpt` of the newest run; `best` or
            `last` for that checkpoint of the newest run of all.
        runs: Where experiments are.
        experiment: Which of them, for `best` and `last`.

    Raises:
        MissingDataError: There is no such checkpoint.
    """
    path = Path(name)
    if name in ("best", "last") and not path.exists():
        files = sorted(
            runs.glob(f"{experiment}/version_*/checkpoints/{name}.ckpt"), key=lambda file: file.stat().st_mtime
        )
        if not files:
            raise MissingDataError(f"There is no {name}.ckpt of a run below {runs}. Set --ckpt_path to a file.")
    elif path.is_dir():
        run = choose_run(path, *_BEST)
        files = [run / place for place in _BEST if (run / place).is_file()]
        if not files:
            require_run_folder(run)
            raise MissingDataError(
                f"{run} is a folder without checkpoints/best.ckpt. Set --ckpt_path to a run folder or a file."
            )
    else:
        return name
    announce_choice(files[-1])
    return str(files[-1])


def read_checkpoint(name: str) -> CheckpointInfo:
    """Read everything but the weights.

    Args:
        name: What `find_checkpoint` takes; Lightning would load a URL as well, and run the code in it.

    Raises:
        SettingError: The name is that of a URL.
        MissingDataError: There is no such file.
        UnreadableFileError: The file is no checkpoint of medseg, or would run code when loaded.
    """
    name = find_checkpoint(name)
    path = require_local_file(name)
    checkpoint = load_verified(path, mmap=True)
    try:
        settings, data = _extract_settings(checkpoint), checkpoint.get("SegmentationDataModule", {})
        check_stored(settings)
        profile, pretrained = checkpoint.get("training_profile"), checkpoint["hyper_parameters"].get("pretrained")
        for _ in iterate_texts(
            [data, profile], most=10_000_000
        ):  # names of cases; whoever copies them needs the stack for it
            pass
    except SettingError as error:
        raise SettingError(f"{path} is not loaded: {error}") from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise make_checkpoint_error(path, error) from error
    return CheckpointInfo(name, settings, data, profile, pretrained and str(pretrained))


def require_local_file(name: str | Path) -> Path:
    """Return the path of a file that must exist.

    Raises:
        SettingError: The name is a URL.
        MissingDataError: There is no such file.
    """
    if "://" in str(name):
        raise SettingError(f"--ckpt_path {name} is a URL; checkpoints are loaded from files alone. Download it first.")
    if not (path := Path(name)).is_file():
        raise MissingDataError(
            f"There is no checkpoint {path}. {suggest_run(path)}Set --ckpt_path to a file such as "
            "checkpoints/best.ckpt."
        )
    return path


def load_verified(path: Path, map_location: MapLocation = "cpu", *, mmap: bool = False) -> dict[str, Any]:
    """Load a file of plain data and tensors, after its checksums.

    Args:
        path: The checkpoint.
        map_location: As `torch.load` takes it.
        mmap: Whether weights stay on the disk until they are looked at.

    Raises:
        UnreadableFileError: The file is damaged, no checkpoint at all, or would run code when loaded.
    """
    try:
        verify_checksums(path)
        # `weights_only` refuses everything that is not plain data: a stranger's file runs no code.
        loaded = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        return dict(loaded)
    except Exception as error:  # A damaged pickle makes its reader stumble in any way, over an IndexError as well.
        raise make_checkpoint_error(path, error) from error


def verify_checksums(path: Path) -> None:
    """Check every byte of a checkpoint against its checksum.

    A checkpoint is a zip archive, with a CRC-32 of each member in it: a digest of the whole file would find no more
    accidents, and a second file that holds it could not be replaced together with the first. `torch.load` reads
    weights without looking at the checksums; and of a member whose attributes call it a folder it reads nothing at
    all, which leaves the tensor with what the memory held before.

    Raises:
        zipfile.BadZipFile: A member is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.external_attr for member in archive.infolist()):
            raise zipfile.BadZipFile("torch.save gives no attributes")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} fails its checksum")


def _drop_downloads(network: Any) -> Any:
    """Copy a network's settings without pretrained weights, which smp downloads by default."""
    if isinstance(network, list | tuple):
        return [_drop_downloads(value) for value in network]
    if not isinstance(network, Mapping):
        return network
    settings = {name: None if name == "encoder_weights" else _drop_downloads(value) for name, value in network.items()}
    if str(settings.get("class_path", "")).startswith("segmentation_models_pytorch."):
        settings["init_args"] = {**(settings.get("init_args") or {}), "encoder_weights": None}
    return settings


def forget_downloads(model: dict[str, Any]) -> None:
    """Remove from a checkpoint's settings the weights that the model started from.

    Its own weights are all that is needed.

    Args:
        model: The model's settings, which change.
    """
    model["pretrained"] = None
    model["network"] = _drop_downloads(model["network"])


def _extract_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    # Who trains with loaders of their own has no data module.
    parts = [dict(checkpoint["hyper_parameters"]), dict(checkpoint.get("datamodule_hyper_parameters", {}))]
    model, data = ({key: value for key, value in part.items() if key != "_instantiator"} for part in parts)
    for name in (*SHARED, "seed"):
        data.pop(name.split(".")[0], None)
    model.pop("seed", None)
    forget_downloads(model)
    data["cache_dir"] = None  # where this user's cases are kept, a stranger's checkpoint does not say
    return {"model": model, "data": data, "trainer": {"precision": str(checkpoint["precision"])}}
