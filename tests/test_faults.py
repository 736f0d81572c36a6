"""What libraries throw, and what is said of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from medseg_pl.core.errors import (
    LostProcessError,
    MedsegError,
    MissingDataError,
    OutOfMemoryError,
    SettingError,
    UnreadableFileError,
    UnwritableFileError,
)
from medseg_pl.faults import in_words


@pytest.mark.parametrize(
    ("error", "kind", "phrase"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemoryError, "Lower data.batch_size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            OutOfMemoryError,
            "not enough memory for medseg fit",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            LostProcessError,
            "Lower data.workers",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), LostProcessError, "Lower data.workers"),
        (RuntimeError("[gloo] Connection closed by peer [::1]:5"), LostProcessError, "Another process of this run has"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), MissingDataError, "a.png is not there"),
        (
            RuntimeError("upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation, but you"),
            SettingError,
            "and upsample_bilinear2d_backward_out_cuda gives other sums each time on this device. Set trainer.determin",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x.csv"), UnwritableFileError, "x.csv could not be written"),
    ],
)
def test_known(error: Exception, kind: type[MedsegError], phrase: str) -> None:
    with pytest.raises(kind, match=phrase), in_words("fit"):
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
    with pytest.raises(type(error)) as caught, in_words("fit"):
        raise error
    assert caught.value is error


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
    with pytest.raises(MissingDataError, match=r"^gone\.npy is not there"), in_words("fit"):
        list(DataLoader(Failing(None), num_workers=1))
    with pytest.raises(UnreadableFileError) as caught, in_words("fit"):
        list(DataLoader(Failing(UnreadableFileError("Case a: broken.")), num_workers=1))
    assert str(caught.value) == "Case a: broken."
