"""Wrong labels among real ones: hippocampi, of which a tenth was shifted, dropped or exchanged."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_pl.__main__ import main

VOLUMES, FAULTY = 80, 8


def spoilt(values: np.ndarray, fault: int, rng: np.random.Generator) -> np.ndarray:
    """Labels that are 4 mm off, lack one of the two, or are exchanged."""
    if fault == 0:
        return np.roll(values, int(rng.choice([-4, 4])), axis=int(rng.integers(3)))
    if fault == 1:
        return np.where(values == rng.integers(1, 3), 0, values).astype(values.dtype)
    return np.array([0, 2, 1], values.dtype)[values]


@pytest.fixture
def data(real_data: Path, tmp_path: Path) -> tuple[Path, set[str]]:
    """Volumes of the data set with labels of which some are wrong, and which these are."""
    rng, source, root = np.random.default_rng(0), real_data / "msd_hippocampus", tmp_path / "data"
    index = json.loads((source / "dataset.json").read_text())
    index["training"] = sorted(index["training"], key=lambda pair: str(pair["image"]))[:VOLUMES]
    faulty = rng.choice(VOLUMES, FAULTY, replace=False).tolist()
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for place, pair in enumerate(index["training"]):
        shutil.copy(source / pair["image"], root / pair["image"])
        label = nibabel.load(source / pair["label"])
        values = np.asanyarray(label.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
        if place in faulty:
            values = spoilt(values, faulty.index(place) % 3, rng)
        nibabel.save(nibabel.Nifti1Image(values, label.affine), root / pair["label"])  # type: ignore[attr-defined]
    (root / "dataset.json").write_text(json.dumps({**index, "numTraining": VOLUMES, "test": []}))
    return root, {Path(index["training"][place]["image"]).name.split(".")[0] for place in faulty}


@pytest.mark.realdata
@pytest.mark.slow
def test_wrong_labels_come_first(data: tuple[Path, set[str]], tmp_path: Path) -> None:
    root, faulty = data
    options = ["--data.source.root", str(root), "--data.folds=2", "--trainer.precision=32-true"]
    options += [
        "--trainer.accelerator=cpu",
        "--runs",
        str(tmp_path / "runs"),
        "--data.cache_dir",
        str(tmp_path / "store"),
    ]
    for fold in ("0", "1"):
        own = ["--data.fold", fold, "--experiment", f"fold{fold}"]
        assert main(["fit", "--config", "configs/experiment/hippocampus.yaml", *options, *own]) == 0
    checkpoints = sorted(str(path) for path in (tmp_path / "runs").rglob("best.ckpt"))
    assert main(["review", "--ckpt_path", *checkpoints, "-o", str(tmp_path / "out"), "--device=cpu"]) == 0
    with (tmp_path / "out" / "review.csv").open(newline="") as file:
        queued = [row["case_id"] for row in csv.DictReader(file)]
    assert len(queued) == VOLUMES
    assert len(set(queued[:FAULTY]) & faulty) / FAULTY >= 0.8
