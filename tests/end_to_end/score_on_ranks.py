"""One of several processes that score together: `python score_on_ranks.py CHECKPOINT SPLIT…`, one test for each split.

The scores of `splits/7.json` end up in `splits/7/scores_test.csv`. Rank and number of processes come from the
environment, as on a cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

from medseg_pl.__main__ import main

RANKS = os.environ.get("WORLD_SIZE", "1")


def score(checkpoint: Path, split: Path, batch_size: str) -> None:
    """Test a copy of the checkpoint that lies where its scores should."""
    os.environ["WORLD_SIZE"] = RANKS  # Lightning removes it after each run
    folder = split.with_suffix("")
    if os.environ["LOCAL_RANK"] == "0":
        folder.mkdir()
        shutil.copy(checkpoint, folder / "best.ckpt.part")
        (folder / "best.ckpt.part").rename(folder / "best.ckpt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first test starts the group, and its rank zero may come last
    while not (folder / "best.ckpt").exists():
        pass
    several = [f"--trainer.devices={RANKS}", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    options = [f"--data.split_file={split}", f"--data.eval_batch_size={batch_size}", *several]
    options.append("--model.metrics+=medseg_pl.ObjectMetric")
    assert main(["test", "--ckpt_path", str(folder / "best.ckpt"), *options]) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    for given in sys.argv[3:]:
        score(Path(sys.argv[1]), Path(given), sys.argv[2])
