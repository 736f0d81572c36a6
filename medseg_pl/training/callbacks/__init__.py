"""Side effects of a run: files, pictures, progress."""

from medseg_pl.inference.review.writer import ReviewQueue
from medseg_pl.training.callbacks.finite_check import Guard
from medseg_pl.training.callbacks.log_before_save import LogBeforeSave
from medseg_pl.training.callbacks.log_media import Dashboard
from medseg_pl.training.callbacks.overlay_writer import OverlayWriter
from medseg_pl.training.callbacks.phase import PhaseNote
from medseg_pl.training.callbacks.prediction_writer import Inputs, PredictionWriter
from medseg_pl.training.callbacks.preemption import Preemption
from medseg_pl.training.callbacks.progress import Bar, EpochLines
from medseg_pl.training.callbacks.save_config import ConfigRecord
from medseg_pl.training.callbacks.save_provenance import RunRecord
from medseg_pl.training.callbacks.score_writer import ScoreWriter
from medseg_pl.training.loggers import BoardRecord, check_wandb, make_private
from medseg_pl.training.weight_averaging import WarmupEMA

__all__ = [
    "Bar",
    "BoardRecord",
    "ConfigRecord",
    "Dashboard",
    "EpochLines",
    "Guard",
    "Inputs",
    "LogBeforeSave",
    "OverlayWriter",
    "PhaseNote",
    "PredictionWriter",
    "Preemption",
    "ReviewQueue",
    "RunRecord",
    "ScoreWriter",
    "WarmupEMA",
    "check_wandb",
    "make_private",
]
