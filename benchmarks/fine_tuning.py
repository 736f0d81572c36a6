"""What a checkpoint brings to ten new patients: the same steps from its weights, and from random ones.

On the hippocampus of the Medical Segmentation Decathlon, in the folder `MEDSEG_TEST_DATA`: a model learns from the
training side of fold 0. Of the side that it never saw, ten patients are trained on for 60 steps, and the others scored.
A second model is made for another data set by one option: photographs of three channels with one label.

    python benchmarks/fine_tuning.py --work FOLDER [--base_steps 400] [--steps 60] [FILE.json]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from _report import Claim, finish, list_left_out
from nnunet import fold_0

SHIPPED = Path(__file__).parents[1] / "configs" / "experiment" / "hippocampus.yaml"
NEW_PATIENTS = 10
TARGET = 0.05


def fit(work: Path, experiment: str, root: Path, steps: int, *settings: object) -> Path:
    """Train unless that is done; the run folder."""
    run = work / experiment / "version_0"
    if not (run / "complete.json").exists():
        command = ["fit", "--config", SHIPPED, "--data_root", root, "--runs", work, "--experiment", experiment]
        length = [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--trainer.check_val_every_n_epoch=1"]
        patches = f"--data.samples_per_epoch={32 * steps}"
        words = [*command, *length, patches, "--trainer.accelerator=cpu", "--data.num_workers=0", *settings]
        subprocess.run([sys.executable, "-m", "medseg_pl", *map(str, words)], check=True, stdout=sys.stderr)
    return run


def read_dice(run: Path) -> dict[str, float]:
    """Dice of each case, the mean of its labels."""
    cases: dict[str, list[float]] = {}
    with (run / "scores_val.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            cases.setdefault(row["case_id"], []).append(float(row["dice"]))
    return {case: sum(values) / len(values) for case, values in cases.items()}


def continue_elsewhere(work: Path, data: Path, checkpoint: Path) -> str:
    """Train on photographs of nuclei from a model of grayscale volumes; what was loaded."""
    run = fit(
        *(work, "elsewhere", data / "nuclei", 5, f"--model.pretrained={checkpoint}", "--model.channels=3"),
        *("--model.context_slices=0", "--model.labels.names=[foreground]", "--model.labels.task=binary"),
        *("--data.source=FolderSource", "--data.source.images=images", "--data.source.masks=masks"),
    )
    settings = json.loads((run / "complete.json").read_text())
    return f"{settings['steps']} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--base_steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("json", nargs="?", help="file of all numbers")
    options = parser.parse_args()
    if options.work is None or "MEDSEG_TEST_DATA" not in os.environ:
        list_left_out("it needs data in MEDSEG_TEST_DATA, --work, and four minutes of two cores")
        return
    from medseg_pl.metrics.statistics.intervals import bootstrap_interval

    data, work = Path(os.environ["MEDSEG_TEST_DATA"]).resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    root = data / "msd_hippocampus"
    names = sorted(path.name.split(".")[0] for path in (root / "labelsTr").glob("*.nii.gz"))
    seen = fold_0(names)
    splits = {
        "base": {"train": seen["train"], "val": seen["val"], "test": []},
        "new": {"train": seen["val"][:NEW_PATIENTS], "val": seen["val"][NEW_PATIENTS:], "test": []},
    }
    for name, sides in splits.items():
        (work / f"{name}.json").write_text(json.dumps(sides))
    base = fit(work, "base", root, options.base_steps, f"--data.split_file={work / 'base.json'}")
    checkpoint = base / "checkpoints" / "best.ckpt"
    there = f"--data.split_file={work / 'new.json'}"
    tuned = read_dice(fit(work, "tuned", root, options.steps, there, f"--model.pretrained={checkpoint}"))
    scratch = read_dice(fit(work, "scratch", root, options.steps, there))
    gains = [tuned[case] - scratch[case] for case in sorted(scratch)]
    low, high = bootstrap_interval(gains, sorted(scratch))
    gain = sum(gains) / len(gains)
    for name, dice in {"continued": tuned, "from random weights": scratch}.items():
        print(f"{name}: Dice {sum(dice.values()) / len(dice):.4f} of {len(dice)} patients")
    print(f"difference: {gain:.4f} ({low:.4f} to {high:.4f})")
    elsewhere = continue_elsewhere(work, data, checkpoint)
    print(f"from 1 channel and 2 labels to 3 channels and 1 label: {elsewhere}")
    what = f"Dice after {options.steps} steps on {NEW_PATIENTS} new patients, from a checkpoint"
    measured = f"+{gain:.3f} ({low:.3f} to {high:.3f})"
    finish(
        [Claim(what, "random weights", f">= +{TARGET}", measured, gain >= TARGET)],
        {"continued": tuned, "scratch": scratch},
    )


if __name__ == "__main__":
    main()
