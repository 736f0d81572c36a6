"""What a run folder remembers of the names that others see: the key to the hashed ones, and the run at W&B."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.atomic_files import write_atomically

_FILE = "dashboard.json"


@dataclass(frozen=True)
class Pseudonyms:
    """Kept in `dashboard.json` of the run folder, for its owner alone.

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
        """Read the record of a run folder; `None` if it has none.

        Raises:
            UnreadableFileError: The file is damaged.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            record = cls(str(found["key"]), found["wandb_run_id"])
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
            temporary.chmod(0o600)
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def with_run(self, wandb_run_id: str | None) -> Pseudonyms:
        """Return the same key with another run at W&B."""
        return replace(self, wandb_run_id=wandb_run_id)

    def pseudonym(self, kind: Literal["case", "group"], name: str) -> str:
        """Hash the name of a case or group by HMAC-SHA256 to 16 hexadecimal digits.

        >>> Pseudonyms("00" * 32).pseudonym("case", "case123")
        'f9187ff675483979'
        """
        return hmac.new(bytes.fromhex(self.key), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:16]
