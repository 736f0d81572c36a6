"""Order of samples, their distribution over ranks, and loaders that begin within an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapreplace

import numpy as np
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from medseg_pl.core.errors import SettingError
from medseg_pl.core.types import Batch
from medseg_pl.data.datasets import Draw


class EpochSampler(Sampler[Draw]):
    """A new order of samples for each epoch, without overlap between ranks.

    Seed and epoch alone decide it.

    Args:
        length: The number of samples.
        seed: Decides the order, together with the epoch.
        samples_per_epoch: How long an epoch is, over all ranks; each sample once by default. A longer epoch passes
            through the samples again, a shorter one takes the first of the epoch's order.
        rank: This process.
        ranks: The number of processes; what does not divide evenly among them is left out of this epoch.
    """

    def __init__(
        self, length: int, seed: int, samples_per_epoch: int | None = None, rank: int = 0, ranks: int = 1
    ) -> None:
        self.length = length
        self.seed = seed
        self.total = samples_per_epoch or length
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self._begun = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the trainer calls this before each one."""
        self.epoch = epoch

    def leave_out(self, draws: int) -> None:
        """Begin the current epoch after so many draws of this rank."""
        self._begun = (self.epoch, draws)

    def __len__(self) -> int:
        """Count the draws of a whole epoch."""
        # Lightning's counters and progress bars are those of whole epochs.
        return self.total // self.ranks

    def __iter__(self) -> Iterator[Draw]:
        # No generator itself: the epoch is that of this call, however late the draws are asked for.
        epoch, done = self._begun
        return self._iterate_draws(self.epoch, done if epoch == self.epoch else 0)

    def _iterate_draws(self, epoch: int, done: int) -> Iterator[Draw]:
        current, order = -1, np.empty(0, np.int64)
        for position in range(done * self.ranks + self.rank, len(self) * self.ranks, self.ranks):
            passage, within = divmod(position, self.length)
            if passage != current:
                current, order = passage, self._order(epoch, passage)
            # The passage is part of the draw, so that a second passage is augmented differently.
            yield epoch, int(order[within]) + passage * self.length

    def _order(self, epoch: int, passage: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch, passage)).permutation(self.length)


class FixedSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]  # draws are pairs, not numbers
    """The order of the first epoch in every epoch, for `trainer.overfit_batches`.

    Lightning replaces any sampler that is not sequential by one that gives plain numbers.
    """

    def set_epoch(self, epoch: int) -> None:
        """Stay in the first epoch."""


class CaseBatchSampler(Sampler[list[int]]):
    """Whole cases for each rank, in batches of slices of one size.

    Nothing is padded or seen twice. Cases go to the rank that has the fewest slices so far, the largest first.

    Args:
        depths: Slices of each case.
        sizes: Resized size of each case's slices.
        batch_size: At most this many slices in a batch.
        rank: This process.
        ranks: The number of processes.
    """

    def __init__(
        self,
        depths: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        # Every rank computes the whole assignment, so that none has to be told its share.
        mine = _assign_cases(depths, rank, ranks)
        first = np.cumsum([0, *depths])
        slices = [(int(first[case]) + d, sizes[case]) for case in mine for d in range(depths[case])]
        # A rank without a case still takes part in what all ranks do together: it gets one empty batch.
        self.batches = _batch_by_size(slices, batch_size) or [[]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def _assign_cases(depths: Sequence[int], rank: int, ranks: int) -> list[int]:
    filled = [(0, each) for each in range(ranks)]  # a heap: the first of those that have fewest is on top
    mine = []
    for case in sorted(range(len(depths)), key=lambda number: (-depths[number], number)):
        slices, emptiest = filled[0]
        heapreplace(filled, (slices + depths[case], emptiest))
        if emptiest == rank:
            mine.append(case)
    return sorted(mine)


def _batch_by_size(slices: list[tuple[int, tuple[int, int]]], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    previous = None
    for index, size in slices:
        if size != previous or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(index)
        previous = size
    return batches


class TrainingLoader(DataLoader[Batch]):
    """Batches of an `EpochSampler`, without those already trained on.

    Lightning asks for `state_dict` when it writes a checkpoint, and gives it to `load_state_dict` when it resumes
    within an epoch, which then continues where it stopped.
    """

    sampler: EpochSampler
    batch_size: int
    begun = (0, False)

    def begin_after(self, batches: int, all_done: bool = False) -> None:
        """Leave out the first batches of the current epoch, or all."""
        self.begun = (batches, all_done)
        # However large batches were when all of them were done.
        self.sampler.leave_out(len(self.sampler) if all_done else batches * self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """Return what decides which samples a batch holds."""
        return {"batch_size": self.batch_size, "devices": self.sampler.ranks, "seed": self.sampler.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Check that the batches left hold the samples left.

        Raises:
            SettingError: They do not, because batches are made up otherwise than before the stop.
        """
        changed = [name for name, value in self.state_dict().items() if state.get(name, value) != value]
        done, all_done = self.begun
        if not changed or not done or all_done:
            return
        before, now = (", ".join(f"{name} {which[name]}" for name in changed) for which in (state, self.state_dict()))
        raise SettingError(
            f"The checkpoint is {done} batches into an epoch that was begun with {before}; now it is {now}. Set "
            "data.batch_size, trainer.devices and seed_everything as they were, or resume from an epoch's end."
        )
