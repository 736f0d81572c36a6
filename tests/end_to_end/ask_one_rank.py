"""One of several processes that train together: `torchrun … ask_one_rank.py fit …`; the second one is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from medseg_pl.__main__ import main
from medseg_pl.module import SegmentationModule


class Asked(SegmentationModule):
    """The usual module, which sends SIGTERM to its process in its third step, on rank 1."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """As usual."""
        if self.global_rank == 1 and self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)


if __name__ == "__main__":
    import medseg_pl.cli

    if "--ckpt_path" not in sys.argv:
        medseg_pl.cli.SegmentationModule = Asked  # type: ignore[misc]
    code = main()
    sys.stdout.write(f"rank {os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0'))} ends with {code}\n")
    sys.exit(code)
