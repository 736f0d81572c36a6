"""Two data sets that are annotated for different labels train one model, and are scored by what is known of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_pl.__main__ import main
from medseg_pl.io.scores import read_rows
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

NAMES = [f"{site}{number}" for site in ("north", "south") for number in range(4)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Images with a bright square, annotated in the north, and a dark one, annotated in the south."""
    rows = [["case_id", "group", "image", "mask_bright", "mask_dark", "annotated_labels"]]
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        image = rng.integers(100, 140, (32, 32)).astype(np.uint8)
        label = "bright" if name.startswith("north") else "dark"
        mask = np.zeros((32, 32), np.uint8)
        image[4 + number : 10 + number, 4:10], image[18:26, 14 + number : 20 + number] = 250, 10
        mask[(image == 250) if label == "bright" else (image == 10)] = 255
        folder = tmp_path / name[:5]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_{label}.png")
        masks = [f"{name[:5]}/{name}_{each}.png" if each == label else "" for each in ("bright", "dark")]
        rows.append([name, name, f"{name[:5]}/{name}.png", *masks, label])
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "cases.csv"


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_two_data_sets_of_different_labels_train_one_model(
    task: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "planned.yaml"
    assert main(["plan", str(tmp_path), "-o", str(config), "--task", task, "--no_probe", "--device", "cpu"]) == 0
    assert "partial: true" in config.read_text()
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": NAMES[:2] + NAMES[4:6], "val": NAMES[2:3] + NAMES[6:7], "test": NAMES[3::4]}))
    options = ["--data.split_file", str(split), "--runs", str(tmp_path / "runs"), "--data.augmentation=null", *SMALL]
    plain = ["--data.samples_per_epoch=8", "--trainer.callbacks=null", "--model.pretrained=null"]
    refused = ["--model.labels.partial=false"]
    assert main(["fit", "--config", str(config), *options, *plain, *refused]) == 2
    assert "annotated for bright alone. Set model.labels.partial to true" in " ".join(capsys.readouterr().err.split())
    assert main(["fit", "--config", str(config), *options, *plain]) == 0
    run = next((tmp_path / "runs").glob("*/version_0"))
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0
    rows = {(row["case_id"], row["label"]): row for row in read_rows(run / "scores_test.csv")}
    unknown = [key for key, row in rows.items() if row["status"] == "not_annotated"]
    assert unknown == [("north3", "dark"), ("south3", "bright")]
    assert all(np.isnan(float(rows[key][name])) for key in unknown for name in ("tp", "dice", "hd95"))
    summary = json.loads((run / "summary_test.json").read_text())
    assert [summary["labels"][name]["dice"]["n"] for name in ("bright", "dark")] == [1, 1]
    assert [summary["labels"][name]["counts"]["n_not_annotated"] for name in ("bright", "dark")] == [1, 1]
    capsys.readouterr()
    compared = ["compare", str(run), str(run), "--resamples", "1000", "--json"]
    assert main(compared) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["dice"]["labels"]["dark"]["cases"] == 1
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
