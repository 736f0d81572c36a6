"""Training on cases of which each half is annotated for other organs, beside full annotation and a naive union.

A phantom with three organs, its patients in two halves: nobody looked for the stomach in the one, for the large bowel
in the other. Three trainings alike but for their masks, scored on the same, fully annotated test cases:

- full: all organs annotated everywhere;
- partial: the column `annotated_labels` says what was looked for;
- naive: the same masks as partial, and nothing said, so that an organ is background in half of the patients.

    python benchmarks/partial_labels.py [any setting of medseg fit] [results.json]
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from _report import Claim, finish

from medseg_pl.__main__ import main as medseg
from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.geometry import Geometry
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.data.synthetic.layouts import LabeledScan
from medseg_pl.io.nifti import write_nifti

ARMS = ("full", "partial", "naive")
CASES, SLICES, SIZE = 60, 12, (72, 60)
EPOCHS = 40
UNSEEN = ("stomach", "large_bowel")
"""The organ that nobody looked for in the patients of each half."""
WITHIN = 0.02
SIDES = ("train", "train", "val", "train", "test")
"""The sides of five patients."""


def write_arm(folder: Path, scans: list[LabeledScan], arm: str) -> Path:
    """Write images, masks and the table of one training."""
    patients = list(dict.fromkeys(scan.group for scan in scans))
    rows = [("case_id", "group", "image", "mask", "split", "annotated_labels")]
    for scan in scans:
        number = patients.index(scan.group)
        side = SIDES[number % len(SIDES)]
        unseen = None if arm == "full" or side == "test" else UNSEEN[number // len(SIDES) % 2]
        annotated = [organ for organ in ORGANS if organ != unseen]
        values = [value for value, organ in enumerate(ORGANS, start=1) if organ in annotated]
        mask = np.where(np.isin(scan.label_map, values), scan.label_map, np.uint8(0))
        depth, height, width = mask.shape
        geometry = Geometry((depth, height, width), scan.spacing_mm)
        for kind, array in (("image", scan.image.astype(np.int16)), ("mask", mask)):
            write_nifti(folder / kind / f"{scan.case_id}.nii.gz", array, geometry)
        names = [f"{kind}/{scan.case_id}.nii.gz" for kind in ("image", "mask")]
        said = ";".join(annotated) if arm == "partial" and unseen else ""
        rows.append((scan.case_id, scan.group, *names, side, said))
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "cases.csv"


def train(work: Path, arm: str, table: Path, settings: list[str]) -> dict[str, float]:
    """Train, test, and return the mean Dice of each organ."""
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--runs", str(work / "runs"), "--experiment", arm]
    labels = [f"--model.labels.names=[{','.join(ORGANS)}]", "--model.labels.task=multiclass"]
    partial = [f"--model.labels.partial={'true' if arm == 'partial' else 'false'}"]
    data = ["--data.source=ManifestSource", f"--data.source.manifest={table}"]
    data += [f"--data.source.root={table.parent}", "--data.split_fractions=null"]
    shape = ["--model.input_size=[64,72]", "--model.network.init_args.decoder_channels=[64,32,16,16]"]
    length = [f"--trainer.max_epochs={EPOCHS}", f"--trainer.check_val_every_n_epoch={max(1, EPOCHS // 3)}"]
    assert medseg([*fit, *labels, *partial, *data, *shape, *length, *settings]) == 0
    run = work / "runs" / arm / "version_0"
    assert medseg(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0
    summary = json.loads((run / "summary_test.json").read_text(encoding="utf-8"))
    return {organ: summary["labels"][organ]["dice"]["mean"] for organ in ORGANS}


def main() -> None:
    scans = list(make_scans(CASES, 0, SLICES, SIZE))
    settings = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dice = {arm: train(work, arm, write_arm(work / arm, scans, arm), settings) for arm in ARMS}
    for arm, organs in dice.items():
        sys.stdout.write(f"{arm:8} " + "  ".join(f"{organ} {value:.4f}" for organ, value in organs.items()) + "\n")
    means = {arm: float(np.mean(list(organs.values()))) for arm, organs in dice.items()}
    claims = [
        Claim(
            "two halves of the phantom, each without another organ",
            f"all organs annotated (the naive union: {means['naive']:.3f})",
            f"Dice within {WITHIN}",
            f"{means['partial']:.3f} and {means['full']:.3f}",
            means["partial"] >= means["full"] - WITHIN,
        )
    ]
    finish(claims, {"dice": dice, "mean": means})


if __name__ == "__main__":
    main()
