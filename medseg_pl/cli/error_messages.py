"""What goes wrong in the middle of a run, in words: libraries say it in a stack trace."""

from __future__ import annotations

import re
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
)
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.callbacks.progress import Phase

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal|exited unexpectedly)")
_INEXACT = re.compile(r"(\S+) does not have a deterministic implementation")
_NO_SCORE = re.compile(r"Early stopping conditioned on metric `([^`]+)` which is not available")
_UNUSED = ("parameters that were not used in producing the loss", "Expected to have finished reduction")
_RARE_VALIDATION = re.compile(r"`val_check_interval` \((\S+)\) must be less than .* batches \((\d+)\)")
_LOST_RANK = (
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL communicator was aborted",
    "ncclRemoteError",
    "Broken pipe",
    "Timed out waiting",
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


@contextmanager
def in_words(command: str, doing: PhaseTracker) -> Iterator[None]:
    """Turn what is known to go wrong within the block into a `MedsegError`; what is not known keeps its trace.

    Args:
        command: What was asked for, since the remedies depend on it.
        doing: What is done at the moment, since the settings that save memory depend on it.
    """
    try:
        yield
    except Exception as error:  # Libraries raise whatever they like; what is not recognized goes on as it is.
        told = _told(error, command, doing.phase)
        if told is None:
            raise
        raise told from error


def _told(error: Exception, command: str, phase: Phase) -> MedsegError | None:
    text = str(error)
    again = "go on with --ckpt_path last" if command == "fit" else "repeat the command"
    if isinstance(error, MedsegError):
        return _from_worker(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _NO_MEMORY)
    ):
        return OutOfMemoryError(
            f"There is not enough memory for the {phase} with these settings. {_LESS_MEMORY[phase]}."
        )
    if isinstance(error, OSError) and (about_file := explain_file_error(error, command)):
        return about_file
    if type(error).__module__.startswith("wandb."):
        return LoggerError(
            f"Weights & Biases cannot be reached: {_first_line(text)}. Log in with wandb login, or set the logger's "
            "offline to true and upload later with wandb sync."
        )
    if isinstance(error, RuntimeError) and (inexact := _INEXACT.search(text)):
        return SettingError(
            f"trainer.deterministic is true, and {inexact.group(1)} gives other sums each time on this device. Set "
            "trainer.deterministic to warn, which does what can be done, or choose a network without it."
        )
    if isinstance(error, RuntimeError) and "unable to allocate shared memory" in text:
        return OutOfMemoryError(
            "/dev/shm is full, through which loading processes hand over batches. Give the container a larger one "
            f"(docker run --shm-size=2g), set data.num_workers to 0, or lower data.batch_size; then {again}."
        )
    if isinstance(error, RuntimeError) and any(sign in text for sign in _UNUSED):
        return SettingError(
            "Some parameters of the network get no gradient in some steps, for which DDP waits. Set trainer.strategy "
            "to ddp_find_unused_parameters_true."
        )
    if isinstance(error, ValueError) and (rare := _RARE_VALIDATION.search(text)):
        return SettingError(
            f"trainer.val_check_interval is {rare.group(1)}, but an epoch has {rare.group(2)} batches. Lower it, or "
            "set trainer.check_val_every_n_epoch to null, which counts on over epochs."
        )
    if isinstance(error, RuntimeError) and (unknown := _NO_SCORE.search(text)):
        return SettingError(
            f"EarlyStopping follows {unknown.group(1)}, which is not logged. Set its monitor to one of "
            f"{', '.join(sorted(re.findall(r'`([^`]+)`', text[unknown.end() :])[1:]))}."
        )
    if isinstance(error, RuntimeError) and _DEAD_WORKER.search(text):
        return WorkerDiedError(
            "A process that loads data has died, as one does that is killed or finds no memory. Lower "
            f"data.num_workers or data.batch_size, see that /dev/shm is large enough, and {again}."
        )
    if isinstance(error, RuntimeError) and any(sign in text for sign in _LOST_RANK):
        return WorkerDiedError(
            f"Another process of this run has ended, so this one ends as well ({_first_line(text)}). Its own message "
            f"says why. {again.capitalize()}."
        )
    return None


def _from_worker(error: MedsegError) -> MedsegError | None:
    """The sentence of an error that was raised in a worker, without the trace that torch packs around it.

    A trace is indented, so it ends where the error's name begins a line. Of errors that led to each other the last one
    was raised; what it says may look like a name as well.
    """
    kind = type(error)
    text = str(error)
    if not text.startswith(f"Caught {kind.__name__} in "):
        return None
    last = re.split(r"^(?:Original )?Traceback \(most recent call last\):$", text, flags=re.M)[-1]
    said = re.search(rf"^{re.escape(f'{kind.__module__}.{kind.__qualname__}')}: (.*)", last, re.M | re.S)
    return kind(" ".join((said.group(1) if said else last).split()))


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
