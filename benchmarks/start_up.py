"""Start-up: `medseg --help`, `--version` against an interpreter that does nothing, `fit --help` against LightningCLI's.

python benchmarks/start_up.py [results.json]
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from _report import Claim, finish, medians

ROUNDS = 5
BARE = """
from lightning.pytorch.cli import LightningCLI
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
LightningCLI(SegmentationModule, SegmentationDataModule, args=["fit", "--help"])
"""
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "medseg --help": [sys.executable, "-m", "medseg_pl", "--help"],
    "medseg --version": [sys.executable, "-m", "medseg_pl", "--version"],
    "medseg fit --help": [sys.executable, "-m", "medseg_pl", "fit", "--help"],
    "a bare LightningCLI": [sys.executable, "-c", BARE],
}


def main() -> None:
    runs = {name: partial(subprocess.run, line, check=True, capture_output=True) for name, line in COMMANDS.items()}
    spent = medians(runs, ROUNDS)
    for name, seconds in spent.items():
        print(f"{name:20} {seconds:6.3f} s  {seconds / spent['python -c pass']:5.1f} times the interpreter")
    slower = max(spent["medseg --help"], spent["medseg --version"])
    share = spent["medseg fit --help"] / spent["a bare LightningCLI"]
    claims = [
        Claim("`medseg --help`, `--version`", "-", "0.3 s", f"{slower:.2f} s", slower <= 0.3),
        Claim("`medseg fit --help`", "a bare LightningCLI", "no slower", f"{share:.2f} of its time", share <= 1.0),
    ]
    finish(claims, spent, ["jsonargparse"])


if __name__ == "__main__":
    main()
