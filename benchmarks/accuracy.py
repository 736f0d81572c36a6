"""Accuracy for the same minutes of one core: `medseg plan` with and without pretrained weights, and a plain loop.

Data sets, in the folder `MEDSEG_TEST_DATA`: nuclei (every fifth image is held out), CHASE_DB1 (trained on the first 20
photographs, scored on the last 8) and the hippocampus (fold 0 of nnU-Net's split). Each arm trains with nothing edited
but the seed, alone on one core, and predicts the held-out cases with its last weights; a plan that takes no pretrained
weights counts for both of its arms. The loop is what one writes by hand: `smp.Unet("resnet18")`, Dice and
cross-entropy, AdamW, flips, crops of 256, bf16 where the processor has it, and a learning rate that falls with the
time.

    python benchmarks/accuracy.py --work FOLDER [--datasets nuclei chase hippocampus] [--arms scratch pretrained loop]
        [--seeds 0 1 2] [--minutes 10] [--core 0] [--record FILE.csv] [--chart FILE.svg] [FILE.json]

The folder keeps each finished run, with its plan, its scores and its minutes: what is there is not trained again.
Neither is what stands in the record, a table of every case's Dice in every run, to which finished runs are added.
Minutes are those of a clock: leave the core to it. nnU-Net stands beside medseg in `nnunet.py`, which trains it where
it is installed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import yaml
from _report import Claim, find_processor, finish, list_left_out
from nnunet import fold_0

ARMS = {"pretrained": "plan, ImageNet weights", "scratch": "plan, random weights", "loop": "plain loop"}
CROP, BATCH, RATE = 256, 8, 1e-3
RUN = ("dataset", "budget", "arm", "seed", "minutes", "computed", "processor")
SCORE = ("case_id", "group", "label", "tp", "fp", "fn", "dice", "status", "unit")
"""The columns of the record: of a run, and of a case's score."""


class DataSet(NamedTuple):
    """A data set, the options by which medseg reads it, and what its accuracy was promised to be."""

    folder: str
    options: tuple[str, ...]
    hold_out: Callable[[list[str]], list[str]]
    target: float


DATA_SETS = {
    "nuclei": DataSet("nuclei", (), lambda names: names[::5], 0.915),
    "chase": DataSet("chase_db1", ("--masks", "masks_1st", "--group", r"Image_(\d+)"), lambda names: names[20:], 0.805),
    "hippocampus": DataSet("msd_hippocampus", (), lambda names: fold_0(names)["val"], 0.878),
}


