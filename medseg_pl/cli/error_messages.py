"""Errors of libraries that users meet in every project, as one paragraph each; messages that help nobody, left out."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medseg_pl.core.errors import (
    LoggerError,
    MedsegError,
    OutOfMemoryError,
    SettingError,
    WorkerDiedError,
    explain_file_error,
    make_printable,
)
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.progress import Phase

_NO_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED")

_NO_SHARED_MEMORY = re.compile("unable to allocate shared memory")

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal|exited unexpectedly)")

_NO_SCORE = re.compile(r"Early stopping conditioned on metric `([^`]+)` which is not available")

_LOST_RANK = re.compile(
    "Connection closed by peer|Connection reset by peer|NCCL communicator was aborted|ncclRemoteError|Broken pipe"
    "|Timed out waiting"
)

_WHOLE_IMAGES = "Lower data.eval_batch_size or model.whole_image_max_pixels, or set trainer.precision to bf16-mixed"

_LESS_MEMORY: dict[Phase, str] = {
    "preparation": "Lower data.num_workers (as many cases are decoded at once), or choose a smaller model.network",
    "training": "Lower data.batch_size (trainer.accumulate_grad_batches makes up for it), model.input_size or "
    "model.context_slices, or set trainer.precision to bf16-mixed",
    "validation": _WHOLE_IMAGES,
    "test": _WHOLE_IMAGES,
    "prediction": _WHOLE_IMAGES,
}

_NOISE = (
    "LightningCLI's args parameter is intended",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",
    ".*Trainer was configured.*logger=False",
    "Checkpoint directory .* exists and is not empty",  # a run that goes on
    ".*instantiate_classes.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*custom batch sampler.*",
    "This DataLoader will create .* worker processes",  # on one core; scores do not depend on it
    "The provided params to be frozen already exist",  # BackboneFinetuning leaves batch normalization trainable
    "Image size .* exceeds limit of .* pixels, could be decompression bomb",  # ours is larger, and is an error
    "The `srun` command is available on your system but is not used",  # not every run on a cluster's machine is a job
    ".*recommended to use `self.log.*sync_dist=True",  # scores are merged by case before they are logged
)


@contextmanager
def user_errors(command: str, tracker: PhaseTracker) -> Iterator[None]:
    """Raise a known error of the block as a `MedsegError`.

    Any other error keeps its trace.

    Args:
        command: The command that is running, since the remedies depend on it.
        tracker: Knows the phase, since the settings that save memory depend on it.

    Raises:
        MedsegError: A known error was raised.
    """
    try:
        yield
    except Exception as error:  # libraries raise whatever they like; what is not recognized goes on as it is
        user_error = to_user_error(error, command, tracker.phase)
        if user_error is None:
            raise
        raise user_error from error


def to_user_error(error: Exception, command: str, phase: Phase) -> MedsegError | None:
    """Convert a known error to one that a user can act on.

    Args:
        error: The error.
        command: The command that is running, since the remedies depend on it.
        phase: What the training was doing.

    Returns:
        `None` for an unknown error.
    """
    text = str(error)
    again = "go on with --ckpt_path last" if command == "fit" else "repeat the command"
    if isinstance(error, MedsegError):
        return _unpack_worker_error(error)
    if isinstance(error, OSError) and (file_error := explain_file_error(error, command)):
        return file_error
    if type(error).__module__.startswith("wandb."):
        return LoggerError(
            f"Weights & Biases cannot be reached: {_take_line(text)}. Log in with wandb login, or set the logger's "
            "offline to true and upload later with wandb sync."
        )
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return _describe_memory(phase)
    if not isinstance(error, RuntimeError):
        return None
    if monitor := _NO_SCORE.search(text):
        names = ", ".join(sorted(re.findall(r"`([^`]+)`", text[monitor.end() :])[1:]))
        return SettingError(
            f"EarlyStopping monitors {monitor.group(1)}, which is not logged. Set its monitor to one of {names}."
        )
    if _NO_SHARED_MEMORY.search(text):
        return OutOfMemoryError(
            "/dev/shm is full; data-loading processes pass batches through it. Give the container a larger one "
            f"(docker run --shm-size=2g), set data.num_workers to 0, or lower data.batch_size; then {again}."
        )
    if _NO_MEMORY.search(text):
        return _describe_memory(phase)
    if _DEAD_WORKER.search(text):
        return WorkerDiedError(
            "A data-loading process died: it was killed, or ran out of memory. Lower "
            f"data.num_workers or data.batch_size, see that /dev/shm is large enough, and {again}."
        )
    if _LOST_RANK.search(text):
        return WorkerDiedError(
            f"Another process of this run ended, so this one stops ({_take_line(text)}). See its message "
            f"for the cause. {again.capitalize()}."
        )
    return None


def _describe_memory(phase: Phase) -> OutOfMemoryError:
    return OutOfMemoryError(f"There is not enough memory for the {phase} with these settings. {_LESS_MEMORY[phase]}.")


def _unpack_worker_error(error: MedsegError) -> MedsegError | None:
    """Return the message of a worker's error without torch's trace.

    A trace is indented, so it ends where the error's name begins a line. Of errors that led to each other the last one
    was raised; its message may look like a name as well.
    """
    kind = type(error)
    text = str(error)
    if not text.startswith(f"Caught {kind.__name__} in "):
        return None
    last = re.split(r"^(?:Original )?Traceback \(most recent call last\):$", text, flags=re.M)[-1]
    message = re.search(rf"^{re.escape(f'{kind.__module__}.{kind.__qualname__}')}: (.*)", last, re.M | re.S)
    return kind(" ".join((message.group(1) if message else last).split()))


def _take_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"


class PrintableFormatter(logging.Formatter):
    """Remove from messages what a terminal would obey.

    Messages name cases, and a stranger may have named their files.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format the message, line by line."""
        return "\n".join(make_printable(line) for line in super().format(record).split("\n"))


def quiet_libraries() -> None:
    """Silence log messages that a user cannot act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # five retries, each told twice; we say it once
    # What became of pretrained weights is no warning, and has to be seen; once for all processes of a machine.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        logging.getLogger("medseg_pl.models").setLevel(logging.INFO)
    told = logging.StreamHandler()
    told.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[told])
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
