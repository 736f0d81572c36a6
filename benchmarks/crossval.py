"""Cross-validation from one command: out-of-fold Dice of the hippocampus, and what it costs.

Nothing is edited: `medseg plan` with five minutes a fold, then `medseg crossval`, on one core. The data is that of the
Medical Segmentation Decathlon in the folder `MEDSEG_TEST_DATA`.

    python benchmarks/crossval.py --work FOLDER [--minutes 5] [--core 0] [FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from _report import Claim, finish, list_left_out
from nnunet import run

MOST_MINUTES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("json", nargs="?", help="file of all numbers")
    options = parser.parse_args()
    if options.work is None or "MEDSEG_TEST_DATA" not in os.environ:
        list_left_out("it needs data in MEDSEG_TEST_DATA, --work, and half an hour of a core")
        return
    work = options.work.resolve()
    plan, spent = work / "plan.yaml", work / "minutes.json"
    if not spent.exists():
        work.mkdir(parents=True, exist_ok=True)
        medseg = [sys.executable, "-m", "medseg_pl"]
        root = Path(os.environ["MEDSEG_TEST_DATA"]) / "msd_hippocampus"
        planning = ["plan", root, "-o", plan, "--device", "cpu", "--minutes", str(options.minutes)]
        minutes = run([*medseg, *planning], options.core)
        folds = ["crossval", "--config", plan, "--runs", work, "--experiment", "folds", "--data.num_workers=0"]
        spent.write_text(json.dumps(minutes + run([*medseg, *folds], options.core)))
    minutes = json.loads(spent.read_text())
    summary = json.loads((work / "folds" / "summary_crossval.json").read_text())
    print((work / "folds" / "table_crossval.md").read_text())
    folds = summary["folds"]["foreground_mean"]["dice"]
    what = f"core-minutes of a cross-validation of {folds['n']} folds"
    target, measured = f"<= {MOST_MINUTES}", f"{minutes:.1f}"
    finish([Claim(what, "an hour", target, measured, minutes <= MOST_MINUTES)], summary, cores=1)


if __name__ == "__main__":
    main()
