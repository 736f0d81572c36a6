"""What an ensemble of folds and flips of the image gain, on test cases that no model has seen.

A fifth of the cases is the test set; the rest is three folds, and each of three models is validated on one of them. The
single model is the one with the best validation Dice; the gains are those of `medseg compare`, case by case.

    python benchmarks/ensemble.py DATA [any setting of medseg fit]

DATA is a folder with a `dataset.json` whose volumes are in `imagesTr` and `labelsTr`: Task04_Hippocampus.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _report import list_left_out

CONFIG, FOLDS = "configs/experiment/hippocampus.yaml", 3


def medseg(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "medseg_pl", *map(str, arguments)], check=True)


def sides(root: Path) -> tuple[list[str], list[list[str]]]:
    """The test cases, and the cases of each fold."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (root / "labelsTr").glob("[!.]*.nii.gz"))
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    test, rest = shuffled[: len(names) // 5], shuffled[len(names) // 5 :]
    return sorted(test), [sorted(rest[fold::FOLDS]) for fold in range(FOLDS)]


def train(root: Path, work: Path, test: list[str], folds: list[list[str]], settings: list[str]) -> list[Path]:
    """The best checkpoint of each fold."""
    for number, val in enumerate(folds):
        learned = [name for fold in folds if fold is not val for name in fold]
        split = work / f"split_{number}.json"
        split.write_text(json.dumps({"train": sorted(learned), "val": val, "test": test}))
        where = ["--data.source.root", root, "--data.split_file", split, "--runs", work / "runs"]
        medseg("fit", "--config", CONFIG, *where, "--experiment", f"fold_{number}", *settings)
    return [work / "runs" / f"fold_{number}" / "version_0" / "checkpoints" / "best.ckpt" for number in range(FOLDS)]


def validation_dice(checkpoint: Path) -> float:
    summary = json.loads((checkpoint.parents[1] / "summary_val.json").read_text())
    return float(summary["foreground_mean"]["dice"])


def score(name: str, checkpoints: list[Path], work: Path, *options: str) -> Path:
    """The folder of the scores on the test cases."""
    members = [part for checkpoint in checkpoints for part in ("--ckpt_path", checkpoint)]
    medseg("predict", *members, "--input", work / "images", "--output", work / f"{name}_masks", *options)
    medseg(
        *("evaluate", "--reference", work / "labels", "--prediction", work / f"{name}_masks", "-o", work / name),
        *("--labels", "anterior,posterior"),
    )
    return work / name


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].endswith(".json"):
        list_left_out("it needs the folder of Task04_Hippocampus, and trains for ten minutes")
        return
    root = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        test, folds = sides(root)
        for there, here in (("imagesTr", "images"), ("labelsTr", "labels")):
            (work / here).mkdir()
            for name in test:
                (work / here / f"{name}.nii.gz").symlink_to(root / there / f"{name}.nii.gz")
        checkpoints = train(root, work, test, folds, sys.argv[2:])
        best = max(checkpoints, key=validation_dice)
        single = score("single", [best], work)
        for name, members, options in (
            ("single_with_flips", [best], ["--model.tta", "horizontal"]),
            ("ensemble", checkpoints, []),
            ("ensemble_with_flips", checkpoints, ["--model.tta", "horizontal"]),
        ):
            other = score(name, members, work, *options)
            print(f"== {name}, compared with the single model", flush=True)
            medseg("compare", single, other, "--metric", "dice", "--metric", "hd95")


if __name__ == "__main__":
    main()
