"""The loader of a training, which can begin within an epoch."""

from __future__ import annotations

from torch.utils.data import DataLoader

from medseg_pl.core.errors import SettingError
from medseg_pl.core.types import Batch
from medseg_pl.data.samplers import EpochSampler


class TrainingLoader(DataLoader[Batch]):
    """Batches of an `EpochSampler`, those of a resumed epoch without the ones that were trained on before.

    Lightning asks for `state_dict` when it writes a checkpoint, and gives it to `load_state_dict` where it goes on
    within an epoch.
    """

    sampler: EpochSampler
    batch_size: int
    begun = (0, False)

    def begin_after(self, batches: int, all_done: bool = False) -> None:
        """Leave out the first batches of the sampler's current epoch, or all of them; other epochs stay whole."""
        self.begun = (batches, all_done)
        # However large batches were when all of them were done.
        self.sampler.leave_out(len(self.sampler) if all_done else batches * self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """What decides which samples the first so many batches of an epoch hold."""
        return {"batch_size": self.batch_size, "devices": self.sampler.ranks, "seed": self.sampler.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See that the batches that are left hold the samples that are left.

        Raises:
            SettingError: They do not, because batches are made up otherwise than before the stop.
        """
        changed = [name for name, value in self.state_dict().items() if state.get(name, value) != value]
        done, all_done = self.begun
        if not changed or not done or all_done:
            return
        before, now = (", ".join(f"{name} {which[name]}" for name in changed) for which in (state, self.state_dict()))
        raise SettingError(
            f"The checkpoint lies within an epoch, after {done} of its batches, and was trained with "
            f"{before}; now it is {now}. Samples of this epoch would be left out or seen twice. Set data.batch_size, "
            "the number of devices (trainer.devices × trainer.num_nodes) and seed_everything as they were, or resume "
            "from a checkpoint of an epoch's end, where they may change."
        )
