"""Callbacks for the side effects of a run: files, pictures, progress, stopping."""

from medseg_pl.inference.review_queue import ReviewQueue
from medseg_pl.io.privacy import Pseudonyms
from medseg_pl.training.callbacks.log_media import MediaLogger
from medseg_pl.training.callbacks.optimization import LearningRates, WarmupEMA
from medseg_pl.training.callbacks.prediction_writer import Inputs, OverlayWriter, PredictionWriter
from medseg_pl.training.callbacks.provenance import ConfigWriter, ProfileWriter, ProvenanceWriter
from medseg_pl.training.callbacks.score_writer import ScoreWriter
from medseg_pl.training.callbacks.stopping import FiniteCheck, Preemption
from medseg_pl.training.csv_logger import LogBeforeSave
from medseg_pl.training.dashboards import check_wandb, make_private
from medseg_pl.training.progress import LengthTracker, LogLines, PhaseTracker, ProgressBar
from medseg_pl.training.trial_search import TrialReport

__all__ = [
    "ConfigWriter",
    "FiniteCheck",
    "Inputs",
    "LearningRates",
    "LengthTracker",
    "LogBeforeSave",
    "LogLines",
    "MediaLogger",
    "OverlayWriter",
    "PhaseTracker",
    "PredictionWriter",
    "Preemption",
    "ProfileWriter",
    "ProgressBar",
    "ProvenanceWriter",
    "Pseudonyms",
    "ReviewQueue",
    "ScoreWriter",
    "TrialReport",
    "WarmupEMA",
    "check_wandb",
    "make_private",
]
