"""Kill processes while they save, again and again, and count what they leave; prints the counts as JSON.

Arguments: the folder that is saved into, a folder for temporary files, the number of kills, the seed of the moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

import torch

from medseg_pl.core.errors import MedsegError
from medseg_pl.models.checkpoint import load_verified
from medseg_pl.training.checkpoints import DurableCheckpointIO

NUMBERS = 500_000
MOST = 2
"""After how many saves, at most, a child is killed: counted and not timed, since a busy machine is slow."""


def save_for_ever(last: Path, step: int, saved: int) -> None:
    """Save one state after the other, and report each as soon as it is said to be on the disk."""
    checkpoint_io = DurableCheckpointIO()
    os.write(saved, struct.pack("q", step))
    while True:
        step += 1
        checkpoint_io.save_checkpoint(state(step), last)
        os.write(saved, struct.pack("q", step))


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "weights": torch.full((NUMBERS,), float(step))}


def seconds_of_a_save(last: Path) -> float:
    """Of the second one: the first warms up what the machine keeps."""
    checkpoint_io = DurableCheckpointIO()
    checkpoint_io.save_checkpoint(state(0), last)
    begin = time.monotonic()
    checkpoint_io.save_checkpoint(state(1), last)
    return time.monotonic() - begin


def killed_after(last: Path, step: int, saves: int, delay_s: float) -> int:
    """Start a child, kill it a while after some saves, and return the last step that it reported."""
    reports, saved = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(last, step, saved)
        finally:
            os._exit(1)
    os.close(saved)
    for _ in range(1 + saves):  # with the first report the child is about to save
        reported = os.read(reports, 8)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reports, 8):
        reported = more
    os.close(reports)
    return int(struct.unpack("q", reported)[0])


def main(folder: str, temporary: str, kills: str, seed: str) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    torch.set_num_threads(1)  # a forked process has lost the threads of its parent
    last, moments = Path(folder, "last.ckpt"), random.Random(seed)
    save_s = seconds_of_a_save(last)
    counts = {"kills": 0, "in_mid_save": 0, "lost": 0, "unreadable": 0}
    step = 1
    for _ in range(int(kills)):
        reported = killed_after(last, step, moments.randint(0, MOST), moments.uniform(0, save_s))
        counts["kills"] += 1
        counts["in_mid_save"] += any(last.parent.glob(".writing-*"))
        try:
            checkpoint = load_verified(last)  # itself, and not the one that is kept from before
        except MedsegError:
            counts["unreadable"] += 1
            continue
        step = int(checkpoint["global_step"])
        counts["lost"] += step < reported or not bool((checkpoint["weights"] == step).all())
    counts["steps"] = step
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
