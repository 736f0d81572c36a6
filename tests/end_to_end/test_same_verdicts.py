"""`predict`, `Predictor` and the `run.py` of an exported model say the same of an image."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg_pl import Predictor
from medseg_pl.__main__ import main
from medseg_pl.core.errors import DataError
from medseg_pl.core.image_findings import describe_findings, has_warning
from medseg_pl.core.types import Volume
from medseg_pl.data.sources.files import read_image_file
from medseg_pl.export import runner
from medseg_pl.io.nifti import write_nifti
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "untouched": lambda image: image,
    "inverted": lambda image: image.max() - image,
    "upside-down": lambda image: image[..., ::-1, :],
    "blank": np.zeros_like,
    "cropped": lambda image: image[..., 8:-8, 8:-8],
    "color": lambda image: np.repeat(image, 3, axis=0),
    "bytes": lambda image: (255 * (image / image.max())).astype(np.uint8),
    "scaled": lambda image: 100 * image.astype(np.float32),
}


@pytest.fixture(scope="module")
def trained(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of volumes that is trained until it finds something: limits of labels come from what it finds."""
    runs = tmp_path_factory.mktemp("runs")
    data = ["--config=configs/data/decathlon.yaml", f"--data.source.root={phantoms['decathlon']}"]
    names = "--model.labels.names=[large_bowel,small_bowel,stomach]"
    fit = ["fit", *data, "--config=configs/model/tiny.yaml", "--config=configs/trainer/cpu.yaml", names, *SMALL]
    longer = ["--trainer.max_epochs=6", "--trainer.check_val_every_n_epoch=6", "--model.optimizer.init_args.lr=0.003"]
    assert main([*fit, *longer, "--runs", str(runs)]) == 0
    return str(next(runs.glob("*/version_0")) / "checkpoints" / "best.ckpt")


def read_table(folder: Path) -> dict[str, tuple[str, str]]:
    rows = csv.DictReader((folder / "predictions.csv").read_text(encoding="utf-8").splitlines())
    # Sentences of refused files name the program's own remedy.
    return {
        Path(row["input"]).name: (row["status"], "" if row["status"] == "failed" else row["reason"]) for row in rows
    }


def test_three_ways_say_the_same(trained: str, phantoms: dict[str, Path], tmp_path: Path) -> None:
    image, geometry = read_image_file(sorted((phantoms["decathlon"] / "imagesTr").glob("*.nii.gz"))[0])
    paths = [tmp_path / "in" / f"{name}.nii.gz" for name in CHANGES]
    for path, change in zip(paths, CHANGES.values(), strict=True):
        changed = Volume(np.ascontiguousarray(change(image)), None, geometry).image
        write_nifti(path, changed[0] if len(changed) == 1 else changed, geometry)

    predictor, said = Predictor.from_checkpoint(trained, device="cpu"), {}
    for path in paths:
        try:
            findings = predictor.predict(path).findings
        except DataError:
            said[path.name] = ("failed", "")
        else:
            said[path.name] = ("marked" if has_warning(findings) else "written", describe_findings(findings))
    assert said["color.nii.gz"][0] == "failed"
    assert said["inverted.nii.gz"][0] == said["blank.nii.gz"][0] == said["scaled.nii.gz"][0] == "marked"

    predict = ["predict", "--ckpt_path", trained, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*predict, "--trainer.accelerator=cpu", "--data.num_workers=0"]) == 1
    assert read_table(tmp_path / "out") == said
    assert main(["export", "--ckpt_path", trained, "-o", str(tmp_path / "exported")]) == 0
    assert runner.main([*map(str, paths), "-o", str(tmp_path / "run")], tmp_path / "exported") == 1
    assert read_table(tmp_path / "run") == said


def test_an_evaluation_repeats_what_was_marked(
    trained: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = (sorted((phantoms["decathlon"] / part).glob("*.nii.gz"))[0] for part in ("imagesTr", "labelsTr"))
    pixels, geometry = read_image_file(image)
    for name, stored in (("as-it-was", pixels), ("inverted", pixels.max() - pixels)):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", stored[0], geometry)
        (tmp_path / "reference").mkdir(exist_ok=True)
        shutil.copy(mask, tmp_path / "reference" / f"{name}.nii.gz")
    predict = ["predict", "--ckpt_path", trained, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*predict, "--trainer.accelerator=cpu", "--data.num_workers=0"]) == 1
    capsys.readouterr()
    folders = ["--reference", str(tmp_path / "reference"), "--prediction", str(tmp_path / "out")]
    labels = "1=large_bowel,2=small_bowel,3=stomach"
    assert main(["evaluate", *folders, "--labels", labels, "-o", str(tmp_path / "scores")]) == 0
    assert json.loads((tmp_path / "scores" / "summary_evaluate.json").read_text())["n_marked"] == 1
    said = capsys.readouterr().out
    assert "inverted.nii.gz: F101" in said
    assert "as-it-was" not in said.partition("Marked as unlike")[2]
