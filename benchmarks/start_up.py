"""Start-up: `medseg --help`, `--version`, and `medseg fit` until its first batch against a bare LightningCLI.

python benchmarks/start_up.py [results.json]

Both trainings have the same network, images and masks, and end as their first training batch begins; each starts from
a cold process. Both run from bytecode, as what pip has installed does: the round that does not count writes it. What
the bare one is made of stands in `_bare_cli.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from _report import Claim, finish, medians

ROUNDS = 5
HERE = Path(__file__).parent
PYTHON = sys.executable
STOP = "--trainer.callbacks+=_first_batch.StopAtFirstBatch"
CPU = "--trainer.accelerator=cpu"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "phantom")
        phantom = ["phantom", str(data), "--layout=folder", "--cases=6", "--slices=4"]
        subprocess.run([PYTHON, "-m", "medseg_pl", *phantom], check=True, capture_output=True)
        ours = [
            *(
                "fit",
                "--config=configs/experiment/demo.yaml",
                f"--runs={folder}/runs",
                CPU,
                STOP,
                "--plugins=_first_batch",
            ),
            *("--data.source=medseg_pl.FolderSource", f"--data.source.root={data}"),
            *("--model.labels.task=multiclass", "--data.split_fractions=null", "--data.num_workers=0"),
        ]
        commands = {
            "python -c pass": [PYTHON, "-c", "pass"],
            "medseg --help": [PYTHON, "-m", "medseg_pl", "--help"],
            "medseg --version": [PYTHON, "-m", "medseg_pl", "--version"],
            "medseg check --help": [PYTHON, "-m", "medseg_pl", "check", "--help"],
            "medseg fit": [PYTHON, "-m", "medseg_pl", *ours],
            "a bare LightningCLI": [PYTHON, str(HERE / "_bare_cli.py"), "fit", f"--data.root={data}", CPU, STOP],
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        start = partial(subprocess.run, check=True, capture_output=True, env=environment)
        spent = medians({name: partial(start, line) for name, line in commands.items()}, ROUNDS)
    for name, seconds in spent.items():
        print(f"{name:20} {seconds:6.3f} s  {seconds / spent['python -c pass']:5.1f} times the interpreter")
    slower = max(spent["medseg --help"], spent["medseg --version"])
    share = spent["medseg fit"] / spent["a bare LightningCLI"]
    claims = [
        Claim("`medseg --help`, `--version`", "-", "0.3 s", f"{slower:.2f} s", slower <= 0.3),
        Claim("`medseg fit`, first batch", "a bare LightningCLI", "0.7 of its time", f"{share:.2f}", share <= 0.7),
    ]
    finish(claims, spent, ["jsonargparse", "torchmetrics"])


if __name__ == "__main__":
    main()
