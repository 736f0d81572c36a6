"""Checkpoints: durable files, which are kept, and where a training resumes."""

from medseg_pl.models.checkpoint import SHARED, CheckpointInfo, find_checkpoint, get_run_folder, read_checkpoint
from medseg_pl.training.checkpoints.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    find_best_weights,
    keep_last_as_best,
    last_checkpoint_path,
    locate_weights,
)
from medseg_pl.training.checkpoints.checkpoint_io import DurableCheckpointIO
from medseg_pl.training.checkpoints.resume_point import (
    NEWEST,
    ResumePoint,
    find_resume_point,
    is_complete,
    lock_resume_point,
    record_complete,
    remove_records,
    report_complete_run,
)

__all__ = [
    "NEWEST",
    "SHARED",
    "BestCheckpoint",
    "CheckpointInfo",
    "DurableCheckpointIO",
    "LastCheckpoint",
    "ResumePoint",
    "find_best_weights",
    "find_checkpoint",
    "find_resume_point",
    "get_run_folder",
    "is_complete",
    "keep_last_as_best",
    "last_checkpoint_path",
    "locate_weights",
    "lock_resume_point",
    "read_checkpoint",
    "record_complete",
    "remove_records",
    "report_complete_run",
]
