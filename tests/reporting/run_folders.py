"""Run folders as `fit` and `test` leave them, with scores that are made up."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.metrics.summary import write_scores

LABELS = ("large_bowel", "small_bowel", "stomach")
HOSTILE = "<script>alert(1)</script>"
HOSTILE_LABEL = "<img src=x onerror=alert(1)>\"'&$x^2$</script>"
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "experiment": "demo",
    "runs": "/home/someone/runs",
    "model": {"labels": {"names": list(LABELS), "task": "multilabel"}, "context_slices": 1},
    "data": {
        "source": {"class_path": "medseg_pl.FolderSource", "init_args": {"root": "/home/someone/data"}},
        "batch_size": 16,
    },
    "trainer": {"max_epochs": 12, "precision": "32-true"},
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "packages": {"medseg": "0.1.0", "torch": "2.14.1"},
    "hardware": {"cpu": "a processor", "gpus": []},
    "data": {"sha256": "4f9c" * 16, "train": {"cases": 2, "groups": 2}},
}


def score(case_id: str, group: str, label: str, dice: float, size: int = 1000) -> CaseScore:
    """A row of the given Dice; one of 0 is a miss, NaN is that of two empty masks."""
    status = "undefined" if math.isnan(dice) else "ok" if dice else "missed"
    found = 0 if math.isnan(dice) else round(dice * size)
    values: dict[str, float | int] = {
        "tp": found,
        "fp": size - found if found else 0,
        "fn": 0 if status == "undefined" else size - found,
        "dice": dice,
        "iou": dice / (2 - dice),
        "precision": dice,
        "recall": dice,
        "hd": 60 * (1 - dice),
        "hd95": 40 * (1 - dice),
        "assd": 8 * (1 - dice),
        "nsd": dice**2,
        "volume_reference_ml": 0.0 if status == "undefined" else size / 100,
        "volume_prediction_ml": found / 100,
    }
    return CaseScore(case_id, group, label, values, status, "mm")


def some_scores(cases: int, seed: int, better: float = 0.0) -> list[CaseScore]:
    """Two cases of each patient, three labels; every ninth case lacks the stomach, and one bowel is missed."""
    rng = np.random.default_rng(3)
    skill = rng.beta(14, 3, (cases, 3)) - [0.05, 0.12, 0.0]
    sizes = rng.lognormal(7, 0.8, (cases, 3)).astype(int) + 50
    noise = np.random.default_rng(seed).normal(better, 0.01, (cases, 3))
    dice = (skill + noise).clip(0.01, 0.99)
    dice[::9, 2] = math.nan
    dice[4 % cases, 1] = 0.0
    return [
        score(f"case{i:03d}", f"patient{i // 2:02d}", label, float(dice[i, j]), int(sizes[i, j]))
        for i in range(cases)
        for j, label in enumerate(LABELS)
    ]


def write_run(
    folder: Path,
    table: Sequence[CaseScore],
    labels: Sequence[str] = LABELS,
    *,
    config: dict[str, Any] | None = None,
    splits: dict[str, Any] | None = None,
) -> Path:
    """A run folder; its split has two training patients that nobody scored."""
    groups = {row.case_id: row.group for row in table}
    strata = {name: {"site": ("north", "south")[place % 2]} for place, name in enumerate(groups)}
    write_scores(folder, "test", table, labels, strata=strata, facts={"scored": {"side": "test", "split": "made up"}})
    trained = {"trained_1": "other1", "trained_2": "other2", "watched": "other3"}
    split = {"train": ["trained_1", "trained_2"], "val": ["watched"], "test": list(groups), "origin": "made up"}
    (folder / "splits.json").write_text(json.dumps({**split, "groups": {**trained, **groups}, **(splits or {})}))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {**CONFIG, "experiment": folder.parent.name}))
    (folder / "metrics.csv").write_text(learning(labels))
    (folder / "complete.json").write_text(json.dumps({"epochs": 12, "steps": 144}))
    return folder


def learning(labels: Sequence[str], epochs: int = 12) -> str:
    """A log in which everything becomes better."""
    names = [name for name in labels if "," not in name]
    columns = ["epoch", "lr-AdamW", "step", "train/loss", "val/dice", "val/loss"]
    lines = [",".join([*columns, *(f"val/dice/{name}" for name in names)])]
    for epoch in range(epochs):
        left = math.exp(-epoch / 4)
        step = 12 * (epoch + 1) - 1
        lines.append(f"{epoch},,{step},{0.1 + left:.4f},,," + "," * (len(names) - 1))
        lines.append(f",{0.003 * left:.5f},{step},,,," + "," * (len(names) - 1))
        dice = [f"{0.9 - left * (0.6 + place / 10):.4f}" for place in range(len(names))]
        lines.append(f"{epoch},,{step},,{0.88 - 0.7 * left:.4f},{0.2 + left:.4f}," + ",".join(dice))
    return "\n".join(lines) + "\n"


def write_two_runs(runs: Path) -> list[Path]:
    """Two runs on the same 24 cases, of which the second is a little better."""
    other = {**CONFIG, "experiment": "other", "model": {**CONFIG["model"], "context_slices": 2}}
    return [
        write_run(runs / "demo" / "version_0", some_scores(24, seed=1)),
        write_run(runs / "other" / "version_3", some_scores(24, seed=2, better=0.02), config=other),
    ]
