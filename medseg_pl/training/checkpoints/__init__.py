"""Checkpoints: how they are written and read, which are kept, and from which one a run goes on."""

from medseg_pl.models.checkpoint import SHARED, Trained, find_checkpoint, read_trained, run_folder_of
from medseg_pl.training.checkpoints.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    find_best_weights,
    keep_last_as_best,
    last_checkpoint,
)
from medseg_pl.training.checkpoints.checkpoint_io import DurableCheckpointIO
from medseg_pl.training.checkpoints.resume_point import (
    NEWEST,
    ResumePoint,
    find_resume_point,
    is_complete,
    newest_run,
    record_complete,
    remove_records,
)

__all__ = [
    "NEWEST",
    "SHARED",
    "BestCheckpoint",
    "DurableCheckpointIO",
    "LastCheckpoint",
    "ResumePoint",
    "Trained",
    "find_best_weights",
    "find_checkpoint",
    "find_resume_point",
    "is_complete",
    "keep_last_as_best",
    "last_checkpoint",
    "newest_run",
    "read_trained",
    "record_complete",
    "remove_records",
    "run_folder_of",
]
