"""What libraries throw, and what is said of it; what they say for their own sake is left out, and nothing else."""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

from medseg_pl.cli.error_messages import quiet_libraries, user_errors
from medseg_pl.core.errors import (
    MedsegError,
    MissingDataError,
    OutOfMemoryError,
    SettingError,
    UnreadableFileError,
    UnwritableFileError,
    WorkerDiedError,
)
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.progress import Phase

TRAINING = PhaseTracker()

TRAINING.phase = "training"

NAMES = ("lightning.pytorch", "lightning.fabric", "huggingface_hub")


@pytest.mark.parametrize(
    ("error", "kind", "phrase"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemoryError, "Lower data.batch_size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            OutOfMemoryError,
            "not enough memory for the training",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            WorkerDiedError,
            "Lower data.num_workers",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            WorkerDiedError,
            "Lower data.num_workers",
        ),
        (RuntimeError("[gloo] Connection closed by peer [::1]:5"), WorkerDiedError, "Another process of this run"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), MissingDataError, "a.png is not there"),
        (
            RuntimeError("Early stopping conditioned on metric `val/dic` which is not available. `val/dice`"),
            SettingError,
            "EarlyStopping monitors val/dic, which is not logged",
        ),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
            OutOfMemoryError,
            "/dev/shm is full.*data.num_workers to 0",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x.csv"), UnwritableFileError, "x.csv could not be written"),
    ],
)
def test_known(error: Exception, kind: type[MedsegError], phrase: str) -> None:
    with pytest.raises(kind, match=phrase), user_errors("fit", TRAINING):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("NCCL error: invalid usage, duplicate GPU detected"),  # a setting, and nobody else's fault
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ZeroDivisionError("a bug"),
    ],
)
def test_what_is_not_known_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, user_errors("fit", TRAINING):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("phase", "lower", "not_lower"),
    [
        ("preparation", "data.num_workers", "batch_size"),
        ("training", "data.batch_size", "eval_batch_size"),
        ("validation", "data.eval_batch_size", "data.batch_size"),
        ("test", "model.whole_image_max_pixels", "data.batch_size"),
        ("prediction", "model.whole_image_max_pixels", "data.batch_size"),
    ],
)
def test_what_to_lower_depends_on_the_phase(phase: Phase, lower: str, not_lower: str) -> None:
    doing = PhaseTracker()
    doing.phase = phase
    with pytest.raises(OutOfMemoryError) as caught, user_errors("fit", doing):
        raise MemoryError
    assert f"for the {phase} with these settings. Lower " in str(caught.value)
    assert lower in str(caught.value) and not_lower not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "elsewhere", "again"),
    [
        ("fit", " or choose another folder with --runs", "go on with --ckpt_path last"),
        ("test", "", "repeat the command"),
        ("predict", " or choose another folder with --output", "repeat the command"),
    ],
)
def test_how_to_go_on_depends_on_the_command(command: str, elsewhere: str, again: str) -> None:
    with pytest.raises(UnwritableFileError) as full, user_errors(command, TRAINING):
        raise OSError(errno.ENOSPC, "No space left on device", "x.csv")
    assert str(full.value).endswith(f"Free some space{elsewhere}, then {again}.")
    with pytest.raises(WorkerDiedError) as lost, user_errors(command, TRAINING):
        raise RuntimeError("Connection closed by peer")
    assert str(lost.value).endswith(f"See its message for the cause. {again[0].upper()}{again[1:]}.")


class Failing(Dataset[int]):
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        if self.error is not None:
            raise self.error
        Path("gone.npy").read_bytes()
        return 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 of fork
def test_from_a_loading_process() -> None:
    with pytest.raises(MissingDataError, match=r"^gone\.npy is not there"), user_errors("fit", TRAINING):
        list(DataLoader(Failing(None), num_workers=1))
    with pytest.raises(UnreadableFileError, match=r"^Case a: broken\.$"), user_errors("fit", TRAINING):
        list(DataLoader(Failing(UnreadableFileError("Case a: broken.")), num_workers=1))


SAYINGS = [
    "Case a: broken.",
    "Case a: expected a mask, got UnreadableFileError: x, and medseg_pl.core.errors.UnreadableFileError: y.",
    "Case a: the library says\nValueError: no\n  File z\nCorrect it.",
    "Traceback (most recent call last): was in its header.",
]


@pytest.mark.parametrize("said", SAYINGS, ids=range(len(SAYINGS)))
def test_our_own_error_from_a_loading_process_is_its_sentence(said: str) -> None:
    try:
        raise UnreadableFileError(said) from UnreadableFileError("What led to it.")
    except UnreadableFileError:
        raised = ExceptionWrapper(where="in DataLoader worker process 0")  # what torch sends to the main process
    with pytest.raises(UnreadableFileError) as caught, user_errors("fit", TRAINING):
        raised.reraise()
    assert str(caught.value) == " ".join(said.split())


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NAMES}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def told(message: str) -> bool:
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn(message, UserWarning, stacklevel=1)
    return bool(seen)


def test_only_what_a_user_can_do_something_about_is_told() -> None:
    noise = "The `srun` command is available on your system but is not used. HINT: prepend your python command"
    assert told(noise)
    quiet_libraries()
    assert not told(noise)
    assert not told("The 'train_dataloader' does not have many workers which may be a bottleneck")
    assert told("The split has no test cases")
    assert [logging.getLogger(name).getEffectiveLevel() for name in NAMES] == [30, 30, 50]


def test_no_name_of_a_file_commands_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a process that has just begun
    quiet_libraries()
    logging.getLogger("medseg_pl").warning("Case %s is empty.\nSo is another.", "a\x1b[2Jb")
    assert capsys.readouterr().err == "Case a\N{REPLACEMENT CHARACTER}[2Jb is empty.\nSo is another.\n"
