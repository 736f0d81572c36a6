"""Cases decoded one after the other, for a prediction that need not keep them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from torch.utils.data import DataLoader, Dataset

from medseg_pl.core.errors import MedsegError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.stop_signals import ParentExitFlag, leave_signals_to_main
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import Source

T = TypeVar("T")


class Decoded(NamedTuple):
    """A case, with its pixels or with what is wrong with its files.

    Attributes:
        case: The case.
        volume: Without a mask; `None` where the files cannot be read.
        fault: Why they cannot; empty where they can.
    """

    case: Case
    volume: Volume | None
    fault: str = ""


class CaseDataset(Dataset[Decoded]):
    """Reads a case when it is asked for; a damaged file is a fault of its case and stops no other."""

    def __init__(self, cases: Sequence[Case], source: Source, labels: LabelMap) -> None:
        self.cases = list(cases)
        self.source = source
        self.labels = labels

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Decoded:
        """Decode case `index`."""
        case = self.cases[index]
        try:
            return Decoded(case, self.source.read(case, self.labels))
        except MedsegError as error:
            return Decoded(case, None, str(error))


def case_loader(cases: Sequence[Case], source: Source, labels: LabelMap, workers: int) -> DataLoader[Decoded]:
    """One case at a time, each worker one ahead."""
    return DataLoader(
        CaseDataset(cases, source, labels),
        batch_size=None,
        num_workers=min(workers, len(cases)),
        prefetch_factor=1 if workers and cases else None,
        collate_fn=_as_it_is,
        worker_init_fn=partial(_leave_signals, ParentExitFlag()),
    )


def _leave_signals(parent: ParentExitFlag, worker: int) -> None:
    """Let the main process answer Ctrl-C: a terminal sends it to workers as well, which would add their traces."""
    leave_signals_to_main(parent)


def _as_it_is(item: T) -> T:
    return item
