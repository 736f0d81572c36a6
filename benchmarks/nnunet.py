"""Accuracy for compute: medseg's own plan, in no more minutes of a core, beside nnU-Net v2 in 2D, on the hippocampus.

Fold 0 of nnU-Net's split (scikit-learn's `KFold(5, shuffle=True, random_state=12345)` over the sorted names). Each side
trains on four fifths of the volumes, alone on one core, and predicts the others with its last weights, so that neither
has looked at them. Minutes are those that a core computed: other programs of the machine do not count. Both are scored
by `medseg evaluate`.

medseg trains what `medseg plan` writes, with nothing edited but the seed. nnU-Net plans batches of several hundred
slices for these small images, of which a core computes a few in a minute: its epochs are shortened to five, of 250
steps each, and its batch is lowered, both as its documentation allows. With `--batch 32` it had two to four times
medseg's minutes, by the processor; the minutes of both are printed. It has no seed; its runs differ nevertheless.

    python benchmarks/nnunet.py DATA WORK [--runs 0 1 2] [--batch 32] [--nnunet FOLDER] [--core 0] [--json FILE]

DATA is Task04_Hippocampus; WORK keeps what is trained, and what is in it already is not trained again. nnU-Net is
`pip install nnunetv2`, in an environment of its own if need be: `--nnunet` names the folder of its commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np
from _report import list_left_out

EPOCHS, DATASET = 5, "Dataset004_Hippocampus"
METRICS = {"dice": "Dice", "hd95": "HD95, mm", "nsd": "NSD"}


def names_of(root: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in (root / "labelsTr").glob("[!.]*.nii.gz"))


def fold_0(names: list[str]) -> dict[str, list[str]]:
    """The split that nnU-Net makes by itself, as scikit-learn draws it; `train_nnunet` compares the two."""
    order = np.arange(len(names))
    np.random.RandomState(12345).shuffle(order)
    val = set(np.array_split(order, 5)[0].tolist())
    sides = {"train": [i for i in range(len(names)) if i not in val], "val": sorted(val)}
    return {side: [names[i] for i in places] for side, places in sides.items()}


def run(command: list[str | Path], core: int, **environment: str) -> float:
    """Run on one core; the minutes that it computed, with all processes that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment}
    pinned = ["taskset", "-c", str(core), *map(str, command)]
    subprocess.run(pinned, env={**os.environ, **alone}, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def medseg(*arguments: str | Path, core: int = 0) -> float:
    return run([sys.executable, "-m", "medseg_pl", *arguments], core)


def linked(target: Path, source: Path, names: list[str], ending: str = "") -> Path:
    """A folder of links to some of the images."""
    target.mkdir(parents=True)
    for name in names:
        (target / f"{name}{ending}.nii.gz").symlink_to(source / f"{name}.nii.gz")
    return target


def train_medseg(root: Path, work: Path, split: dict[str, list[str]], seed: int, core: int) -> dict[str, float]:
    """Plan, train and predict; the masks are in `masks`."""
    (work / "split.json").write_text(json.dumps({**split, "test": []}))
    medseg("plan", root, "-o", work / "plan.yaml", "--device", "cpu", core=core)
    options = ["--data.split_file", work / "split.json", "--seed_everything", str(seed), "--runs", work / "runs"]
    minutes = medseg("fit", "--config", work / "plan.yaml", "--experiment", "plan", *options, core=core)
    checkpoint = work / "runs" / "plan" / "version_0" / "checkpoints" / "last.ckpt"
    images = linked(work / "images", root / "imagesTr", split["val"])
    predicting = medseg(
        *("predict", "--ckpt_path", checkpoint, "--input", images, "--output", work / "masks"), core=core
    )
    return {"training": minutes, "predicting": predicting}


def train_nnunet(
    root: Path, work: Path, split: dict[str, list[str]], commands: str, batch: int, core: int
) -> dict[str, float]:
    """Plan, lower the batch, train and predict; the masks are in `masks`."""
    raw = work / "raw" / DATASET
    linked(raw / "imagesTr", root / "imagesTr", names_of(root), "_0000")
    linked(raw / "labelsTr", root / "labelsTr", names_of(root))
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    described = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(names_of(root))}
    (raw / "dataset.json").write_text(json.dumps({**described, "file_ending": ".nii.gz"}))
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    environment = {**folders, "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    preparing = run(
        [f"{commands}nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "2d", "-np", "1", "-npfp", "1"],
        core,
        **environment,
    )
    plans = work / "preprocessed" / DATASET / "nnUNetPlans.json"
    planned = json.loads(plans.read_text())
    planned["configurations"]["2d"]["batch_size"] = batch
    plans.write_text(json.dumps(planned, indent=1))
    trainer = f"nnUNetTrainer_{EPOCHS}epochs"
    command = [f"{commands}nnUNetv2_train", "4", "2d", "0", "-device", "cpu", "-tr", trainer]
    minutes = run(command, core, **environment | {"nnUNet_n_proc_DA": "0"})  # patches by the process that trains
    own = json.loads((plans.parent / "splits_final.json").read_text())[0]
    assert {side: sorted(own[side]) for side in own} == {side: sorted(split[side]) for side in split}, "another split"
    predicted = work / "results" / DATASET / f"{trainer}__nnUNetPlans__2d" / "fold_0" / "validation"
    shutil.copytree(predicted, work / "masks", ignore=shutil.ignore_patterns("*.json", "*.npz", "*.pkl"))
    return {"training": minutes, "preparing": preparing}


def scored(work: Path, labels: Path, masks: Path) -> Path:
    """The folder of the scores, made by the same command for both."""
    if not (work / "scores").exists():
        medseg(*("evaluate", "--reference", labels, "--prediction", masks, "-o", work / "scores"), *NAMED)
    return work / "scores"


NAMED = ("--labels", "anterior,posterior")


def means(scores: Path) -> dict[str, float]:
    summary = json.loads((scores / "summary_evaluate.json").read_text())
    return {name: float(summary["foreground_mean"][name]) for name in METRICS}


def one(
    side: str, number: int, root: Path, work: Path, split: dict[str, list[str]], arguments: argparse.Namespace
) -> Path:
    """A run of one side, unless it is there; the folder of its scores."""
    folder = work / f"{side}_{number}"
    if not (folder / "minutes.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if side == "medseg":
            minutes = train_medseg(root, folder, split, number, arguments.core)
        else:
            commands = f"{arguments.nnunet}/" if arguments.nnunet else ""
            minutes = train_nnunet(root, folder, split, commands, arguments.batch, arguments.core)
        (folder / "minutes.json").write_text(json.dumps(minutes))
    labels = work / "labels"
    if not labels.exists():
        linked(labels, root / "labelsTr", split["val"])
    return scored(folder, labels, folder / "masks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--sides", nargs="+", default=["medseg", "nnunet"], choices=["medseg", "nnunet"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--nnunet", default="", metavar="FOLDER")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.data is None or arguments.work is None:
        list_left_out("it needs Task04_Hippocampus, nnU-Net, and half an hour of a core for each run of each side")
        return
    root, work = arguments.data.resolve(), arguments.work.resolve()
    split = fold_0(names_of(root))
    rows = []
    for number in arguments.runs:
        for side in arguments.sides:
            scores = one(side, number, root, work, split, arguments)
            minutes = json.loads((work / f"{side}_{number}" / "minutes.json").read_text())
            rows.append({"side": side, "run": number, **means(scores), "minutes": minutes})
            report(rows[-1:])
        if len(arguments.sides) == 2:
            medseg("compare", work / f"nnunet_{number}" / "scores", work / f"medseg_{number}" / "scores")
    print(f"\n{len(split['train'])} volumes trained on, {len(split['val'])} scored; means over runs:")
    for side in arguments.sides:
        own = [row for row in rows if row["side"] == side]
        report([{"side": side, "run": "mean", **{name: mean(row[name] for row in own) for name in METRICS}}])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def report(rows: list[dict[str, object]]) -> None:
    for row in rows:
        said = "  ".join(f"{title} {row[name]:.4f}" for name, title in METRICS.items())
        spent = row.get("minutes")
        print(f"{row['side']:8s} {row['run']!s:5s} {said}  {spent or ''}", flush=True)


if __name__ == "__main__":
    main()
