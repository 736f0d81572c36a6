"""Side effects of a run: files, pictures, progress."""

from medseg_pl.inference.review.writer import ReviewQueue
from medseg_pl.training.callbacks.finite_check import FiniteCheck
from medseg_pl.training.callbacks.log_before_save import LogBeforeSave
from medseg_pl.training.callbacks.log_media import MediaLogger
from medseg_pl.training.callbacks.overlay_writer import OverlayWriter
from medseg_pl.training.callbacks.phase import PhaseTracker
from medseg_pl.training.callbacks.prediction_writer import Inputs, PredictionWriter
from medseg_pl.training.callbacks.preemption import Preemption
from medseg_pl.training.callbacks.progress import LogLines, ProgressBar
from medseg_pl.training.callbacks.save_config import ConfigWriter
from medseg_pl.training.callbacks.save_provenance import ProvenanceWriter
from medseg_pl.training.callbacks.score_writer import ScoreWriter
from medseg_pl.training.callbacks.weight_averaging import WarmupEMA
from medseg_pl.training.loggers import BoardRecord, check_wandb, make_private

__all__ = [
    "BoardRecord",
    "ConfigWriter",
    "FiniteCheck",
    "Inputs",
    "LogBeforeSave",
    "LogLines",
    "MediaLogger",
    "OverlayWriter",
    "PhaseTracker",
    "PredictionWriter",
    "Preemption",
    "ProgressBar",
    "ProvenanceWriter",
    "ReviewQueue",
    "ScoreWriter",
    "WarmupEMA",
    "check_wandb",
    "make_private",
]
