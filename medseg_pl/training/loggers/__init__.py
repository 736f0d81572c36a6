"""Loggers of a run: `metrics.csv`, and what dashboards show and must not know."""

from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.training.loggers.csv_logger import LogBeforeSave, RunLogger
from medseg_pl.training.loggers.dashboards import check_wandb, make_private

__all__ = ["LogBeforeSave", "Pseudonyms", "RunLogger", "check_wandb", "make_private"]
