"""Side effects of a run: files, pictures, progress."""

from medseg_pl.averaging import WarmupEMA
from medseg_pl.callbacks.boards import BoardRecord, check_wandb, make_private
from medseg_pl.callbacks.config_record import ConfigRecord
from medseg_pl.callbacks.dashboard import Dashboard
from medseg_pl.callbacks.guard import Guard
from medseg_pl.callbacks.log_before_save import LogBeforeSave
from medseg_pl.callbacks.overlays import OverlayWriter
from medseg_pl.callbacks.phase import PhaseNote
from medseg_pl.callbacks.preemption import Preemption
from medseg_pl.callbacks.progress import Bar, EpochLines
from medseg_pl.callbacks.review_queue import ReviewQueue
from medseg_pl.callbacks.run_record import RunRecord
from medseg_pl.callbacks.scores import ScoreWriter
from medseg_pl.callbacks.writer import Inputs, PredictionWriter

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
