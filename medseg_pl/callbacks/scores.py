"""The scores of an evaluation, as files and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich import box
from rich.console import Console
from rich.table import Table

from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.io.scores import numbered, write_rows, write_summary
from medseg_pl.metrics import Score, summarise
from medseg_pl.module import SegmentationModule

_SHOWN = ("dice", "iou", "precision", "recall")


class ScoreWriter(Callback):
    """Writes `scores_<stage>.csv` and `summary_<stage>.json` after `validate` and `test`, and prints the summary.

    Args:
        directory: Where to; the run folder by default.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not while training goes on: the validation that counts is that of the best weights, at its end."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        directory = self.directory or trainer.log_dir
        if not trainer.is_global_zero or directory is None or not isinstance(module, SegmentationModule):
            return
        scores, file = numbered(Path(directory), f"scores_{stage}.csv", f"summary_{stage}.json")
        summary = summarise(module.table, module.labels.names)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SegmentationDataModule):
            summary["scored"] = data.scored(stage)
        write_rows(scores, [_row(score) for score in module.table])
        write_summary(file, summary)
        console = Console()
        console.print(summary_table(summary, stage))
        console.print(f"Scores of every case: {scores}", soft_wrap=True, highlight=False)


def summary_table(summary: dict[str, Any], stage: str) -> Table:
    """The means of each label with the interval of Dice, as a table that fits 80 columns."""
    title = f"{stage}: {summary['n_cases']} cases of {summary['n_groups']} groups"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("label", overflow="fold")
    for name in ("Dice", "95 % interval", "IoU", "precision", "recall", "missed"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, described in summary["labels"].items():
        dice, *others = (_number(described.get(name, {}).get("mean")) for name in _SHOWN)
        interval = _interval(described.get("dice", {}).get("ci95"))
        table.add_row(label, dice, interval, *others, str(described["counts"]["n_missed"]))
    dice, *others = (_number(summary["foreground_mean"].get(name)) for name in _SHOWN)
    table.add_row("mean", dice, "", *others, "", style="bold")
    return table


def _row(score: Score) -> dict[str, str | int | float]:
    unit = "mm" if "volume_reference_ml" in score.values else "px"
    where = {"case_id": score.case_id, "group": score.group, "label": score.label}
    return {**where, **score.values, "status": score.status, "unit": unit}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(interval: list[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} – {interval[1]:.3f}"
