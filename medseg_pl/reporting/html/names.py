"""What cases and patients are called on the page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medseg_pl.io.pseudonyms import BoardRecord


class Names(NamedTuple):
    """Turns ids into what is shown.

    Attributes:
        record: The key to hashed names; `None` shows the ids.
        kept: Whether the key is in the run folder, so that its owner can find a case by its hashed name.
    """

    record: BoardRecord | None
    kept: bool = True

    def case(self, case_id: str) -> str:
        """A case's name."""
        return self.record.pseudonym("case", case_id) if self.record else case_id

    def group(self, group: str) -> str:
        """A patient's name."""
        return self.record.pseudonym("group", group) if self.record else group


def choose_names(folder: Path, *, plain: bool) -> Names:
    """The names for a page whose first run is in `folder`.

    Hashed names are those of the run's dashboards. A run without a dashboard gets a key now, which stays in its folder;
    where nothing can be written there, the names hold for this page alone.
    """
    if plain:
        return Names(None)
    if record := BoardRecord.read(folder):
        return Names(record)
    record = BoardRecord.new()
    try:
        record.write(folder)
    except OSError:
        return Names(record, kept=False)
    return Names(record)
