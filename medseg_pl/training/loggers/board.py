"""What is asked of a dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from medseg_pl.core.labels import LabelMap
from medseg_pl.training.loggers.images import Picture


@runtime_checkable
class Board(Protocol):
    """A logger that shows more than the scalars that Lightning sends it. Only rank zero talks to it."""

    def show_settings(self, settings: Mapping[str, Any]) -> None:
        """Show what the run was told to do; nested, of plain values."""

    def show_scores(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show a table with a row for each case and label."""

    def show_pictures(self, name: str, pictures: Mapping[str, Picture], labels: LabelMap, step: int) -> None:
        """Show cases with their masks, by caption."""

    def show_summary(self, values: Mapping[str, float]) -> None:
        """Show the few numbers that stand for the run."""
