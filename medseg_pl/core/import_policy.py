"""Which code a configuration or a checkpoint may name: parts of medseg and its libraries, and what the user allows."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import _common, _optionals, set_parsing_settings

from medseg_pl import CLASSES
from medseg_pl.core.errors import SettingError, shorten
from medseg_pl.core.validation import find_address, is_hub_name, iterate_texts

# Public classes that no setting takes
_NO_SETTINGS = {
    *("Predictor", "SegmentationDataModule", "SegmentationModel", "SegmentationModule"),
    *("Case", "Prediction", "Geometry", "Volume"),
}

KNOWN = (
    "lightning.fabric.plugins",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.cli.ReduceLROnPlateau",  # torch's, with the score that it follows
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    *(f"medseg_pl.{name}" for name in CLASSES if name not in _NO_SETTINGS),
    "medseg_pl.core.labels",
    "medseg_pl.core.types.PostProcessing",
    "medseg_pl.data.sources",
    "medseg_pl.data.transforms.augmentation",
    "medseg_pl.metrics",
    "medseg_pl.models.losses",
    "medseg_pl.models.networks",
    "medseg_pl.models.normalization",
    "medseg_pl.models.optimizers",
    "medseg_pl.training.callbacks",
    "medseg_pl.training.checkpoints.BestCheckpoint",
    "medseg_pl.training.checkpoints.LastCheckpoint",
    "medseg_pl.training.checkpoints.callbacks",  # where it is
    "medseg_pl.training.progress",  # where some of training.callbacks are
    "medseg_pl.training.trial_search.TrialReport",
    "segmentation_models_pytorch",
    "torch.distributed.fsdp",
    "torch.nn",
    "torch.optim",
)
"""Where the classes are that a `class_path` may name.

Not whole packages: of torch and Lightning many a function starts a program, opens an address or loads a pickle when it
is called, and what a `class_path` names is called.
"""

_DENIED = (
    "*",
    # They download weights or data, whatever the settings that a checkpoint's reader takes back.
    "segmentation_models_pytorch.base",
    "segmentation_models_pytorch.datasets",
    "segmentation_models_pytorch.encoders",
    "segmentation_models_pytorch.from_pretrained",
)


@contextmanager
def restrict_imports(plugins: Sequence[str] = ()) -> Iterator[None]:
    """Refuse classes of other packages, and addresses, in settings within the block.

    A `class_path` is refused before it is imported.

    Args:
        plugins: Further packages or modules that the user allows to run.

    Raises:
        SettingError: A plug-in's name is not a valid package name.
    """
    for name in plugins:
        root = name.split(".")[0]
        named = all(part.isidentifier() for part in name.split("."))
        if not named or root == "jsonargparse" or root in sys.stdlib_module_names:
            raise SettingError(
                f"--plugins {name}: expected the name of a package or module of yours, such as mypackage.losses."
            )
        if root not in sys.modules and find_spec(root) is None:  # finds the file, and runs nothing of it
            here = any(path.exists() for path in (Path(root), Path(f"{root}.py")))
            remedy = "It is in this folder: put PYTHONPATH=. before the command." if here else "Install it."
            raise SettingError(f"--plugins {name}: Python finds no {root}. {remedy}")
    # jsonargparse has no way back to the settings of before, which belong to whoever imported us.
    before, modes = dict(_common.parsing_settings), _optionals._get_config_read_mode()
    try:
        set_parsing_settings(
            import_path_denylist=list(_DENIED),
            import_path_allowlist=[*KNOWN, *plugins],
            # Lightning's command line switches the second on: a text in place of a class would be fetched.
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,
        )
        yield
    finally:
        _common.parsing_settings.update(before)
        set_parsing_settings(config_read_mode_urls_enabled="u" in modes, config_read_mode_fsspec_enabled="s" in modes)


def check_stored(settings: Mapping[str, Any]) -> None:
    """Check that a checkpoint's settings open no address, hub or file.

    Args:
        settings: Those of model and data, as plain values.

    Raises:
        SettingError: They name something to open.
        ValueError: They are nested too deep, or are not what a checkpoint holds.
    """
    if (found := find_address(settings)) is not None:
        raise SettingError(
            f"its setting {found[0]} is the address {shorten(found[1])}, and a checkpoint opens none. Take one from "
            "someone you trust."
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "true", "yes")
    for name, text in iterate_texts(settings["model"]):
        if is_hub_name(text) and ("local" in text.lower() or not offline):
            raise SettingError(
                f"its setting {name} is {shorten(text)}, which is looked up elsewhere, and a checkpoint opens nothing. "
                "If you trust it and have the encoder in your cache, set HF_HUB_OFFLINE=1."
            )
        if not name.startswith("labels.") and _is_file(text):
            raise SettingError(
                f"its setting {name} is the file {shorten(text)}, and a checkpoint reads none. Take one from someone "
                "you trust."
            )
    for name in ("source", "augmentation"):
        if not isinstance(settings["data"].get(name), Mapping | None):
            raise TypeError(f"data.{name} is no class with its settings")


def _is_file(text: str) -> bool:
    """Tell whether jsonargparse would read a file in place of a class."""
    try:
        return ("/" in text or "." in text) and Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, or no such user
        return False


def explain_refusal(text: str, place_of: Callable[[str], str] = lambda name: "") -> str | None:
    """Explain a parser's message about a forbidden `class_path`.

    Args:
        text: The message.
        place_of: Returns where a class or a setting is named, such as ` in FILE`, or nothing where that is unknown.

    Returns:
        The explanation; `None` for other messages.
    """
    denied = re.search(r"Importing '([\w.]+)' is not allowed", text)
    if denied is None:
        return None
    path = denied.group(1)
    setting = re.search(r'(?:The setting|Parser key) "([\w.]+)"', text)
    place = place_of(path) or (place_of(setting.group(1)) if setting else "")
    names = f"The setting {setting.group(1)}{place} names" if setting else f"The settings{place} name"
    package = path.split(".")[0]
    roots = sorted({name.split(".")[0] for name in KNOWN})
    if package in roots or package in sys.stdlib_module_names:
        return (
            f"{names} {path}, which is none of the classes that settings may name; nothing was run. Name one of "
            f"{', '.join(roots)}, or allow a package of yours by --plugins."
        )
    return (
        f"{names} {path}, which would run code of {package}; nothing of it was imported. If you trust this package, "
        f"and who wrote the settings, add --plugins {package} to the command."
    )
