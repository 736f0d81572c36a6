"""Objects through the commands: a table beside the scores, and a comparison of two of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_pl.__main__ import main
from medseg_pl.io.scores import read_rows


def write_masks(folder: Path, shift: int) -> Path:
    """Ten images of two squares each; a shift moves one of them, and by more pixels makes it miss."""
    folder.mkdir()
    for number in range(10):
        mask = np.zeros((24, 24), np.uint8)
        mask[2:6, 2:6] = 255
        mask[12:16, 4 + shift * (number % 3) : 8 + shift * (number % 3)] = 255
        Image.fromarray(mask).save(folder / f"p{number}.png")
    return folder


def test_evaluate_counts_objects_and_compare_pairs_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = write_masks(tmp_path / "reference", 0)
    for name, shift in (("near", 1), ("far", 5)):
        prediction = write_masks(tmp_path / name, shift)
        options = ["--objects", "--shapes", "--spacing", "1,1,1", "--labels", "lesion"]
        folders = ["--reference", str(reference), "--prediction", str(prediction)]
        assert main(["evaluate", *folders, "-o", str(tmp_path / f"{name}_scores"), *options]) == 0
    objects = read_rows(tmp_path / "far_scores" / "objects_evaluate.csv")
    assert len(objects) == 40
    assert sum(row["status"] == "missed" for row in objects) == sum(row["status"] == "invented" for row in objects) == 6
    (moved,) = (row for row in objects if (row["case_id"], row["mask"], row["object"]) == ("p1", "prediction", 2.0))
    assert (moved["y"], moved["x"], moved["status"]) == (13.5, 10.5, "invented")
    summary = json.loads((tmp_path / "far_scores" / "summary_evaluate.json").read_text())
    assert summary["objects"]["lesion"]["recall"]["mean"] == 14 / 20
    assert summary["objects"]["lesion"]["false_positives_per_case"]["mean"] == 0.6
    assert 0 < summary["labels"]["lesion"]["cl_dice"]["mean"] < 1
    again = ["evaluate", "--reference", str(reference), "--prediction", str(tmp_path / "near"), "--labels", "lesion"]
    own = ["--thresholds", "0.6", "--size_bins", "0.005,0.02", "--connectivity", "face", "--matching", "many_to_one"]
    assert main([*again, "-o", str(tmp_path / "own"), "--spacing", "1,1,1", *own]) == 2
    assert "--thresholds needs --objects" in capsys.readouterr().err
    assert main([*again, "-o", str(tmp_path / "own"), "--spacing", "1,1,1", "--objects", *own]) == 0
    summary = json.loads((tmp_path / "own" / "summary_evaluate.json").read_text())
    # Shifted by 1 pixel of 4 a square has an IoU of 12/20, by 2 one of 8/24: of ten, three are beyond 0.6.
    assert summary["labels"]["lesion"]["object_f1_60"]["mean"] == pytest.approx((7 + 3 * 0.5) / 10)
    assert [(each["from"], each["to"], each["n"]) for each in summary["objects"]["lesion"]["recall_by_size"]] == [
        (0.005, 0.02, 20)
    ]
    capsys.readouterr()
    runs = [str(tmp_path / name) for name in ("far_scores", "near_scores")]
    metrics = ["object_f1", "object_pq_50", "lesion_hd95", "cl_dice", "boundary_iou", "count_error"]
    wanted = [part for metric in metrics for part in ("--metric", metric)]
    assert main(["compare", *runs, *wanted, "--resamples", "1000", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["metrics"]
    assert compared["object_f1"]["labels"]["lesion"]["difference"] == pytest.approx(0.6 * 0.5)
    assert compared["object_f1"]["labels"]["lesion"]["p_holm"] is not None
    assert compared["lesion_hd95"]["labels"]["lesion"]["better"] == "b"
    assert not compared["lesion_hd95"]["higher_is_better"]
    assert compared["count_error"]["labels"]["lesion"]["difference"] == 0.0