def open_data(name: str, root: Path) -> Any:
    """The data set as `medseg plan` finds it."""
    from medseg_pl.checks.layout_detection import DataSettings, detect_dataset

    options = DATA_SETS[name].options
    reading = {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
    return detect_dataset(root / DATA_SETS[name].folder, DataSettings(reading=reading))


def split(name: str, data: Any) -> dict[str, list[str]]:
    names = sorted(case.case_id for case in data.source.cases())
    held_out = set(DATA_SETS[name].hold_out(names))
    return {"train": [each for each in names if each not in held_out], "val": sorted(held_out), "test": []}


def run_pinned(arguments: Sequence[str | Path], core: int, log: Path) -> dict[str, float]:
    """Run Python on one core; minutes by the clock, and those that the core computed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = ["taskset", "-c", str(core), sys.executable, *map(str, arguments)]
    with log.open("a") as output:
        subprocess.run(command, env=alone, check=True, stdout=output, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"minutes": round((time.perf_counter() - started) / 60, 2), "computed": round(computed / 60, 2)}


def train_plan(arm: str, name: str, folder: Path, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Plan and fit; the minutes of `fit`."""
    root = options.root / DATA_SETS[name].folder
    plan, log = folder / "plan.yaml", folder / "log.txt"
    if not plan.exists():
        random = ["--no_pretrained"] if arm == "scratch" else []
        planning = ["--device", "cpu", "--minutes", str(options.minutes), *DATA_SETS[name].options, *random]
        run_pinned(["-m", "medseg_pl", "plan", root, "-o", plan, *planning], options.core, log)
    settings = ["--data.split_file", folder / "split.json", "--data.num_workers", "0", "--seed_everything", str(seed)]
    fit = ["-m", "medseg_pl", "fit", "--config", plan, "--runs", folder / "runs", "--experiment", "run", *settings]
    return run_pinned(fit, options.core, log)


def takes_no_weights(plan: Path) -> bool:
    """Tell whether a plan with pretrained weights is one with random weights, as for gray images of many patients."""
    return plan.is_file() and yaml.safe_load(plan.read_text())["model"].get("pretrained") is None


def predict_plan(folder: Path) -> Callable[[Any, str], Any]:
    from medseg_pl import Predictor

    newest = max((folder / "runs" / "run").glob("version_*"), key=lambda path: int(path.name.split("_")[1]))
    predictor = Predictor.from_checkpoint(newest / "checkpoints" / "last.ckpt", device="cpu")
    return lambda volume, case_id: predictor.predict_volume(volume, case_id).mask


def normalize(image: Any) -> Any:
    values = image.astype(np.float32)
    axes = tuple(range(1, values.ndim))
    return (values - values.mean(axes, keepdims=True)) / (values.std(axes, keepdims=True) + 1e-6)


def iterate_batches(volumes: list[tuple[Any, Any]], side: tuple[int, int], seed: int) -> Iterator[tuple[Any, Any]]:
    """Random crops of random slices, flipped half of the time each way, padded where slices are smaller."""
    generator = np.random.default_rng(seed)
    slices = [(v, d) for v, (image, _) in enumerate(volumes) for d in range(image.shape[1])]
    batch = min(32, BATCH * CROP**2 // (side[0] * side[1]))
    while True:
        images, masks = [], []
        for chosen in generator.integers(len(slices), size=batch):
            v, d = slices[chosen]
            planes = np.concatenate([volumes[v][0][:, d], volumes[v][1][:, d].astype(np.float32)])
            short = [max(0, side[axis] - planes.shape[axis + 1]) for axis in (0, 1)]
            planes = np.pad(planes, [(0, 0), (0, short[0]), (0, short[1])])
            top, left = (generator.integers(planes.shape[axis + 1] - side[axis] + 1) for axis in (0, 1))
            planes = planes[:, top : top + side[0], left : left + side[1]]
            for axis in (1, 2):
                planes = np.flip(planes, axis) if generator.random() < 0.5 else planes
            images.append(planes[:-1])
            masks.append(planes[-1])
        yield np.stack(images), np.stack(masks).astype(np.int64)


def train_loop(name: str, root: Path, folder: Path, minutes: float, seed: int) -> None:
    """The plain loop, to its masks of the held-out cases."""
    started = time.perf_counter()
    import segmentation_models_pytorch as smp
    import torch
    from torch.nn import functional as F

    from medseg_pl.planning.budget import detect_hardware

    torch.manual_seed(seed)
    data = open_data(name, root)
    sides = json.loads((folder / "split.json").read_text())
    cases = {case.case_id: case for case in data.source.cases()}
    read = {case_id: data.source.read(cases[case_id], data.labels) for case_id in (*sides["train"], *sides["val"])}
    volumes = [(normalize(read[case_id].image), read[case_id].mask) for case_id in sides["train"]]
    longest = [max(image.shape[axis] for image, _ in volumes) for axis in (2, 3)]
    side = tuple(min(CROP, -(-length // 32) * 32) for length in longest)
    classes = len(data.labels.names) + 1
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=len(volumes[0][0]), classes=classes)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)
    dice = smp.losses.DiceLoss("multiclass", classes=list(range(1, classes)))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=detect_hardware("cpu", None).bf16)
    steps, budget = 0, 60 * minutes
    for images, masks in iterate_batches(volumes, (side[0], side[1]), seed):
        passed = (time.perf_counter() - started) / budget
        if passed >= 1:
            break
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (1 + steps) / 20) * (1 - passed) ** 0.9
        image = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        with autocast:
            logits = network(image).float()
        target = torch.from_numpy(masks)
        loss = dice(logits, target) + F.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    network.eval()
    (folder / "steps.json").write_text(json.dumps(steps))
    for case_id in sides["val"]:
        image = torch.from_numpy(normalize(read[case_id].image))
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % 32, 0, -height % 32))
        with torch.inference_mode(), autocast:
            labels = [network(padded[None, :, d])[0].argmax(0) for d in range(padded.shape[1])]
        mask = torch.stack(labels)[None, :, :height, :width].numpy().astype(np.uint8)
        data.source.write(folder / "masks", cases[case_id], mask, data.labels)


