"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.visualization import draw_side_by_side
from medseg_pl.training.loggers.images import Picture

_SHOWN = ("case_id", "group", "label", "dice", "iou", "hd95_mm", "nsd", "status")


class TensorBoardBoard:
    """Images, a table of scores as text, and the settings beside the scores they led to.

    Args:
        logger: Lightning's.
    """

    def __init__(self, logger: TensorBoardLogger) -> None:
        self.logger = logger
        self._settings: dict[str, Any] = {}

    def show_settings(self, settings: Mapping[str, Any]) -> None:
        """Kept until there are scores: TensorBoard shows both together, once."""
        self._settings = dict(settings)

    def show_scores(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """As text; the run folder has all columns."""
        self.logger.experiment.add_text(f"scores/{stage}", markdown(rows, _SHOWN))

    def show_pictures(self, name: str, pictures: Mapping[str, Picture], labels: LabelMap, step: int) -> None:
        """Image, reference and prediction side by side."""
        for number, picture in enumerate(pictures.values()):
            drawn = draw_side_by_side(picture.rgb, picture.reference, picture.prediction)
            self.logger.experiment.add_image(f"{name}/{number}", drawn, step, dataformats="HWC")

    def show_summary(self, values: Mapping[str, float]) -> None:
        """In the tab of hyper-parameters."""
        self.logger.log_hyperparams(self._settings, dict(values))


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    r"""A table in Markdown, numbers with four decimals.

    >>> print(markdown([{"label": "a|b", "dice": 0.5}], ["label", "dice"]))
    | label | dice |
    | --- | --- |
    | a\|b | 0.5000 |
    """
    lines = [columns, ["---"] * len(columns), *([_field(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _field(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
