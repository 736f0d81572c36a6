"""One of several processes that train together: `torchrun … ask_one_rank.py fit …`; the second one is asked to stop.

`ASK_IN=training` does so in its third step, `ASK_IN=validation` in the first validation.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from medseg_pl.__main__ import main
from medseg_pl.training.module import SegmentationModule


class Asked(SegmentationModule):
    """The usual module, which sends SIGTERM to its process on rank 1."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """As usual."""
        if self.global_step == 2:
            self.ask("training")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """As usual."""
        if not self.trainer.sanity_checking:
            self.ask("validation")
        return super().validation_step(batch, batch_idx)

    def ask(self, where: str) -> None:
        """Send the signal, if it is here."""
        if self.global_rank == 1 and os.environ["ASK_IN"] == where:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    import medseg_pl.cli.run

    if "--ckpt_path" not in sys.argv:
        medseg_pl.cli.run.SegmentationModule = Asked  # type: ignore[misc]
    code = main()
    sys.stdout.write(f"rank {os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0'))} ends with {code}\n")
    sys.exit(code)
