"""Privacy: what of a run's settings others may see, and hashed names of its cases with their key."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.atomic_files import write_atomically

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

_A_DURATION = re.compile(r"\d+(:\d\d){3}")  # DD:HH:MM:SS, as Lightning reads it

_A_FILE = re.compile(
    r"\.(bin|ckpt|csv|dcm|gz|json|nii|npy|npz|onnx|png|pt|pth|safetensors|tiff?|txt|ya?ml)$", re.IGNORECASE
)

_FILE = "dashboard.json"


def redact_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Redact a configuration: nothing tells where or whose the data is.

    The source keeps its class alone, since its settings are folders and names. Loggers are left out, for they name
    accounts; so are settings without a value.

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
    """Reduce a setting to plain values, without any path-like text.

    >>> redact_value({"encoder_name": "resnet34", "weights": "/home/someone/w.pt", "depth": 5})
    {'encoder_name': 'resnet34', 'weights': '…', 'depth': 5}
    """
    if isinstance(value, Namespace):  # jsonargparse keeps nested settings so
        value = value.as_dict()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        # An allowlist: a path, an address and a person's name have forms that no denylist foresees.
        plain = _A_DURATION.fullmatch(value) or (_A_NAME.fullmatch(value) and not _A_FILE.search(value))
        return value if plain else "…"
    if isinstance(value, Mapping):
        return {str(name): redact_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(inner) for inner in value]
    # The text of an object may hold anything, a path included.
    return type(value).__name__


@dataclass(frozen=True)
class Pseudonyms:
    """A run's key for hashed names, kept in `dashboard.json` for its owner.

    Args:
        key: Secret, hexadecimal. A plain hash of a short id such as `case123` is found by trying all of them; without
            the key this one is not, and other runs' names cannot be matched with it.
        wandb_run_id: The run at W&B that this run folder belongs to.
    """

    key: str
    wandb_run_id: str | None = None

    @classmethod
    def new(cls) -> Pseudonyms:
        """Create a record with a new random key."""
        return cls(secrets.token_hex(32))

    @classmethod
    def read(cls, folder: Path) -> Pseudonyms | None:
        """Read the record of a run folder.

        Returns:
            `None` if the folder has none.

        Raises:
            UnreadableFileError: The file is damaged.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            record = cls(str(found["key"]), found["wandb_run_id"])
            # Tried now: a damaged key would else stop a training at its first table of scores.
            bytes.fromhex(record.key)
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableFileError(
                f"{path} is damaged: expected a key and the id of a run at W&B. Remove it to begin a new one; "
                "cases then get other hashed names."
            ) from error
        return record

    def write(self, folder: Path) -> None:
        """Write it to a run folder, readable for the owner only."""
        with write_atomically(folder / _FILE, replace=True) as temporary:
            # Before anything is in it, so that at no moment others can read the key.
            temporary.chmod(0o600)
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def with_run(self, wandb_run_id: str | None) -> Pseudonyms:
        """Return the same key with another run at W&B."""
        return replace(self, wandb_run_id=wandb_run_id)

    def pseudonym(self, kind: Literal["case", "group"], name: str) -> str:
        """Hash a case's or group's name by HMAC-SHA256 to 16 hexadecimal digits.

        >>> Pseudonyms("00" * 32).pseudonym("case", "case123")
        'f9187ff675483979'
        """
        # The kind is hashed too, so that a case named like its patient does not show it.
        return hmac.new(bytes.fromhex(self.key), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:16]
