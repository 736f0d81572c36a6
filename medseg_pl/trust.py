"""Which code a configuration or a checkpoint may name: parts of medseg and its libraries, and what the user allows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import _common, set_parsing_settings

from medseg_pl.core.errors import SettingError

KNOWN = (
    "lightning.fabric.plugins",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.cli.ReduceLROnPlateau",  # torch's, with the score that it follows
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "medseg_pl.callbacks",
    "medseg_pl.checkpointing.BestCheckpoint",
    "medseg_pl.checkpointing.LastCheckpoint",
    "medseg_pl.checkpointing.policy",  # where it is
    "medseg_pl.core.labels",
    "medseg_pl.data.sources",
    "medseg_pl.data.transforms",
    "medseg_pl.inference.postprocess",
    "medseg_pl.losses",
    "medseg_pl.metrics",
    "medseg_pl.networks",
    "medseg_pl.normalisation",
    "medseg_pl.schedules",
    "segmentation_models_pytorch",
    "torch.distributed.fsdp",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
)
"""Where the classes are that a `class_path` may name.

Not whole packages: of torch and Lightning many a function starts a program, opens an address or loads a pickle when it
is called, and what a `class_path` names is called.
"""


@contextmanager
def only_known_code(plugins: Sequence[str] = ()) -> Iterator[None]:
    """Within the block, a `class_path` of any other package is refused before it is imported.

    Args:
        plugins: Further packages or modules, of which the user says that they may run.

    Raises:
        SettingError: A plug-in has no name that a package can have.
    """
    for name in plugins:
        root = name.split(".")[0]
        named = all(part.isidentifier() for part in name.split("."))
        if not named or root == "jsonargparse" or root in sys.stdlib_module_names:
            raise SettingError(
                f"--plugins {name}: expected the name of a package or module of yours, such as mypackage.losses."
            )
    # jsonargparse has no way back to the settings of before, which belong to whoever imported us.
    before = dict(_common.parsing_settings)
    try:
        set_parsing_settings(
            import_path_denylist=["*", "segmentation_models_pytorch.from_pretrained"],
            import_path_allowlist=[*KNOWN, *plugins],
        )
        yield
    finally:
        _common.parsing_settings.update(before)


def refusal(text: str, place_of: Callable[[str], str] = lambda name: "") -> str | None:
    """What to say where a parser's message is about a `class_path` that is not allowed; `None` of other messages.

    Args:
        text: The message.
        place_of: Where a class or a setting is named, as ` in FILE`; nothing where that is not known.
    """
    denied = re.search(r"Importing '([\w.]+)' is not allowed", text)
    if denied is None:
        return None
    path = denied.group(1)
    setting = re.search(r'(?:The setting|Parser key) "([\w.]+)"', text)
    place = place_of(path) or (place_of(setting.group(1)) if setting else "")
    names = f"The setting {setting.group(1)}{place} names" if setting else f"The settings{place} name"
    package = path.split(".")[0]
    if package in {name.split(".")[0] for name in KNOWN} or package in sys.stdlib_module_names:
        return (
            f"{names} {path}, which is none of the classes that settings may name; nothing was run. They are those of "
            f"{', '.join(KNOWN)}, and of packages that --plugins allows."
        )
    return (
        f"{names} {path}, which would run code of {package}; nothing of it was imported. If you trust this package, "
        f"and who wrote the settings, add --plugins {package} to the command."
    )
