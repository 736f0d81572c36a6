"""What of a run's settings others may see: no path, no name of a file or a case."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

SHOWN_OF_DATA = (
    "allow_duplicates",
    "augmentation",
    "batch_size",
    "eval_batch_size",
    "fold",
    "folds",
    "foreground_fraction",
    "split_fractions",
    "samples_per_epoch",
    "seed",
    "split_seed",
)
"""Of the data, these and nothing else: a source's settings say where it is, and may name cases."""
_HIDDEN = {
    "model": ("pretrained",),
    "trainer": ("logger", "default_root_dir", "plugins", "profiler"),
}
_A_NAME = re.compile(r"[A-Za-z0-9][\w .+-]*")
_A_FILE = re.compile(
    r"\.(bin|ckpt|csv|dcm|gz|json|nii|npy|npz|onnx|png|pt|pth|safetensors|tiff?|txt|ya?ml)$", re.IGNORECASE
)


def redact_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Redact a configuration: nothing says where or whose the data is.

    Of the source the class alone is left: its settings are folders and names. Loggers are left out, for they name
    accounts; so is what is not set.

    >>> redact_config({"model": {"context_slices": 1}, "data": {"fold": 0, "source": {"class_path": "a.FolderSource",
    ...     "init_args": {"root": "/home/someone"}}}, "runs": "/home/someone/runs"})
    {'model': {'context_slices': 1}, 'data': {'fold': 0, 'source': 'FolderSource'}}
    """
    shown: dict[str, Any] = {}
    if "seed_everything" in config:
        shown["seed_everything"] = redact_value(config["seed_everything"])
    for name, hidden in _HIDDEN.items():
        if isinstance(section := config.get(name), Mapping):
            kept = {key: value for key, value in section.items() if key not in hidden and value is not None}
            shown[name] = redact_value(kept)
    if isinstance(data := config.get("data"), Mapping):
        shown["data"] = {key: redact_value(data[key]) for key in SHOWN_OF_DATA if data.get(key) is not None}
        if isinstance(source := data.get("source"), Mapping):
            shown["data"]["source"] = redact_value(str(source.get("class_path")).rpartition(".")[2])
    return shown


def redact_value(value: Any) -> Any:
    """Reduce a setting to plain values; text that could be a path is left out.

    >>> redact_value({"encoder_name": "resnet34", "weights": "/home/someone/w.pt", "depth": 5})
    {'encoder_name': 'resnet34', 'weights': '…', 'depth': 5}
    """
    if isinstance(value, Namespace):  # jsonargparse keeps nested settings so
        value = value.as_dict()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if _A_NAME.fullmatch(value) and not _A_FILE.search(value) else "…"
    if isinstance(value, Mapping):
        return {str(name): redact_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(inner) for inner in value]
    return type(value).__name__