def score(name: str, folder: Path, data: Any, held_out: list[str], predict: Callable[[Any, str], Any] | None) -> None:
    """Write references and masks in one format, and let `medseg evaluate` compare them."""
    cases = {case.case_id: case for case in data.source.cases()}
    for case_id in held_out:
        volume = data.source.read(cases[case_id], data.labels)
        data.source.write(folder / "references", cases[case_id], volume.mask, data.labels)
        if predict is not None:
            data.source.write(folder / "masks", cases[case_id], predict(volume, case_id), data.labels)
    values = data.labels.values or range(1, len(data.labels.names) + 1)
    labels = ",".join(f"{value:g}={label}" for value, label in zip(values, data.labels.names, strict=True))
    groups = dict(zip(DATA_SETS[name].options[::2], DATA_SETS[name].options[1::2], strict=True)).get("--group")
    evaluate = ["evaluate", "--reference", folder / "references", "--prediction", folder / "masks"]
    grouped = ["--group", groups] if groups else []
    command = [*evaluate, "-o", folder / "scores", "--labels", labels, "--no_distances", *grouped]
    subprocess.run([sys.executable, "-m", "medseg_pl", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def run_arm(arm: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score, unless that is done; what is known of the run."""
    folder = options.work / f"{name}_{options.minutes:g}min" / f"{arm}_{seed}"
    result = folder / "result.json"
    if result.is_file():
        return dict(json.loads(result.read_text()))
    twin = folder.with_name(f"pretrained_{seed}")
    if arm == "scratch" and takes_no_weights(twin / "plan.yaml"):
        shutil.copytree(twin, folder, dirs_exist_ok=True)
        found = {**json.loads(result.read_text()), "arm": arm}
        result.write_text(json.dumps(found, indent=1))
        return found
    folder.mkdir(parents=True, exist_ok=True)
    data = open_data(name, options.root)
    sides = split(name, data)
    (folder / "split.json").write_text(json.dumps(sides))
    if arm == "loop":
        itself = [__file__, "--one_loop", name, folder, str(options.minutes), str(seed)]
        spent = run_pinned(itself, options.core, folder / "log.txt")
        predict = None
    else:
        spent = train_plan(arm, name, folder, options, seed)
        predict = predict_plan(folder)
    score(name, folder, data, sides["val"], predict)
    dice = json.loads((folder / "scores" / "summary_evaluate.json").read_text())["foreground_mean"]["dice"]
    found = {"dataset": name, "arm": arm, "seed": seed, "dice": dice, **spent}
    result.write_text(json.dumps(found, indent=1))
    return found


def restore(options: argparse.Namespace) -> None:
    """Put the runs of the record into the folder, where it has none of them."""
    if options.record is None or not options.record.is_file():
        return
    with options.record.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        runs.setdefault(tuple(row[key] for key in RUN), []).append(row)
    for (name, budget, arm, seed, minutes, computed, _), scores in runs.items():
        folder = options.work / f"{name}_{budget}min" / f"{arm}_{seed}"
        if (folder / "result.json").is_file():
            continue
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        write_rows(folder / "scores" / "scores_evaluate.csv", [{key: row[key] for key in SCORE} for row in scores])
        dice = mean(float(row["dice"]) for row in scores if row["dice"])
        found = {"dataset": name, "arm": arm, "seed": int(seed), "dice": dice}
        spent = {"minutes": float(minutes), "computed": float(computed)}
        (folder / "result.json").write_text(json.dumps({**found, **spent}, indent=1))


def record(run: dict[str, Any], options: argparse.Namespace) -> None:
    """Add a run to the record, unless it is there."""
    if options.record is None:
        return
    known: list[dict[str, Any]] = []
    if options.record.is_file():
        with options.record.open(newline="") as file:
            known = list(csv.DictReader(file))
    budget = f"{options.minutes:g}"
    this = (run["dataset"], budget, run["arm"], str(run["seed"]))
    if any(tuple(row[key] for key in RUN[:4]) == this for row in known):
        return
    spent = {"minutes": run["minutes"], "computed": run["computed"], "processor": find_processor()}
    head = dict(zip(RUN[:4], this, strict=True)) | spent
    scores = options.work / f"{run['dataset']}_{budget}min" / f"{run['arm']}_{run['seed']}" / "scores"
    with (scores / "scores_evaluate.csv").open(newline="") as file:
        new = [head | {key: row[key] for key in SCORE} for row in csv.DictReader(file)]
    write_rows(options.record, known + new)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def average_seeds(name: str, arm: str, options: argparse.Namespace) -> Path:
    """A table of scores in which each case has the mean of its Dice over seeds."""
    root = options.work / f"{name}_{options.minutes:g}min"
    tables = []
    for seed in options.seeds:
        with (root / f"{arm}_{seed}" / "scores" / "scores_evaluate.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    path = root / f"mean_{arm}.csv"
    averaged = []
    for rows in zip(*tables, strict=True):
        dice = [float(row["dice"]) for row in rows if row["dice"]]
        averaged.append({**{key: rows[0][key] for key in SCORE}, "dice": mean(dice) if dice else ""})
    write_rows(path, averaged)
    return path


def summarize(name: str, arm: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Mean over cases and seeds, and its bootstrap interval over patients."""
    from medseg_pl.metrics.statistics.intervals import describe

    with average_seeds(name, arm, options).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dice"]]
    by_case: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        by_case.setdefault((row["case_id"], row["group"]), []).append(float(row["dice"]))
    described = describe([mean(values) for values in by_case.values()], [group for _, group in by_case])
    low, high = described["ci95"]  # type: ignore[misc]
    return float(described["mean"]), low, high  # type: ignore[arg-type]


def compare_observers(options: argparse.Namespace) -> None:
    """Print the vessels of the plan's first seed beside both observers of CHASE_DB1."""
    root = options.root / DATA_SETS["chase"].folder
    run = options.work / f"chase_{options.minutes:g}min" / f"pretrained_{options.seeds[0]}"
    with TemporaryDirectory() as folder:
        second = Path(folder) / "second"
        second.mkdir()
        for path in (run / "masks").iterdir():
            (second / path.name).symlink_to(root / "masks_2nd" / path.name)
        pairs = ["--reference", run / "references", "--raters", second, "--prediction", run / "masks"]
        named = ["--labels", "vessel", *DATA_SETS["chase"].options[2:], "-o", Path(folder) / "agreement"]
        command = [sys.executable, "-m", "medseg_pl", "evaluate", *pairs, *named]
        subprocess.run([str(word) for word in command], check=True)


def draw_chart(bars: dict[str, dict[str, tuple[float, float, float]]], path: Path, minutes: float) -> None:
    """Means with intervals, a group for each data set."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    arms = [arm for arm in ARMS if any(arm in found for found in bars.values())]
    colors = {"pretrained": "#1b6ca8", "scratch": "#7fb2d6", "loop": "#b0b0b0"}
    for number, arm in enumerate(arms):
        places = [
            place + (number - (len(arms) - 1) / 2) * 0.26 for place, found in enumerate(bars.values()) if arm in found
        ]
        values = [found[arm] for found in bars.values() if arm in found]
        heights = [value for value, _, _ in values]
        errors = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
        # Points and not bars: the axis does not begin at 0.
        axes.errorbar(places, heights, errors, fmt="o", label=ARMS[arm], color=colors[arm], capsize=4, markersize=7)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.set_xlim(-0.5, len(bars) - 0.5)
    axes.set_ylim(max(0.0, min(low for found in bars.values() for _, low, _ in found.values()) - 0.05), 1)
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel("Dice, mean of cases")
    axes.set_title(f"{minutes:g} minutes of one CPU core", fontsize=10)
    axes.legend(frameon=False, ncols=len(arms), loc="upper center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    if sys.argv[1:2] == ["--one_loop"]:
        name, folder, minutes, seed = sys.argv[2:6]
        train_loop(name, Path(os.environ["MEDSEG_TEST_DATA"]), Path(folder), float(minutes), int(seed))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--datasets", nargs="+", default=list(DATA_SETS), choices=DATA_SETS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("json", nargs="?", help="file of all numbers")
    options = parser.parse_args()
    if options.work is None or "MEDSEG_TEST_DATA" not in os.environ:
        list_left_out("it needs data in MEDSEG_TEST_DATA, --work, and ten minutes of a core for each of 27 runs")
        return
    options.work = options.work.resolve()
    options.root = Path(os.environ["MEDSEG_TEST_DATA"]).resolve()
    os.environ["MEDSEG_TEST_DATA"] = str(options.root)
    restore(options)
    runs, bars, claims = [], {}, []
    for name in options.datasets:
        for seed in options.seeds:
            for arm in options.arms:
                found = run_arm(arm, name, seed, options)
                runs.append(found)
                record(found, options)
                print(
                    f"{name:12s} {arm:10s} seed {seed}: Dice {found['dice']:.4f}, {found['minutes']} minutes "
                    f"({found['computed']} computed)",
                    flush=True,
                )
        bars[name] = {arm: summarize(name, arm, options) for arm in options.arms}
        for arm, (value, low, high) in bars[name].items():
            print(f"{name:12s} {ARMS[arm]}: {value:.4f} ({low:.4f} to {high:.4f})")
            if arm == "pretrained":
                target = DATA_SETS[name].target
                claims.append(
                    Claim(
                        f"Dice of {name} after {options.minutes:g} minutes of one core, plan",
                        "published results",
                        f">= {target}",
                        f"{value:.4f}",
                        value >= target,
                    )
                )
        for other in [arm for arm in options.arms if arm != "pretrained" and "pretrained" in options.arms]:
            tables = [average_seeds(name, arm, options) for arm in (other, "pretrained")]
            subprocess.run([sys.executable, "-m", "medseg_pl", "compare", *tables], check=True)
    # Masks are not in the record.
    if (
        "chase" in bars
        and (options.work / f"chase_{options.minutes:g}min" / f"pretrained_{options.seeds[0]}/masks").is_dir()
    ):
        compare_observers(options)
    if options.chart:
        draw_chart(bars, options.chart, options.minutes)
    finish(claims, {"runs": runs, "means": bars}, ["segmentation-models-pytorch", "timm"], cores=1)


if __name__ == "__main__":
    main()
